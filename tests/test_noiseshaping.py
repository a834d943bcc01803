"""Noise shaping along the inner dimension, against the recursion element by element."""

import numpy as np
import pytest
from oracle import LIBRARIES, distance, product, to, to_numpy

import lrqmm
from lrqmm.bench.sources import features, precoding
from lrqmm.methods import preset

NAMES = ("sign", "sigma_delta", "beta")


def floats(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def slow_codes(X, bits, feedback, block):
    """The recursion in float64, one element after another."""
    top = 2**bits - 1
    room = min(top, 2**bits - feedback)
    levels = np.arange(-top, top + 1, 2)
    codes = np.zeros(X.shape)
    for row, x in zip(codes, X.astype(np.float64), strict=True):
        scale, u = np.abs(x).max() / room, 0.0
        for i, z in enumerate(x / scale):
            if block > 1 and feedback > 1 and i % block == 0:
                u = 0.0
            v = z + feedback * u
            row[i] = levels[np.abs(levels - v).argmin()]
            u = v - row[i]
            assert abs(u) <= 1 + 1e-9
    return codes


@pytest.fixture(params=LIBRARIES)
def library(request):
    return request.param


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("name", NAMES)
def test_codes_are_those_of_the_recursion(library, name, bits):
    X = floats(bits, 4, 37)
    method = preset(name).build(bits=bits, **({"condense": 8} if name == "beta" else {}))
    codes, scale = method.quantize(to(library, X))
    expected = slow_codes(X, bits, method.feedback, method.block)
    same = to_numpy(codes) == expected
    assert same.mean() > 0.98  # float32 may fall to the other side of a tie, and then stay apart
    assert set(np.unique(to_numpy(codes))) <= set(range(-(2**bits) + 1, 2**bits, 2))
    assert to_numpy(scale).shape == (4, 1)


def test_the_error_of_any_sum_of_neighbours_is_that_of_its_ends():
    X = floats(0, 3, 200)
    codes, scale = preset("sigma_delta").build(bits=1).quantize(X)
    lost = np.cumsum(X - scale * codes, axis=1)
    assert (np.abs(lost) <= scale * (1 + 1e-3)).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sides", ["ab", "a", "b"])
@pytest.mark.parametrize("granularity", ["vector", "tensor"])
def test_products_are_those_of_what_the_codes_stand_for(name, sides, granularity):
    A, B = floats(1, 9, 50), floats(2, 50, 7)
    method = preset(name).build(bits=2, sides=sides, granularity=granularity, gain="unit")

    def stands_for(X, side):
        if side not in sides:
            return X
        codes, scale = method.quantize(X)
        return codes * scale

    expected = product(stands_for(A, "a"), stands_for(B.T, "b").T)
    assert distance(method.matmul(A, method.prepare(B)), expected) < 1e-5


@pytest.mark.parametrize(("name", "bits"), [("sigma_delta", 1), ("sigma_delta", 6), ("beta", 2)])
@pytest.mark.parametrize("k", [48, 53])
def test_condensed_products(name, bits, k):
    A, B = floats(3, 6, k), floats(4, k, 5)
    method = preset(name).build(bits=bits, condense=8, gain="unit")
    (x, s), (y, t) = method.quantize(A), method.quantize(B.T)
    beta = method.feedback
    expected = 0
    for start in range(0, k, 8):
        v = beta ** -np.arange(1.0, min(8, k - start) + 1)
        a, b = x[:, start : start + 8] @ v, y[:, start : start + 8] @ v
        expected = expected + np.outer(a, b) * len(v) / (v @ v)
    found = method.matmul(A, method.prepare(B))
    assert distance(found, s * expected * t.T) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_the_fitted_gain_is_near_the_best(name):
    A, B = floats(5, 60, 80), floats(6, 80, 40)
    unit = lrqmm.matmul(A, B, name, bits=2, gain="unit").astype(np.float64)
    found = lrqmm.matmul(A, B, name, bits=2, gain="fitted").astype(np.float64)
    exact = product(A, B)
    best = (unit * exact).sum() / (unit**2).sum()
    gain = (found * unit).sum() / (unit**2).sum()
    np.testing.assert_allclose(found, gain * unit, atol=1e-4)
    assert gain == pytest.approx(best, rel=0.15)
    assert distance(found, exact) < 1.05 * distance(best * unit, exact)


@pytest.mark.parametrize("seed", range(5))
def test_sigma_delta_wins_where_antennas_are_near_and_loses_where_not(seed):
    errors = {}
    for case in ("eighth", "half"):
        A, B = precoding.make(case, seed)
        errors[case] = [
            distance(lrqmm.matmul(A, B, name, bits=1, sides="b"), product(A, B))
            for name in ("sign", "sigma_delta")
        ]
    assert errors["eighth"][0] > 3 * errors["eighth"][1]
    assert errors["half"][0] < errors["half"][1]


def test_the_sign_with_the_right_gain_beats_sigma_delta_on_random_features():
    A, B = features.make("4096", 0)

    def error(name, **params):
        C = lrqmm.matmul(A, B, name, bits=1, **params)
        return features.score("4096", 0, C)["gram_error"]

    right = error("sign", gain="fitted")
    assert right < 0.1 * error("sign", gain="unit")
    assert right < 0.5 * error("sigma_delta", condense=8, gain="fitted")
    assert right < 0.5 * error("sigma_delta", condense=8, gain="unit")


def test_the_right_gain_of_the_sign_is_pi_squared_over_sixteen():
    A, B = features.make("4096", 1)
    unit, fitted = (
        lrqmm.matmul(A, B, "sign", bits=1, gain=gain, granularity="tensor")
        for gain in ("unit", "fitted")
    )
    assert fitted[0, 1] / unit[0, 1] == pytest.approx(np.pi**2 / 16, rel=0.04)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("sign", {"bits": 9}, "bits is 9; allowed: an integer 1 to 8"),
        ("sigma_delta", {"condense": 0}, "condense is 0"),
        ("beta", {"beta": 2.5}, "beta is 2.5"),
        ("sign", {"gain": "naive"}, "gain is 'naive'; allowed"),
        ("sign", {"granularity": "group:8"}, "granularity is 'group:8'"),
    ],
)
def test_parameters_out_of_range(name, params, message):
    with pytest.raises(ValueError, match=message):
        lrqmm.get_method(name, **params)
