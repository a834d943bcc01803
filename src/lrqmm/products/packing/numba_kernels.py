"""Packing and unpacking in numba, for NumPy and torch on a CPU; `products.packing` has the format.

A block is copied to words of its own, the shorter last one with its lanes as far apart as in a
whole one. There it is worked on as 64-bit words, eight codes side by side in each, with byte-wise
arithmetic made of shifts and masks, which compilers turn into vector instructions.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device
from numba import njit, prange

from lrqmm.products.packing.layout import BLOCK, LANES, WIDTH, packed_length

Array = Any
CHUNK = 64  # blocks that a thread takes at a time: 32 KiB of codes
WORDS = WIDTH // 8  # of a lane of a block
EVERY = 0x0101010101010101  # times a byte: that byte in all places of a word


def pack(codes: Array, bits: int) -> tuple[Array, bool]:
    """(..., k) int8 to (..., bits ⌈k / 8⌉) uint8, and whether all codes fit."""
    xp = array_namespace(codes)
    shape = (*codes.shape[:-1], packed_length(codes.shape[-1], bits))
    packed = np.empty((math.prod(shape[:-1]), shape[-1]), np.uint8)
    fits = _packer(bits)(_rows(codes), packed) if packed.size else True
    return xp.asarray(packed.reshape(shape), device=device(codes)), bool(fits)


def unpack(packed: Array, bits: int, k: int) -> Array:
    """(..., bits ⌈k / 8⌉) uint8 to (..., k) int8."""
    xp = array_namespace(packed)
    codes = np.empty((math.prod(packed.shape[:-1]), k), np.int8)
    if codes.size:
        _unpacker(bits)(_rows(packed), codes)
    return xp.asarray(codes.reshape(*packed.shape[:-1], k), device=device(packed))


def _rows(x: Array) -> Array:
    """(rows, length), contiguous."""
    x = np.asarray(x)
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])


@njit(inline="always")
def _load(x: Array, start: int, left: int, lanes: int, width: int, buffer: Array) -> None:
    """Lanes of `width` bytes, from `start`, to WIDTH apart, and 0 beyond the `left` of the row.

    Indices without a sign: with one, numba asks of each whether it counts from the end.
    """
    if width == WIDTH and lanes * WIDTH <= left:
        for i in range(lanes * WIDTH):
            buffer[np.uint64(i)] = x[np.uint64(start) + np.uint64(i)]
    else:
        for j in range(lanes):
            count = max(0, min(width, left - j * width))
            a, c = np.uint64(start + j * width), np.uint64(j * WIDTH)
            for i in range(count):
                buffer[c + np.uint64(i)] = x[a + np.uint64(i)]
            for i in range(count, width):
                buffer[c + np.uint64(i)] = 0


@njit(inline="always")
def _store(buffer: Array, lanes: int, width: int, x: Array, start: int, left: int) -> None:
    """The way back from `_load`."""
    if width == WIDTH and lanes * WIDTH <= left:
        for i in range(lanes * WIDTH):
            x[np.uint64(start) + np.uint64(i)] = buffer[np.uint64(i)]
    else:
        for j in range(lanes):
            a, c = np.uint64(start + j * width), np.uint64(j * WIDTH)
            for i in range(min(width, left - j * width)):
                x[a + np.uint64(i)] = buffer[c + np.uint64(i)]


@njit(inline="always")
def _width(k: int, b: int) -> int:
    """Of the lanes of block b: WIDTH, and less in a shorter last one."""
    return min(WIDTH, (k - b * BLOCK + LANES - 1) // LANES)


@cache
def _packer(bits: int) -> Callable[..., bool]:
    """The kernel of one width; loops over t and j have constant bounds and are unrolled."""
    mask = 2**bits - 1
    alike = np.uint64((0x7F & ~(2 ** (bits - 1) - 1)) * EVERY)  # bits that repeat the sign

    @njit(inline="always")
    def pack_block(words: Array, packed: Array) -> Any:
        """What does not fit shows in the result."""
        bad = np.uint64(0)
        for i in range(WORDS):
            for j in range(LANES):
                x = words[j * WORDS + i]
                bad |= (x ^ (x >> np.uint64(1))) & alike
            for t in range(bits):
                out = np.uint64(0)
                for j in range(LANES):
                    shift = bits * j - 8 * t
                    x = words[j * WORDS + i]
                    if 0 <= shift < 8:
                        keep = np.uint64((mask & (255 >> shift)) * EVERY)
                        out |= (x & keep) << np.uint64(shift)
                    elif -bits < shift < 0:
                        keep = np.uint64((mask >> -shift) * EVERY)
                        out |= (x >> np.uint64(-shift)) & keep
                packed[t * WORDS + i] = out
        return bad

    @njit(parallel=True, cache=True)
    def kernel(codes: Array, packed: Array) -> bool:
        rows, k = codes.shape
        length = packed.shape[1]
        flat, flat_packed = codes.reshape(-1), packed.reshape(-1)
        blocks = (k + BLOCK - 1) // BLOCK
        total = rows * blocks
        bad = 0
        for chunk in prange((total + CHUNK - 1) // CHUNK):
            words, out = np.zeros(LANES * WORDS, np.uint64), np.empty(bits * WORDS, np.uint64)
            source, target = words.view(np.int8), out.view(np.uint8)
            wrong = np.uint64(0)
            for at in range(chunk * CHUNK, min(total, (chunk + 1) * CHUNK)):
                r, b = at // blocks, at % blocks
                width = _width(k, b)
                if width < WIDTH:
                    words[:] = 0
                c, p = b * BLOCK, b * bits * WIDTH
                _load(flat, r * k + c, k - c, LANES, width, source)
                wrong |= pack_block(words, out)
                _store(target, bits, width, flat_packed, r * length + p, length - p)
            bad += int(wrong != np.uint64(0))
        return bad == 0

    return kernel


@cache
def _unpacker(bits: int) -> Callable[..., None]:
    """As `_packer`."""
    mask, half = 2**bits - 1, 2 ** (bits - 1)
    halves, tops = np.uint64(half * EVERY), np.uint64(0x80 * EVERY)

    @njit(inline="always")
    def unpack_block(packed: Array, words: Array) -> None:
        for i in range(WORDS):
            for j in range(LANES):
                code = np.uint64(0)
                for t in range(bits):
                    shift = bits * j - 8 * t
                    x = packed[t * WORDS + i]
                    if 0 <= shift < 8:
                        code |= (x >> np.uint64(shift)) & np.uint64((mask & (255 >> shift)) * EVERY)
                    elif -bits < shift < 0:
                        keep = np.uint64((mask >> -shift) * EVERY)
                        code |= (x & keep) << np.uint64(-shift)
                if bits < 8:  # (code ^ half) - half in every byte, without a borrow between them
                    code = (((code ^ halves) | tops) - halves) ^ tops
                words[j * WORDS + i] = code

    @njit(parallel=True, cache=True)
    def kernel(packed: Array, codes: Array) -> None:
        rows, k = codes.shape
        length = packed.shape[1]
        flat, flat_packed = codes.reshape(-1), packed.reshape(-1)
        blocks = (k + BLOCK - 1) // BLOCK
        total = rows * blocks
        for chunk in prange((total + CHUNK - 1) // CHUNK):
            words, out = np.zeros(bits * WORDS, np.uint64), np.empty(LANES * WORDS, np.uint64)
            source, target = words.view(np.uint8), out.view(np.int8)
            for at in range(chunk * CHUNK, min(total, (chunk + 1) * CHUNK)):
                r, b = at // blocks, at % blocks
                width = _width(k, b)
                c, p = b * BLOCK, b * bits * WIDTH
                _load(flat_packed, r * length + p, length - p, bits, width, source)
                unpack_block(words, out)
                _store(target, LANES, width, flat, r * k + c, k - c)

    return kernel
