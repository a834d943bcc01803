"""The predicted error against the measured one."""

import numpy as np
import pytest
from oracle import distance, product

import lrqmm
from lrqmm.bench.sources.distributions import DISTRIBUTIONS, sample
from lrqmm.products.apriori import means_by_sign, predicted_error

CASES = [
    (name, bits, rounding)
    for name in DISTRIBUTIONS
    for bits in (3, 4, 6, 8)
    for rounding in ("nearest", "truncate")
]


def ratios(method, **how):
    found = []
    for seed, (name, bits, rounding) in enumerate(CASES):
        A, B = sample(name, 256, 300, 200, seed=seed)
        given = dict(bits=bits, rounding=rounding)
        measured = distance(lrqmm.matmul(A, B, method, **given), product(A, B))
        found.append(predicted_error(A, B, **given, **how) / measured)
    return np.abs(np.array(found) - 1)


def test_the_error_is_predicted_within_ten_percent_in_nine_of_ten_cases():
    off = ratios("direct")
    assert (off < 0.1).mean() >= 0.9, list(zip(CASES, off.round(2), strict=True))
    assert (off < 0.35).mean() > 0.97


def test_means_by_sign_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    X = rng.integers(-1, 2, (5, 40)).astype(np.float32)
    R = rng.standard_normal((5, 40)).astype(np.float32)
    found = means_by_sign(X, R)
    for i in range(5):
        for sign in (-1, 0, 1):
            own = X[i] == sign
            np.testing.assert_allclose(found[i, own], R[i, own].mean(), rtol=1e-4, atol=1e-6)


def test_nothing_lost_is_predicted_as_nothing():
    A = np.full((4, 5), 3, np.float32)
    assert predicted_error(A, A.T.copy()) == pytest.approx(0, abs=1e-6)
    assert predicted_error(0 * A, A.T.copy()) == 0
