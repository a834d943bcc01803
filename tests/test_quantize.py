"""Quantisation against a slow reference, element by element, and the exact product of codes."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracle import LIBRARIES, distance, nearest, shared_scale, to, to_numpy, truncate

from lrqmm.methods.midpoint import Midpoint
from lrqmm.products.quantize import SMALLEST_SCALE, Uniform
from lrqmm.products.quantized import product

TINY = 2.0**-149  # the smallest float32: subnormal scales are known up to it
ZERO_POINTS = (None, "integer", "float")
ROUNDINGS = {"nearest": nearest, "truncate": truncate}
GRANULARITIES = ("vector", "tensor", "group:1", "group:3", "group:5", "group:64")
derandomized = settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)


def allowed(position, rounding, slack):
    """Levels to which a position, known up to `slack`, may be rounded."""
    return {rounding(position - slack), rounding(position), rounding(position + slack)}


def check_element(x, code, approx, low, high, scale, offset, bits, rounding, zero_point):
    """One element: its code is the one that the definition asks for, and X̃ = s q + o."""
    range_, magnitude = high - low, max(abs(low), abs(high))
    slack = 0
    if range_ and scale:  # float32 subtraction loses digits of the range, subnormals of the scale
        slack = 2**bits * (1e-6 + 5e-7 * magnitude / range_ + 2 * TINY / scale)
    extreme = abs(x) == magnitude if zero_point is None else x in (low, high)
    rounded = nearest if extreme else ROUNDINGS[rounding]
    if scale == 0:  # a constant vector, or one too small to have a scale
        expected = {code}
    elif zero_point is None:
        expected = allowed(x / scale, rounded, slack)
    elif zero_point == "float":
        bottom = -(2 ** (bits - 1))
        expected = {q + bottom for q in allowed((x - low) / scale, rounded, slack)}
    else:
        bottom = -(2 ** (bits - 1))
        zero = round(-offset / scale)
        assert zero - bottom in allowed(-min(low, 0) / scale, nearest, slack)
        expected = {q + zero for q in allowed(x / scale, rounded, slack)}
    top = 2 ** (bits - 1) - 1
    bottom = -top if zero_point is None else -top - 1
    assert code in {min(max(q, bottom), top) for q in expected}
    assert abs(approx - (scale * code + offset)) <= 1e-6 * magnitude + TINY
    width = scale / 2 if rounding == "nearest" else scale
    lost = 2**bits * (TINY if scale else SMALLEST_SCALE)
    assert abs(x - approx) <= width * (1 + 1e-4) + 1e-6 * magnitude + lost


def check(X, quantized, bits, rounding, granularity, zero_point):
    """Every shared scale and every element of a quantised matrix."""
    levels = 2 ** (bits - 1) - 1 if zero_point is None else 2**bits - 1
    groups = shared_scale(X.shape, granularity)
    scales = to_numpy(quantized.scale).astype(np.float64).ravel()
    offsets = np.zeros(scales.shape)
    if zero_point is not None:
        offsets = to_numpy(quantized.offset).astype(np.float64).ravel()
    codes, approx = to_numpy(quantized.codes), to_numpy(quantized.dequantize())
    assert codes.dtype == np.int8
    assert approx.dtype == np.float32
    assert len(groups) == len(scales)
    for group, scale, offset in zip(groups, scales, offsets, strict=True):
        x = X[group].astype(np.float64).ravel()
        low, high = x.min(), x.max()
        if zero_point == "integer":
            low_, high_ = min(low, 0), max(high, 0)
        elif zero_point is None:
            low_, high_ = 0, abs(x).max()
        else:
            low_, high_ = low, high
        expected = (high_ - low_) / levels
        if expected < SMALLEST_SCALE - 2 * TINY:
            assert scale == 0
        elif expected > SMALLEST_SCALE + 2 * TINY:
            loss = 2.5e-7 * max(abs(low), abs(high)) / levels + 2 * TINY
            np.testing.assert_allclose(scale, expected, rtol=1e-6, atol=loss)
        for element in zip(x, codes[group].ravel(), approx[group].ravel(), strict=True):
            about = (low, high, scale, offset, bits, rounding, zero_point)
            check_element(*map(float, element), *about)


matrices = arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 12)),
    elements=st.one_of(
        st.floats(-100, 100, width=32),
        st.floats(-(2.0**100), 2.0**100, width=32),
        st.integers(-8, 8).map(float),
        st.just(0.0),
    ),
)
uniforms = st.fixed_dictionaries(
    {
        "bits": st.integers(2, 8),
        "rounding": st.sampled_from(sorted(ROUNDINGS)),
        "granularity": st.sampled_from(GRANULARITIES),
        "zero_point": st.sampled_from(ZERO_POINTS),
    }
)


@given(X=matrices, how=uniforms)
@settings(derandomized, max_examples=500)
def test_uniform_is_what_its_definition_says(X, how):
    check(X, Uniform(**how).quantize(X), **how)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_uniform_on_every_library(library, zero_point, rounding, granularity):
    X = np.random.default_rng(0).standard_normal((5, 17), np.float32) + np.float32(0.3)
    X[1], X[2], X[3] = 0, 7, np.where(np.arange(17) % 2, -X[3], np.abs(X[3]))
    for bits in (2, 3, 5, 8):
        how = dict(bits=bits, rounding=rounding, granularity=granularity, zero_point=zero_point)
        check(X, Uniform(**how).quantize(to(library, X)), **how)


@given(X=matrices, bits=st.integers(2, 8), granularity=st.sampled_from(GRANULARITIES))
@derandomized
def test_midpoint_is_what_its_definition_says(X, bits, granularity):
    quantized = Midpoint(bits=bits, granularity=granularity).quantize(X)
    assert quantized.codes.dtype == (np.int16 if bits == 8 else np.int8)
    top = 2 ** (bits - 1) - 1
    scales = 2 * quantized.scale.astype(np.float64).ravel()
    approx = quantized.dequantize().astype(np.float64)
    groups = shared_scale(X.shape, granularity)
    for group, scale in zip(groups, scales, strict=True):
        x = X[group].astype(np.float64).ravel()
        largest = abs(x).max()
        if largest / top < SMALLEST_SCALE - 2 * TINY:
            assert scale == 0
            continue
        if scale == 0:
            assert largest / top < SMALLEST_SCALE + 2 * TINY
            continue
        np.testing.assert_allclose(scale, largest / top, rtol=1e-6, atol=2 * TINY)
        loss = 1e-6 * largest + 2**bits * 2 * TINY
        for value, found in zip(x, approx[group].ravel(), strict=True):
            rounded = nearest if abs(value) == largest else truncate
            levels = allowed(abs(value) / scale, rounded, 2**bits * (1e-6 + 2 * TINY / scale))
            expected = [(-1 if value < 0 else 1) * scale * (t + 0.5) for t in levels]
            assert min(abs(found - e) for e in expected) <= loss
            assert abs(found - value) <= scale / 2 * (1 + 1e-4) + loss


def test_midpoint_has_sixteen_levels_at_four_bits():
    X = np.linspace(-1, 1, 1001, dtype=np.float32)[None]
    quantized = Midpoint(bits=4).quantize(X)
    np.testing.assert_array_equal(np.unique(quantized.codes), np.arange(-15, 16, 2))
    assert len(np.unique(quantized.dequantize())) == 16


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("bits", range(2, 9))
def test_extremes_keep_their_level_under_truncation(library, bits):
    X = np.random.default_rng(bits).random((200, 33), np.float32) - np.float32(0.4)
    largest = abs(X).argmax(axis=1)[:, None]
    top = 2 ** (bits - 1) - 1
    # the trap: in float32 many a maximum divided by its scale falls below the top level
    scale = abs(X).max(axis=1, keepdims=True) / np.float32(top)
    assert bits < 4 or (np.abs(X) / scale < top).all(axis=1).any()

    def codes(quantizer):
        return to_numpy(quantizer.quantize(to(library, X)).codes).astype(int)

    found = codes(Uniform(bits=bits, rounding="truncate"))
    sign = np.sign(np.take_along_axis(X, largest, 1)).astype(int)
    np.testing.assert_array_equal(np.take_along_axis(found, largest, 1), sign * top)
    found = codes(Uniform(bits=bits, rounding="truncate", zero_point="float"))
    np.testing.assert_array_equal(np.take_along_axis(found, X.argmax(1)[:, None], 1), top)
    np.testing.assert_array_equal(np.take_along_axis(found, X.argmin(1)[:, None], 1), -top - 1)
    found = codes(Midpoint(bits=bits))
    np.testing.assert_array_equal(np.take_along_axis(found, largest, 1), sign * (2 * top + 1))


@pytest.mark.parametrize("quantizer", [Uniform, Midpoint])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_zeros_stay_zeros(quantizer, granularity):
    X = np.zeros((3, 7), np.float32)
    quantizers = [quantizer(granularity=granularity)]
    if quantizer is Uniform:
        quantizers += [Uniform(zero_point=z, granularity=granularity) for z in ZERO_POINTS[1:]]
    for q in quantizers:
        np.testing.assert_array_equal(q.quantize(X).dequantize(), X)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("value", [1.0, -0.3, 1e30, -1e-30, 2.0**-149, 1e38])
def test_constant_rows(rounding, value):
    X = np.full((2, 5), value, np.float32)
    with np.errstate(all="raise", under="ignore"):
        for zero_point in ZERO_POINTS:
            how = dict(bits=4, rounding=rounding, zero_point=zero_point)
            found = Uniform(**how).quantize(X).dequantize()
            if abs(value) > 1e-35 or zero_point == "float":
                np.testing.assert_allclose(found, X, rtol=1e-6)
            else:
                np.testing.assert_array_equal(found, 0)


def test_integer_zero_point_keeps_exact_zeros():
    X = np.random.default_rng(0).random((20, 30), np.float32) * 3 - 1
    X[:, ::4] = 0
    for bits in range(2, 9):
        approx = Uniform(bits=bits, zero_point="integer").quantize(X).dequantize()
        np.testing.assert_array_equal(approx[:, ::4], 0)


def test_no_normal_scale_is_dropped():
    assert 0 < SMALLEST_SCALE <= 2.0**-126


@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("size", [1e38, 1e-30, 2.0**-120, 2.0**-130, 2.0**-149])
def test_subnormal_and_huge_values(zero_point, rounding, size):
    rng = np.random.default_rng(0)
    X = (rng.uniform(-1, 1, (5, 40)) * size).astype(np.float32)
    X[0, :2] = size, -size
    how = dict(bits=4, rounding=rounding, granularity="vector", zero_point=zero_point)
    with np.errstate(all="raise", under="ignore"):
        check(X, Uniform(**how).quantize(X), **how)


def test_a_group_longer_than_the_row_is_the_row():
    X = np.random.default_rng(0).random((4, 6), np.float32)
    whole = Uniform(granularity="vector").quantize(X)
    found = Uniform(granularity="group:1000000000000").quantize(X)
    np.testing.assert_array_equal(found.codes, whole.codes)
    np.testing.assert_array_equal(found.scale, whole.scale)


QUANTIZERS = [
    *(Uniform(bits=b, zero_point=z) for b in (2, 4, 8) for z in ZERO_POINTS),
    *(Midpoint(bits=b) for b in (2, 4, 8)),
]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("granularity", ["vector", "tensor", "group:16", "group:7"])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_product_is_that_of_the_dequantized_operands(library, granularity, rounding):
    rng = np.random.default_rng(5)
    A = rng.standard_normal((13, 50), np.float32) + np.float32(0.5)
    Bt = rng.random((9, 50), np.float32) - np.float32(0.2)
    A[3], Bt[4] = 0, 0.25

    def quantized(X):
        for q in QUANTIZERS:
            how = {"rounding": rounding} if isinstance(q, Uniform) else {}
            yield q, type(q)(**{**vars(q), **how, "granularity": granularity}).quantize(X)

    def exact(q):
        scale, offset = (
            np.zeros((1, 1)) if x is None else to_numpy(x).astype(np.float64)
            for x in (q.scale, q.offset)
        )
        if scale.shape[1] > 1:
            scale = np.repeat(scale, q.group, axis=1)[:, :50]
            offset = np.repeat(offset, q.group, axis=1)[:, :50] if q.offset is not None else offset
        return scale * to_numpy(q.codes) + offset

    rights = list(quantized(to(library, Bt)))
    for a, left in quantized(to(library, A)):
        for b, right in rights:
            found = product(left, right)
            assert to_numpy(found).dtype == np.float32
            assert distance(found, exact(left) @ exact(right).T) < 1e-5, (a, b)


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"bits": 1}, ValueError, r"bits is 1; allowed: an integer 2 to 8"),
        ({"bits": 9}, ValueError, r"bits is 9; allowed: an integer 2 to 8"),
        ({"bits": 4.0}, TypeError, r"bits is 4.0; allowed: an integer 2 to 8"),
        ({"bits_a": 1}, ValueError, r"bits_a is 1; allowed: an integer 2 to 8"),
        ({"zero_point_a": "int"}, ValueError, r"zero_point_a is 'int'.*; allowed: 'same', None"),
        ({"granularity": "row"}, ValueError, r"granularity is 'row'; allowed: 'vector', 'tensor'"),
        (
            {"granularity": "group:0"},
            ValueError,
            r"granularity is 'group:0'; allowed: .*at least 1",
        ),
        ({"granularity": "group:-4"}, ValueError, r"granularity is 'group:-4'"),
        ({"granularity": "group"}, ValueError, r"granularity is 'group'"),
        ({"granularity": 64}, ValueError, r"granularity is 64"),
        ({"rounding": "up"}, ValueError, r"rounding is 'up'; allowed: 'nearest', 'truncate'"),
        (
            {"zero_point": "int"},
            ValueError,
            r"zero_point is 'int'.*; allowed: None, 'integer', 'fl",
        ),
    ],
)
def test_parameters_are_checked(how, error, message):
    with pytest.raises(error, match=message):
        Uniform(**how)


@settings(max_examples=200, deadline=None)
@given(
    X=matrices,
    bits=st.integers(2, 8),
    kind=st.sampled_from(["signed", "even"]),
    rounding=st.sampled_from(sorted(ROUNDINGS)),
    granularity=st.sampled_from(GRANULARITIES),
)
def test_all_levels_without_a_zero_point(X, bits, kind, rounding, granularity):
    quantizer = Uniform(bits=bits, levels=kind, rounding=rounding, granularity=granularity)
    quantized = quantizer.quantize(X)
    codes, scales = to_numpy(quantized.codes), to_numpy(quantized.scale).ravel()
    half = 2 ** (bits - 1)
    for group, scale in zip(shared_scale(X.shape, granularity), scales, strict=True):
        x, q = X[group].ravel().astype(np.float64), codes[group].ravel()
        largest = np.abs(x).max()
        expected = largest / (half if kind == "signed" else half - 0.5)
        if expected < SMALLEST_SCALE * (1 - 1e-6):
            assert scale == 0
            assert not q.any()
            continue
        if expected < SMALLEST_SCALE * (1 + 1e-6):
            continue
        np.testing.assert_allclose(abs(scale), expected, rtol=1e-6)
        assert (scale < 0) == (kind == "signed" and -largest not in x)
        v = x / float(scale)
        for value, code, magnitude in zip(v, q, np.abs(x), strict=True):
            rounded = nearest if magnitude == largest else ROUNDINGS[rounding]
            slack = 1e-6 * half
            assert code in {min(max(c, -half), half - 1) for c in allowed(value, rounded, slack)}
        if kind == "signed":  # the extreme element is kept
            assert q[np.abs(x).argmax()] in (-half, half - 1)
            assert q.min() == -half


def test_levels_and_zero_points_exclude_each_other():
    with pytest.raises(ValueError, match=r"levels is 'signed'; allowed: 'odd' where both"):
        Uniform(levels="signed", zero_point="integer")
    with pytest.raises(ValueError, match=r"levels is 'even'.*zero points"):
        Uniform(levels="even", zero_point="float")
    mixed = Uniform(levels="signed", zero_point_a="integer")
    assert mixed.left == Uniform(zero_point="integer")
    with pytest.raises(ValueError, match="levels is 'sined'"):
        Uniform(levels="sined")


def test_signed_levels_as_gguf_has_them():
    """Q4_0 of the gguf package: the same codes in blocks of 32, but for its scale in float16."""
    from gguf.quants import Q4_0

    X = np.random.default_rng(3).standard_normal((8, 96)).astype(np.float32)
    theirs = Q4_0.dequantize(Q4_0.quantize(X))
    ours = Uniform(bits=4, levels="signed", granularity="group:32").quantize(X)
    apart = np.abs(ours.dequantize() - theirs)
    step = np.repeat(np.abs(ours.scale), 32, axis=1)
    assert (apart <= 0.01 * step).mean() > 0.99  # ties, which theirs rounds up
    assert (apart <= 1.01 * step).all()
