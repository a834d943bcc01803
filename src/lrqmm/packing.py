"""Two 4-bit codes a byte, for storage; products take int8."""

from __future__ import annotations

from array_api_compat import array_namespace, device

from lrqmm import _checks
from lrqmm._checks import Array
from lrqmm.backends import is_array

LOWEST, HIGHEST = -8, 7


def pack_int4(codes: Array) -> Array:
    """Codes packed two a byte along the last axis, c₂ᵢ mod 16 + 16 (c₂ᵢ₊₁ mod 16).

    Parameters
    ----------
    codes : (..., k) int8 array with values -8 to 7

    Returns
    -------
    (..., ceil(k / 2)) uint8 array, low nibble first; the last high nibble is 0 where k is odd.

    Raises
    ------
    TypeError : not an array, another dtype
    ValueError : no dimension, a value that 4 bits do not hold
    """
    _check("codes", codes, "int8")
    xp = array_namespace(codes)
    wrong = (codes < LOWEST) | (codes > HIGHEST)
    if bool(xp.any(wrong)):
        where = tuple(int(i[0]) for i in xp.nonzero(wrong))
        raise ValueError(
            f"codes holds {int(codes[where])} at {where}; allowed: {LOWEST} to {HIGHEST}"
        )
    if codes.shape[-1] % 2:
        padding = xp.zeros((*codes.shape[:-1], 1), dtype=xp.int8, device=device(codes))
        codes = xp.concat([codes, padding], axis=-1)
    nibbles = xp.astype(codes & 15, xp.uint8)  # two's complement: & 15 is mod 16
    pairs = xp.reshape(nibbles, (*codes.shape[:-1], codes.shape[-1] // 2, 2))
    return pairs[..., 0] | (pairs[..., 1] << 4)


def unpack_int4(packed: Array, k: int) -> Array:
    """The codes that `pack_int4` was given.

    Parameters
    ----------
    packed : (..., ceil(k / 2)) uint8 array
    k : codes along the last axis

    Returns
    -------
    (..., k) int8 array with values -8 to 7

    Raises
    ------
    TypeError : not an array, another dtype, k not an integer
    ValueError : no dimension, k negative or not the length that `packed` has room for
    """
    _check("packed", packed, "uint8")
    _checks.integer("k", k, 0)
    length = packed.shape[-1]
    if length != (k + 1) // 2:
        allowed = f"{2 * length - 1} or {2 * length}" if length else "0"
        raise ValueError(f"k is {k}; allowed for {length} bytes along the last axis: {allowed}")
    xp = array_namespace(packed)
    nibbles = xp.stack([packed & 15, packed >> 4], axis=-1)
    nibbles = xp.reshape(nibbles, (*packed.shape[:-1], 2 * length))[..., :k]
    return (xp.astype(nibbles, xp.int8) ^ 8) - 8  # 0 to 15 as -8 to 7: the sign is bit 3


def _check(name: str, x: Array, dtype: str) -> None:
    if not is_array(x):
        raise TypeError(f"{name} is a {type(x).__name__}; allowed: an array of {dtype}")
    if x.dtype != getattr(array_namespace(x), dtype):
        raise TypeError(f"{name} has dtype {x.dtype}; allowed: {dtype}")
    if x.ndim == 0:
        raise ValueError(f"{name} has no dimension; allowed: at least one")
