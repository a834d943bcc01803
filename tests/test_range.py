"""Operands of any magnitude that is allowed: right, finite, and no error but one in words."""

import math
import warnings

import numpy as np
import pytest
from oracle import LIBRARIES, OPTIONAL, PEERS, distance, product, to, to_numpy

import lrqmm
from lrqmm.methods import preset
from lrqmm.methods.ozaki import split
from lrqmm.products import decompose
from lrqmm.products.apriori import predicted_error
from lrqmm.products.minifloat import E4M3, to_format
from lrqmm.products.rsvd import rsvd
from lrqmm.products.scaling import near_one, power_of_two
from lrqmm.products.splitfloat import ROUNDED

torch = pytest.importorskip("torch")

METHODS = [name for name in lrqmm.list_methods() if name not in ("tf32", *OPTIONAL)]
"""All but what needs CUDA, or other libraries than the suite does."""
FUSED = ("direct", "mean_fix", "lrqmm", "lrqmm_aware")
TORCH_ONLY = ("bf16", "bf16_f32", "fp8", "fp8_f32", *PEERS)
"""On no array-API library but this; peers take NumPy arrays too."""
SETTINGS = [
    *((name, {}) for name in METHODS),
    *((name, {"execution": "fused"}) for name in FUSED),
    ("lrqmm", {"bits": 4, "rank": 3, "terms": "exact", "factor_dtype": "int8"}),
    ("lrqmm_aware", {"bits": 4, "rank": "auto", "tolerance": 0.11}),
    ("lrqmm_first", {"bits": 4, "rank": "auto", "tolerance": 0.11}),
    ("direct", {"bits": 4, "zero_point": "float", "granularity": "group:5"}),
    ("direct", {"bits": 4, "zero_point": "integer", "granularity": "tensor"}),
    ("lplr", {"fit": True, "power_iterations": 1, "iterations": 1}),
    ("dsvd", {"bits_left": 16, "bits_right": 16}),
    ("sign", {"sides": "a", "bits": 8}),
    ("sigma_delta", {"sides": "b"}),
    ("beta", {"condense": 4}),
    ("multipoint", {"points": 3, "tolerance": 0.01}),
    ("mxfp4", {"scale_rule": "best"}),
    ("mxfp6", {"scale_rule": "floor"}),
    ("qera", {"moments": "diagonal", "rank": 3}),
    ("lqer", {"rank": 3, "factor_dtype": "int8"}),
    ("lbw", {"bits": 2}),
    ("octav", {"bits": 3, "granularity": "tensor"}),
    ("hadamard+octav+lrqmm", {"bits": 4}),
    ("awq+gptq+lqer", {"bits": 4}),
]
POWERS = [
    (100, -100), (-100, 100), (60, 0), (0, 60), (30, 30), (50, 50), (100, 0), (0, 100),
    (-60, 0), (0, -60), (-30, -30), (-100, 0), (0, -100), (-50, -50),
]  # fmt: skip


def library_for(name):
    return "torch" if name in TORCH_ONLY else "numpy"


def multiply(name, A, B, library=None, **params):
    library = library_for(name) if library is None else library
    method = lrqmm.get_method(name, **params)
    return to_numpy(method.matmul(to(library, A), to(library, B)))


def floats(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def skewed():
    return floats(0, 18, 24) + np.float32(0.3), floats(1, 24, 20) * np.linspace(1, 9, 20, dtype="f")


@pytest.mark.parametrize(("name", "params"), SETTINGS, ids=str)
def test_powers_of_two_go_through_a_method_bit_for_bit(name, params):
    A, B = skewed()
    expected = multiply(name, A, B, **params)
    for s, t in POWERS:
        found = multiply(name, np.ldexp(A, s), np.ldexp(B, t), **params)
        np.testing.assert_array_equal(found, np.ldexp(expected, s + t), err_msg=f"2^{s}, 2^{t}")


@pytest.mark.parametrize("library", LIBRARIES[1:])
@pytest.mark.parametrize("name", [name for name in METHODS if name not in TORCH_ONLY])
def test_and_on_every_library(name, library):
    A, B = skewed()
    expected = multiply(name, A, B, library)
    for s, t in ((100, -90), (0, 70), (-80, 0)):
        found = multiply(name, np.ldexp(A, s), np.ldexp(B, t), library)
        # torch's own kernels may round an SVD or a sum of another magnitude otherwise
        assert distance(np.ldexp(found, -s - t), expected) < 1e-6, (s, t)


def test_the_predicted_error_does_not_depend_on_the_size():
    A, B = skewed()
    for how in ({}, {"mean_removed": True}):
        expected = predicted_error(A, B, bits=4, **how)
        assert expected > 0.01
        for s, t in POWERS:
            assert predicted_error(np.ldexp(A, s), np.ldexp(B, t), bits=4, **how) == expected


def test_the_predicted_error_where_the_product_is_zero():
    A, B = np.ones((4, 8), np.float32), np.tile(np.float32([[1], [-1]]), (4, 3))
    assert predicted_error(A, 0 * B, bits=4) == 0
    assert predicted_error(A, B, bits=4) == 0  # its codes are exact
    assert predicted_error(A * np.float32(0.3), B, bits=4) == 0
    uneven = np.float32([[1, 0.3, 0.3]])
    assert predicted_error(uneven, np.float32([[0], [1], [-1]]), bits=4) == 0  # errors cancel too
    assert predicted_error(uneven, np.float32([[0.3], [-1], [0]]), bits=4) == np.inf


# matrices that are special


def alternating(rows, columns):
    return np.where(np.indices((rows, columns)).sum(axis=0) % 2, 2.0**100, 2.0**-100).astype("f")


def one_only(rows, columns):
    X = np.zeros((rows, columns), np.float32)
    X[rows // 2, columns // 3] = 3
    return X


SPECIAL = {
    "zeros": lambda m, k, n: (np.zeros((m, k), np.float32), np.zeros((k, n), np.float32)),
    "zeros and ones": lambda m, k, n: (np.zeros((m, k), np.float32), np.ones((k, n), np.float32)),
    "ones and zeros": lambda m, k, n: (np.ones((m, k), np.float32), np.zeros((k, n), np.float32)),
    "minus zeros": lambda m, k, n: (-np.zeros((m, k), np.float32), -np.zeros((k, n), np.float32)),
    "ones": lambda m, k, n: (np.ones((m, k), np.float32), np.ones((k, n), np.float32)),
    "constant": lambda m, k, n: (
        np.full((m, k), 2.0**90, np.float32), np.full((k, n), -3 * 2.0**-90, np.float32)
    ),
    "one element": lambda m, k, n: (one_only(m, k), one_only(k, n)),
    "one element and any": lambda m, k, n: (one_only(m, k), floats(0, k, n)),
    "equal rows": lambda m, k, n: (
        np.tile(floats(0, 1, k), (m, 1)), np.tile(floats(1, k, 1), (1, n))
    ),
    "alternating": lambda m, k, n: (alternating(m, k), floats(0, k, n)),
    "and alternating": lambda m, k, n: (floats(0, m, k), alternating(k, n)),
    "rows of two sizes": lambda m, k, n: (
        floats(0, m, k) * np.where(np.arange(m) % 2, 2.0**60, 2.0**-60).astype("f")[:, None],
        floats(1, k, n) * np.where(np.arange(n) % 2, 2.0**60, 2.0**-60).astype("f"),
    ),
    "columns of two sizes": lambda m, k, n: (
        floats(0, m, k) * np.where(np.arange(k) % 2, 2.0**100, 2.0**-100).astype("f"),
        floats(1, k, n) * np.where(np.arange(k) % 2, 2.0**-100, 1).astype("f")[:, None],
    ),
    "subnormal": lambda m, k, n: (
        np.ldexp(floats(0, m, k), -140).astype("f"), np.ldexp(floats(1, k, n), -135).astype("f")
    ),
    "subnormal and any": lambda m, k, n: (
        np.ldexp(floats(0, m, k), -140).astype("f"), floats(1, k, n)
    ),
}  # fmt: skip
SHAPES = [(12, 16, 10), (1, 16, 10), (12, 1, 10), (12, 16, 1), (1, 1, 1)]


@pytest.mark.parametrize("case", SPECIAL)
@pytest.mark.parametrize("name", METHODS)
def test_special_matrices_are_multiplied_or_refused_in_words(name, case):
    for shape in SHAPES:
        A, B = SPECIAL[case](*shape)
        with warnings.catch_warnings(action="error", category=RuntimeWarning):
            try:
                C = multiply(name, A, B)
            except ValueError as refusal:
                assert not isinstance(refusal, np.linalg.LinAlgError)  # noqa: PT017
                assert "subnormal" in case
                assert "allowed" in str(refusal)  # noqa: PT017
                continue
        assert C.shape == (shape[0], shape[2])
        assert np.isfinite(C).all(), shape
        if "zeros" in case:
            assert not C.any(), shape


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("name", METHODS)
def test_without_the_check_what_is_not_finite_raises_nothing(name, wrong):
    left, right = skewed()
    library = library_for(name)
    for spoil in ("A", "B"):
        A, B = left.copy(), right.copy()
        (A if spoil == "A" else B)[3, 5] = wrong
        method = lrqmm.get_method(name)
        with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
            C = method.matmul(to(library, A), to(library, B), check_finite=False)
        assert tuple(C.shape) == (18, 20)


@pytest.mark.parametrize("library", LIBRARIES)
def test_decompositions_of_what_is_not_finite(library):
    X = floats(0, 6, 4)
    X[2, 1] = np.nan
    X = to(library, X)
    for found in (*rsvd(X, 2), *decompose.svd(X), decompose.pinv(X), *decompose.eigh(X.T @ X)):
        assert to_numpy(found).dtype == np.float32


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("power", [-110, 0, 110])
def test_decompositions_of_any_magnitude(library, power):
    X = floats(0, 8, 5)
    large = to(library, np.ldexp(X, power))
    U, s, Vt = map(to_numpy, decompose.svd(large))
    assert distance(np.ldexp((U * s) @ Vt, -power), X) < 1e-6
    np.testing.assert_allclose(to_numpy(decompose.singular_values(large)), s, rtol=1e-6)
    Q = to_numpy(decompose.basis(large))
    assert distance(Q @ (Q.T @ X), X) < 1e-6
    assert distance(np.ldexp(to_numpy(decompose.pinv(large)), power), np.linalg.pinv(X)) < 1e-5


# exponents


EDGES = np.concatenate([
    np.nextafter(powers, np.float32(side)) if side else powers
    for powers in [np.ldexp(np.float32(1), np.arange(-100, 101))]
    for side in (-1, 0, np.inf)
])  # fmt: skip
"""One step below, at and one step above every power of two."""
FLOOR = np.array([math.frexp(float(x))[1] - 1 for x in EDGES])


@pytest.fixture(params=LIBRARIES)
def library(request):
    return request.param


def test_the_power_of_two_is_that_of_the_exponents_bits(library):
    np.testing.assert_array_equal(to_numpy(power_of_two(to(library, EDGES))), np.ldexp(1.0, FLOOR))
    tiny = np.float32([0, 2.0**-149, 3 * 2.0**-149, 2.0**-126, np.finfo("f").max])
    assert to_numpy(power_of_two(to(library, tiny))).tolist() == [
        0, 2.0**-149, 2.0**-148, 2.0**-126, 2.0**127
    ]  # fmt: skip
    near, power = near_one(to(library, EDGES[:, None]), 1)
    assert to_numpy(near).min() == 1
    assert to_numpy(near).max() < 2
    np.testing.assert_array_equal(to_numpy(near * power), EDGES[:, None])


@pytest.mark.parametrize(("name", "exponent"), [("mxfp4", 2), ("mxfp6", 2), ("mxfp8", 8)])
def test_block_scales_are_those_of_the_standard(library, name, exponent):
    """The first is 7.9999995, whose scale is 1 at four bits."""
    X = to(library, EDGES[:, None] * np.linspace(1, 0.1, 32, dtype="f"))
    part = preset(name).quantizer
    floor = to_numpy(part(scale_rule="floor").quantize(X).scale)[:, 0]
    np.testing.assert_array_equal(floor, np.ldexp(np.float32(1), FLOOR - exponent))
    ceil = to_numpy(part(scale_rule="ceil").quantize(X).scale)[:, 0]
    most = part.FORMAT.most
    assert (most * ceil.astype(np.float64) >= EDGES).all()
    assert (most * ceil.astype(np.float64) / 2 < EDGES).all()
    saturated = (
        preset("mxfp4")
        .quantizer(scale_rule="floor")
        .quantize(to(library, np.float32([[7.9999995] * 32])))
    )
    assert float(saturated.scale[0, 0]) == 1


@pytest.mark.parametrize("precision", ["bfloat16", "float8"])
def test_rounding_to_a_format_at_every_power_of_two(library, precision):
    if precision == "bfloat16":
        kind, dtype, x = ROUNDED["bfloat16"], torch.bfloat16, EDGES
    else:
        kind, dtype, x = E4M3, torch.float8_e4m3fn, EDGES[(FLOOR > -20) & (EDGES < 448)]
    found = to_numpy(to_format(importlib_namespace(library), to(library, x), kind))
    np.testing.assert_array_equal(found, torch.from_numpy(x).to(dtype).float().numpy())


def importlib_namespace(library):
    import array_api_compat

    return array_api_compat.array_namespace(to(library, EDGES))


def test_ozakis_first_slice_holds_the_largest_element(library):
    slices, power = split(to(library, EDGES[:, None]), 3)
    exact = np.ldexp(1.0, FLOOR + (np.ldexp(1.0, FLOOR) < EDGES))[:, None]
    np.testing.assert_array_equal(to_numpy(power), exact)
    rebuilt = (
        sum(to_numpy(x).astype(float) * 2.0 ** (1 - 7 * i) for i, x in enumerate(slices, 1)) * exact
    )
    assert distance(rebuilt, EDGES[:, None]) < 2.0**-20


def test_lbws_scale_is_the_best_power_of_two(library):
    """Of a single number x, rounded to the nearest power of two."""
    found = preset("lbw").quantizer(bits=4).quantize(to(library, EDGES[:, None])).dequantize()
    ratio = to_numpy(found)[:, 0] / EDGES.astype(np.float64)
    assert (np.abs(ratio - 1) < 1e-6).all()
    ternary = preset("lbw").quantizer(bits=2).quantize(to(library, EDGES[:, None]))
    expected = [math.frexp(float(4 * x / 3))[1] - 1 for x in EDGES.astype(np.float64)]
    np.testing.assert_array_equal(to_numpy(ternary.scale)[:, 0], np.ldexp(np.float32(1), expected))


def test_nvfp4_keeps_the_largest_of_every_block(library):
    X = to(library, EDGES[:, None] * np.linspace(1, 0.1, 16, dtype="f"))
    for row, x in zip(range(len(EDGES)), EDGES, strict=True):
        found = preset("nvfp4").quantizer().quantize(X[row : row + 1, :]).dequantize()
        assert abs(float(found[0, 0]) / float(x) - 1) < 0.07


@pytest.mark.parametrize("power", [119, -119])
@pytest.mark.parametrize("name", METHODS)
def test_what_meets_at_the_ends_of_the_range(name, power):
    if name == "affine":  # 255 levels, and one scale a vector: a normal float32 from 2^-118 up
        power = int(np.sign(power)) * 118
    A = np.full((1, 8), 2.0**power, np.float32)
    B = np.full((8, 1), 2.0**-power, np.float32)
    expected = multiply(name, A / A, B / B)
    assert 4 <= expected[0, 0] <= 8.1
    # residuals, and scales of 2^-119 over the largest float8, are subnormal and lose bits
    bound = 1e-4 if name in ("e4m3", "e5m2", "nvfp4", "lopro") else 1e-6
    np.testing.assert_allclose(multiply(name, A, B), expected, rtol=bound)
    if name in ("direct", "lrqmm", "lrqmm_aware", "two_slice", "ozaki", "sgemm", "fp8"):
        np.testing.assert_allclose(expected, 8, rtol=1e-6)


# sums


@pytest.mark.parametrize("name", METHODS)
def test_long_sums_of_the_largest_elements_are_finite(name):
    """2^120 three hundred times over: its sum is beyond float32, the product is not."""
    k = 300
    A = np.full((3, k), 2.0**120, np.float32)
    B = (floats(2, k, 4) * 2.0**-100).astype(np.float32)
    A[1] *= np.sign(floats(3, k))
    for left, right in ((A, B), (B.T, A.T)):
        C = multiply(name, left, right)
        assert np.isfinite(C).all()
        if name not in ("sign", "sigma_delta", "beta", "lbw", "twn", "binary_mean"):
            assert distance(C, product(left, right)) < 1
