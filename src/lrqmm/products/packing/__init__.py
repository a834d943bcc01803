"""Codes of 1 to 8 bits without gaps, for storage; products take int8.

Eight codes of b bits fill b bytes. A row is cut into blocks of 512 codes and a shorter last one; a
block is laid out as 8 x w codes and becomes b x w bytes: with the word

    W_i = Σ_j 2^(b j) (c_ji mod 2^b),    j = 0, ..., 7,

byte t of every W_i lies in row t. So neighbours in memory are packed alike, and vector units
work on 64 of them at a time (`numba_kernels`, `triton_kernels`); this file is their
oracle.
Source: this project.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from lrqmm import _checks
from lrqmm._checks import Array
from lrqmm._repr import Shown
from lrqmm.products.backends import is_array, library_of
from lrqmm.products.packing.layout import BLOCK, LANES, WIDTH, packed_length
from lrqmm.products.quantized import Quantized
from lrqmm.products.scaling import power_of_two

__all__ = ["Packed", "pack", "packed_length", "unpack"]


def pack(codes: Array, bits: int) -> Array:
    """Signed codes of `bits` bits packed along the last axis.

    Parameters
    ----------
    codes : (..., k) int8 array with values -2^(bits-1) to 2^(bits-1) - 1
    bits : 1 to 8

    Returns
    -------
    (..., bits ⌈k / 8⌉) uint8 array; what fills the last eight codes is 0.

    Raises
    ------
    TypeError : not an array, another dtype, bits not an integer
    ValueError : no dimension, bits out of range, a value that they do not hold

    Examples
    --------
    >>> import numpy as np
    >>> from lrqmm.products.packing import pack, unpack
    >>> codes = np.array([[-8, 7, 0, 1, -1, 2, -2, -3, 3]], np.int8)
    >>> packed = pack(codes, 4)
    >>> packed.shape, packed.dtype.name
    ((1, 8), 'uint8')
    >>> bool((unpack(packed, 4, 9) == codes).all())
    True
    """
    _check("codes", codes, "int8")
    _checks.integer("bits", bits, 1, 8)
    fast = _fast(codes)
    packed, fits = (pack_plainly if fast is None else fast.pack)(codes, bits)
    if not fits:
        xp = array_namespace(codes)
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        where = tuple(int(i[0]) for i in xp.nonzero((codes < low) | (codes > high)))
        raise ValueError(f"codes holds {int(codes[where])} at {where}; allowed: {low} to {high}")
    return packed


def unpack(packed: Array, bits: int, k: int) -> Array:
    """The codes that `pack` was given.

    Parameters
    ----------
    packed : (..., bits ⌈k / 8⌉) uint8 array
    bits : 1 to 8
    k : codes along the last axis

    Returns
    -------
    (..., k) int8 array

    Raises
    ------
    TypeError : not an array, another dtype, bits or k not integers
    ValueError : no dimension, bits out of range, k negative or not the length that `packed` has
        room for

    Examples
    --------
    >>> import numpy as np
    >>> from lrqmm.products.packing import pack, unpack
    >>> unpack(pack(np.array([-8, 7, 0], np.int8), 4), 4, 3).tolist()
    [-8, 7, 0]
    """
    _check("packed", packed, "uint8")
    _checks.integer("bits", bits, 1, 8)
    _checks.integer("k", k, 0)
    length = packed.shape[-1]
    if length != packed_length(k, bits):
        raise ValueError(
            f"k is {k}; it takes {packed_length(k, bits)} bytes at {bits} bits, and the last axis "
            f"has {length}; allowed: a k whose bytes these are"
        )
    fast = _fast(packed)
    codes: Array = (unpack_plainly if fast is None else fast.unpack)(packed, bits, k)
    return codes


def pack_plainly(codes: Array, bits: int) -> tuple[Array, bool]:
    """As `pack`, in array operations; and whether all codes fit."""
    xp = array_namespace(codes)
    k = codes.shape[-1]
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    fits = not bool(xp.any((codes < low) | (codes > high)))
    missing = -k % LANES
    if missing:
        padding = xp.zeros((*codes.shape[:-1], missing), dtype=xp.int8, device=device(codes))
        codes = xp.concat([codes, padding], axis=-1)
    parts = []
    for start, stop, width in _pieces(k):
        piece = codes[..., start:stop]
        count = (stop - start) // (LANES * width)
        lanes = xp.reshape(piece, (*piece.shape[:-1], count, LANES, width))
        masked = xp.astype(lanes, xp.int64) & (2**bits - 1)
        total = masked[..., 0, :]
        for j in range(1, LANES):
            total = total | (masked[..., j, :] << (bits * j))
        rows = xp.stack([(total >> (8 * t)) & 255 for t in range(bits)], axis=-2)
        parts.append(
            xp.reshape(xp.astype(rows, xp.uint8), (*piece.shape[:-1], count * bits * width))
        )
    return (xp.concat(parts, axis=-1) if parts else xp.astype(codes, xp.uint8)), fits


def unpack_plainly(packed: Array, bits: int, k: int) -> Array:
    """As `unpack`, in array operations."""
    xp = array_namespace(packed)
    parts = []
    for start, stop, width in _pieces(k):
        piece = packed[..., bits * start // LANES : bits * stop // LANES]
        count = (stop - start) // (LANES * width)
        rows = xp.astype(xp.reshape(piece, (*piece.shape[:-1], count, bits, width)), xp.int64)
        total = rows[..., 0, :]
        for t in range(1, bits):
            total = total | (rows[..., t, :] << (8 * t))
        lanes = xp.stack([(total >> (bits * j)) & (2**bits - 1) for j in range(LANES)], axis=-2)
        half = 2 ** (bits - 1)
        signed = xp.astype((lanes ^ half) - half, xp.int8)
        parts.append(xp.reshape(signed, (*piece.shape[:-1], stop - start)))
    if not parts:
        return xp.astype(packed, xp.int8)
    return xp.concat(parts, axis=-1)[..., :k]


def _pieces(k: int) -> list[tuple[int, int, int]]:
    """Where whole blocks and the last one begin and end, and the width of each."""
    full, end = k - k % BLOCK, -(-k // LANES) * LANES
    pieces = [(0, full, WIDTH), (full, end, (end - full) // LANES)]
    return [piece for piece in pieces if piece[1] > piece[0]]


def _fast(x: Array) -> Any:
    """The module that packs arrays like this one at memory speed, or None."""
    library = library_of(x)
    if library == "numpy" or (library == "torch" and x.device.type == "cpu"):
        from lrqmm.products.packing import numba_kernels

        return numba_kernels
    if library == "torch" and x.device.type == "cuda":
        from lrqmm.products.packing import triton_kernels

        return triton_kernels
    return None


@dataclass(frozen=True)
class Packed(Shown):
    """A quantised operand as it is stored: packed codes, scales and zero points.

    From `Packed.of`; `quantized()` is what it was made of, to the bit.

    Attributes
    ----------
    codes : (rows, bits ⌈k / 8⌉) uint8
    bits, k, group : bits of a code, codes of a row, columns that share a scale
    scale : (rows, groups) or (1, groups) float32; int8 exponents where `shared_exponents`
    offset : like the scale, float32, or None
    shared_exponents : scales are powers of two, and only their exponents are kept

    Examples
    --------
    >>> import numpy as np
    >>> from lrqmm.products.packing import Packed
    >>> from lrqmm.products.quantize import Uniform
    >>> X = np.random.default_rng(0).standard_normal((16, 64), dtype=np.float32)
    >>> quantized = Uniform(bits=4).quantize(X)
    >>> stored = Packed.of(quantized, bits=4)
    >>> stored
    Packed(codes=<16 x 32 uint8>, bits=4, k=64, group=64, scale=<16 x 1 float32>, offset=None)
    >>> stored.nbytes
    576
    >>> bool((stored.quantized().codes == quantized.codes).all())
    True
    """

    codes: Array
    bits: int
    k: int
    group: int
    scale: Array
    offset: Array | None
    shared_exponents: bool = False

    @classmethod
    def of(cls, x: Quantized, bits: int, *, shared_exponents: bool = False) -> Packed:
        """A quantised operand with int8 codes packed.

        Raises ValueError where its codes need more bits or, with `shared_exponents`, a scale is no
        power of two from 2^-126 to 2^127 (or zero).
        """
        k = int(x.codes.shape[1])
        scale = _exponents(x.scale) if shared_exponents else x.scale
        codes = pack(x.codes, bits)
        return cls(codes, bits, k, x.group, scale, x.offset, shared_exponents)

    def quantized(self) -> Quantized:
        """The operand, its codes int8 again."""
        scale = self.scale
        if self.shared_exponents:
            xp = array_namespace(scale)
            places = xp.astype(xp.reshape(scale, (-1,)), xp.int64) - NO_EXPONENT
            powers = xp.asarray(POWERS, device=device(scale), copy=True)
            scale = xp.reshape(xp.take(powers, places, axis=0), scale.shape)
        return Quantized(unpack(self.codes, self.bits, self.k), scale, self.offset, self.group)

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        scales = (1 if self.shared_exponents else 4) * math.prod(self.scale.shape)
        offsets = 0 if self.offset is None else 4 * math.prod(self.offset.shape)
        total: int = math.prod(self.codes.shape) + scales + offsets
        return total


NO_EXPONENT = -128
"""Stands for the scale zero."""
POWERS = np.ldexp(np.float32(1), np.arange(NO_EXPONENT, 128))
"""Of two, by exponent; no function rounds them."""
POWERS[0] = 0


def _exponents(scale: Array) -> Array:
    xp = array_namespace(scale)
    safe = xp.where(scale > 0, scale, xp.ones_like(scale))
    exponent = xp.round(xp.log2(safe))
    if bool(xp.any(power_of_two(safe) != safe)) or bool(xp.any(exponent < -126)):
        raise ValueError("a scale is no power of two; allowed with shared exponents: those only")
    exponent = xp.where(scale > 0, exponent, xp.full_like(exponent, NO_EXPONENT))
    return xp.astype(exponent, xp.int8)


def _check(name: str, x: Array, dtype: str) -> None:
    if not is_array(x):
        raise TypeError(f"{name} is a {type(x).__name__}; allowed: an array of {dtype}")
    if x.dtype != getattr(array_namespace(x), dtype):
        raise TypeError(f"{name} has dtype {x.dtype}; allowed: {dtype}")
    if x.ndim == 0:
        raise ValueError(f"{name} has no dimension; allowed: at least one")
