"""Compressors of one operand, LRAMM and ESPACE, against slow references and their own claims."""

import time

import numpy as np
import pytest
from oracle import LIBRARIES, distance, low_rank, product, to, to_numpy

import lrqmm
from lrqmm.bench.sources import images
from lrqmm.bench.sources.distributions import sample
from lrqmm.methods import caldera, lplr, preset
from lrqmm.products.compression import affordable_rank, kept, kept_bits, least_squares

FACTORIZERS = ("dsvd", "lplr", "lplr_svd")


def floats(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def steep(seed, rows, columns):
    """Singular values 2^-i."""
    U, _, Vt = np.linalg.svd(floats(seed, rows, columns), full_matrices=False)
    return ((U * 2.0 ** -np.arange(len(Vt))) @ Vt).astype(np.float32)


def compressed(name, B, calibration=None, **params):
    return preset(name).build(**params).prepare(B, calibration=calibration).states[0]


def approximation(name, B, calibration=None, **params):
    """B̂, as the product with the identity shows it."""
    return compressed(name, B, calibration, **params).from_left(np.eye(len(B), dtype=np.float32))


@pytest.fixture(params=LIBRARIES)
def library(request):
    return request.param


# what they share


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("granularity", ["tensor", "vector"])
def test_kept_is_the_nearest_of_the_levels_between_the_ends(library, bits, granularity):
    X = floats(bits, 5, 33)
    found = to_numpy(kept(to(library, X), bits, granularity))
    for row, own in zip(X, found, strict=True):
        ends = X if granularity == "tensor" else row
        levels = np.linspace(ends.min(), ends.max(), 2**bits)
        nearest = levels[np.abs(row[:, None] - levels).argmin(axis=1)]
        np.testing.assert_allclose(own, nearest, atol=1e-5)
    scales = 1 if granularity == "tensor" else 5
    assert kept_bits(5, 33, bits, granularity) == bits * 165 + 64 * scales


def test_kept_in_half_and_full_precision():
    X = floats(0, 4, 9)
    np.testing.assert_array_equal(kept(X, 32, "tensor"), X)
    np.testing.assert_array_equal(kept(X, 16, "tensor"), X.astype(np.float16).astype(np.float32))
    assert kept_bits(4, 9, 16, "vector") == 16 * 36


def test_the_rank_that_a_budget_buys():
    assert affordable_rank(1, 1000, 1000, 4, 8) == 83
    assert affordable_rank(1, 1000, 1000, 8, 8) == 62
    assert affordable_rank(8, 100, 30, 1, 1) == 30  # no more than there are
    assert affordable_rank(1, 4, 4, 8, 8) == 1
    for k, n, bits, left, right in [(300, 200, 2, 4, 8), (64, 1000, 1, 8, 2)]:
        rank = affordable_rank(bits, k, n, left, right)
        assert rank * (k * left + n * right) <= bits * k * n < (rank + 1) * (k * left + n * right)


@pytest.mark.parametrize("name", ["naive", *FACTORIZERS, "caldera"])
@pytest.mark.parametrize("bits", [3, 4])
def test_no_more_bits_than_the_budget_and_scales(name, bits):
    k, n = 192, 256
    stored = lrqmm.get_method(name, bits=bits).cost(0, k, n).operand_bits
    assert 0.93 * bits * k * n < stored <= bits * k * n + 96 * (k + n)


@pytest.mark.parametrize("name", ["naive", *FACTORIZERS, "caldera"])
def test_the_product_is_that_with_what_is_kept(library, name):
    A, B = floats(1, 20, 48), floats(2, 48, 40)
    params = {"bits": 4, "rank": 5} if name != "naive" else {"bits": 4}
    left, right = to(library, A), to(library, B)
    C = to_numpy(lrqmm.matmul(left, right, name, **params))
    made = compressed(name, right, left if name == "caldera" else None, **params)
    kept_as = to_numpy(made.from_left(to(library, np.eye(48, dtype=np.float32))))
    assert distance(C, product(A, kept_as)) < 1e-5
    assert (
        distance(kept_as, approximation(name, B, A if name == "caldera" else None, **params)) < 0.01
    )


def test_least_squares_of_a_deficient_factor():
    L = np.repeat(floats(0, 30, 3), 2, axis=1)
    B = floats(1, 30, 10)
    expected = L @ np.linalg.lstsq(L.astype(np.float64), B, rcond=1e-6)[0]
    np.testing.assert_allclose(L @ least_squares(L, B), expected, atol=1e-4)


# factorisers


@pytest.mark.parametrize("name", ["dsvd", "lplr_svd"])
def test_without_rounding_it_is_the_best_of_its_rank(name):
    B = floats(3, 40, 60)
    found = approximation(name, B, rank=7, bits_left=32, bits_right=32)
    assert distance(found, low_rank(B.astype(np.float64), 7)) < 1e-4


@pytest.mark.parametrize("params", [{}, {"sketch": "sparse"}, {"power_iterations": 1}])
def test_lplr_finds_a_matrix_of_low_rank(params):
    B = floats(4, 60, 12) @ floats(5, 12, 80)
    found = approximation("lplr", B, rank=12, bits_left=32, bits_right=32, **params)
    assert distance(found, B) < 1e-3


@pytest.mark.parametrize("name", ["lplr", "lplr_svd"])
def test_the_right_factor_makes_up_for_the_left_ones_rounding(name):
    B = steep(6, 50, 70)
    ((L, R),) = compressed(name, B, rank=9, bits_left=3, bits_right=32).factors
    assert len(np.unique(L)) <= 8
    np.testing.assert_allclose(L.T @ (B - L @ R), 0, atol=1e-4 * np.linalg.norm(B))


def test_power_iterations_help_a_flat_tail():
    B, _ = sample("power05", 200, 200, 200, 0)
    errors = [distance(approximation("lplr", B, rank=20, power_iterations=q), B) for q in (0, 1, 2)]
    assert errors[0] > 1.1 * errors[1] > 1.1 * errors[2] * 0.95


def test_scale_and_shift_are_those_of_least_squares():
    B, approx = floats(7, 30, 20), floats(8, 30, 20)
    gain, shift = lplr.fitted(B, approx)
    columns = np.stack([approx.ravel(), np.ones(600)], axis=1).astype(np.float64)
    np.testing.assert_allclose([gain, shift], np.linalg.lstsq(columns, B.ravel())[0], rtol=1e-4)
    A = floats(9, 6, 30)
    made = compressed("lplr", B, rank=4, fit=True)
    whole = made.gain * (made.factors[0][0] @ made.factors[0][1]) + made.shift
    assert distance(made.from_left(A), product(A, whole)) < 1e-5
    plain = approximation("lplr", B, rank=4)
    assert distance(approximation("lplr", B, rank=4, fit=True), B) <= distance(plain, B) + 1e-6


def test_iterations_factor_what_is_left():
    B = floats(10, 64, 64)
    made = compressed("lplr", B, iterations=2, bits_left=4, bits_right=4)
    assert len(made.factors) == 3
    assert {L.shape[1] for L, _ in made.factors} == {affordable_rank(4 / 3, 64, 64, 4, 4)}
    rest = B
    for L, R in made.factors:
        assert np.linalg.norm(rest - L @ R) < np.linalg.norm(rest)
        rest = rest - L @ R


def test_a_sparse_sketch():
    S = lplr.LPLR("lplr", sketch="sparse")._sketch(floats(0, 1, 1), 50, 12, 0)
    assert ((S != 0).sum(axis=1) == 4).all()
    assert set(np.unique(S)) == {-0.5, 0.0, 0.5}


def test_the_phantom_at_one_bit_and_the_finding_against_lplr():
    """At 4 and 8 bits LPLR wins; at 8 and 8 the direct SVD does; LPLR is faster."""
    A, B = images.make("phantom", 0)

    def error_and_seconds(name, **params):
        method = lrqmm.get_method(name, bits=1, **params)
        start = time.perf_counter()
        C = method.matmul(A, B)
        return distance(C, B), time.perf_counter() - start

    split = {name: error_and_seconds(name, bits_left=4, bits_right=8) for name in FACTORIZERS}
    even = {name: error_and_seconds(name, bits_left=8, bits_right=8) for name in FACTORIZERS}
    naive, _ = error_and_seconds("naive")
    assert split["lplr"][0] < 0.75 * split["dsvd"][0] < 0.75 * naive
    assert even["dsvd"][0] < 0.75 * even["lplr"][0]
    assert split["lplr"][1] < split["dsvd"][1]


# CALDERA


def correlated(seed, m, k):
    return floats(seed, m, 8) @ floats(seed + 1, 8, k) + 0.1 * floats(seed + 2, m, k)


def test_caldera_is_better_than_gptq_at_its_dense_bits_and_no_worse_than_one_turn():
    X, B = correlated(0, 300, 64), floats(5, 64, 48)
    exact = product(X, B)
    found = {
        turns: distance(lrqmm.matmul(X, B, "caldera", bits=4, rank=8, iterations=turns), exact)
        for turns in (1, 2, 6)
    }
    dense = caldera.CALDERA("caldera", bits=4).quantizer.quantize(B.T, calibration=X)
    rounded = distance(product(X, dense.dequantize().T), exact)
    assert found[6] <= found[2] <= found[1] < rounded


def test_caldera_at_full_rank_leaves_nothing():
    X, B = correlated(1, 200, 40), floats(6, 40, 30)
    C = lrqmm.matmul(X, B, "caldera", rank=30, bits_left=32, bits_right=32)
    assert distance(C, product(X, B)) < 1e-4


def test_calderas_factors_are_fitted_in_turns():
    X, B = correlated(2, 200, 48), floats(7, 48, 36)
    errors = [
        distance(
            lrqmm.matmul(X, B, "caldera", rank=6, bits_left=3, bits_right=3, inner_iterations=n),
            product(X, B),
        )
        for n in (0, 4)
    ]
    assert errors[1] <= errors[0]


# LRAMM and ESPACE


@pytest.mark.parametrize("shape", [(60, 50, 40), (33, 71, 25)])
def test_lramm_is_the_product_of_two_low_rank_approximations(shape):
    m, k, n = shape
    A, B = steep(0, m, k), steep(1, k, n)
    C = lrqmm.matmul(A, B, "lramm", rank=6, oversampling=20, power_iterations=2)
    best = low_rank(A.astype(np.float64), 6) @ low_rank(B.astype(np.float64), 6)
    assert distance(C, best) < 0.05
    coarse = lrqmm.matmul(A, B, "lramm", rank=6, bits=3)
    assert distance(coarse, best) > 2 * distance(C, best)
    for name in ("d0", "d1", "d2", "d3", "bits_between"):
        worse = lrqmm.matmul(A, B, "lramm", rank=6, **{name: 2})
        assert distance(worse, best) > 1.5 * distance(C, best)


def test_where_lramm_wins_and_where_it_loses():
    """At four bits and rank 16 it beats LRQMM where the spectrum falls as i^-2, and only there."""

    def ratio(name):
        A, B = sample(name, 512, 512, 512, 0)
        lramm, lrqmm_ = (
            distance(lrqmm.matmul(A, B, method, bits=4, rank=16), product(A, B))
            for method in ("lramm", "lrqmm")
        )
        return lramm / lrqmm_

    assert ratio("power2") < 0.9
    assert ratio("power1") > 1.3
    assert ratio("normal") > 4


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_espace_projects_on_the_principal_directions(share):
    A, B = correlated(3, 120, 50), floats(8, 50, 30)
    _, V = np.linalg.eigh(product(A.T, A))
    P = V[:, ::-1][:, : round(share * 50)]
    C = lrqmm.matmul(A, B, "espace", share=share)
    assert distance(C, A @ P @ (P.T @ B)) < 0.03


def test_espace_has_no_automatic_rank():
    A, B = floats(0, 40, 50), floats(1, 50, 30)
    with pytest.raises(ValueError, match="rank is 'auto'; allowed: an integer or None with a"):
        lrqmm.matmul(A, B, "espace+lrqmm", rank="auto", tolerance=0.01)


def test_espace_counts_the_smaller_product():
    whole, half = (
        lrqmm.get_method("espace", share=share).cost(64, 128, 32) for share in (1.0, 0.5)
    )
    assert half.integer_operations * 2 == whole.integer_operations == 2 * 64 * 128 * 32


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("naive", {"bits": 0}, "bits is 0; allowed: an integer 1 to 8"),
        ("dsvd", {"bits_left": 9}, "bits_left is 9; allowed"),
        ("lplr", {"rank": 0}, "rank is 0; allowed: an integer of at least 1"),
        ("lplr", {"sketch": "none"}, "sketch is 'none'; allowed"),
        ("caldera", {"bits": 2}, "bits is 2; allowed: an integer 3 to 8"),
        ("caldera", {"bits_dense": 8}, "bits_dense is 8; allowed: an integer 2 to 4"),
        ("lramm", {"d2": 1}, "d2 is 1; allowed: an integer 2 to 8"),
        ("espace", {"share": 2.0}, "share is 2.0; allowed"),
    ],
)
def test_parameters_out_of_range(name, params, message):
    with pytest.raises(ValueError, match=message):
        lrqmm.get_method(name, **params)
