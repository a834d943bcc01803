"""Packing: what goes in comes out, and every byte is where the format says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from oracle import LIBRARIES, to, to_numpy

from lrqmm.packing import pack_int4, unpack_int4

EVERY = np.arange(-8, 8, dtype=np.int8)


@pytest.fixture(params=LIBRARIES)
def library(request):
    return request.param


def random_codes(*shape):
    return np.random.default_rng(shape).integers(-8, 8, shape).astype(np.int8)


def slow_pack(codes):
    """Bytes of a vector, one at a time."""
    padded = [int(c) % 16 for c in codes] + [0] * (len(codes) % 2)
    pairs = zip(padded[::2], padded[1::2], strict=True)
    return np.array([low + 16 * high for low, high in pairs], np.uint8)


def test_low_nibble_first(library):
    codes = to(library, np.array([1, 2, -1, -8, 7], np.int8))
    np.testing.assert_array_equal(to_numpy(pack_int4(codes)), [0x21, 0x8F, 0x07])


def test_every_pair_of_values(library):
    codes = np.stack(np.meshgrid(EVERY, EVERY), axis=-1)
    packed = pack_int4(to(library, codes))
    assert len(np.unique(to_numpy(packed))) == 256
    np.testing.assert_array_equal(to_numpy(unpack_int4(packed, 2)), codes)


@pytest.mark.parametrize(
    "shape",
    [(0,), (1,), (2,), (5,), (0, 3), (3, 0), (4, 1), (3, 7), (2, 3, 9), (2, 0, 4), (33, 64)],
)
def test_round_trip(library, shape):
    codes = random_codes(*shape)
    packed = pack_int4(to(library, codes))
    assert tuple(packed.shape) == (*shape[:-1], (shape[-1] + 1) // 2)
    assert to_numpy(packed).dtype == np.uint8
    for vector, row in zip(
        codes.reshape(-1, shape[-1]) if codes.size else [],
        to_numpy(packed).reshape(-1, packed.shape[-1]) if codes.size else [],
        strict=True,
    ):
        np.testing.assert_array_equal(row, slow_pack(vector))
    unpacked = unpack_int4(packed, shape[-1])
    assert type(unpacked) is type(packed)
    assert to_numpy(unpacked).dtype == np.int8
    np.testing.assert_array_equal(to_numpy(unpacked), codes)


@given(
    arrays.arrays(np.int8, arrays.array_shapes(max_dims=4, min_side=0), elements=st.integers(-8, 7))
)
@settings(deadline=None)
def test_any_array_makes_the_round_trip(codes):
    np.testing.assert_array_equal(unpack_int4(pack_int4(codes), codes.shape[-1]), codes)


@given(arrays.arrays(np.uint8, arrays.array_shapes(max_dims=3, min_side=0)))
@settings(deadline=None)
def test_any_bytes_make_the_round_trip(packed):
    codes = unpack_int4(packed, 2 * packed.shape[-1])
    assert ((codes >= -8) & (codes <= 7)).all()
    np.testing.assert_array_equal(pack_int4(codes), packed)


def test_any_layout_and_inputs_are_kept(library):
    codes = random_codes(9, 14)
    kept = codes.copy()
    for view in (np.asfortranarray(codes), codes[::2, ::3]):
        packed = pack_int4(to(library, view))
        np.testing.assert_array_equal(to_numpy(packed), pack_int4(view.copy()))
        before = to_numpy(packed).copy()
        np.testing.assert_array_equal(to_numpy(unpack_int4(packed, view.shape[1])), view)
        np.testing.assert_array_equal(to_numpy(packed), before)
    np.testing.assert_array_equal(codes, kept)


@pytest.mark.parametrize("value", [-128, -9, 8, 127])
def test_values_beyond_four_bits(library, value):
    codes = random_codes(3, 5)
    codes[1, 4] = value
    with pytest.raises(ValueError, match=rf"codes holds {value} at \(1, 4\); allowed: -8 to 7"):
        pack_int4(to(library, codes))


@pytest.mark.parametrize(
    ("bytes_", "k", "allowed"), [(3, 4, "5 or 6"), (3, 7, "5 or 6"), (0, 1, "0"), (1, 0, "1 or 2")]
)
def test_wrong_lengths(library, bytes_, k, allowed):
    message = f"k is {k}; allowed for {bytes_} bytes along the last axis: {allowed}$"
    with pytest.raises(ValueError, match=message):
        unpack_int4(to(library, np.zeros((2, bytes_), np.uint8)), k)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pack_int4([1, 2]), TypeError, "codes is a list; allowed: an array of int8"),
        (lambda: pack_int4(np.ones(4)), TypeError, "codes has dtype float64; allowed: int8"),
        (lambda: pack_int4(np.ones(4, int)), TypeError, "codes has dtype int64; allowed: int8"),
        (
            lambda: pack_int4(np.int8(1)[...]),
            ValueError,
            "codes has no dimension; allowed: at least",
        ),
        (lambda: unpack_int4(b"12", 4), TypeError, "packed is a bytes; allowed: an array of uint8"),
        (lambda: unpack_int4(EVERY, 4), TypeError, "packed has dtype int8; allowed: uint8"),
        (
            lambda: unpack_int4(np.array(1, np.uint8), 2),
            ValueError,
            "packed has no dimension; allo",
        ),
        (
            lambda: unpack_int4(np.ones(2, np.uint8), -1),
            ValueError,
            "k is -1; allowed: an integer of",
        ),
        (
            lambda: unpack_int4(np.ones(2, np.uint8), 4.0),
            TypeError,
            "k is 4.0; allowed: an integer",
        ),
    ],
)
def test_mistakes(call, error, message):
    with pytest.raises(error, match=message):
        call()
