"""Packing and unpacking in numba, for NumPy and torch on a CPU; `lrqmm.packing` has the format.

Whole blocks are worked on as 64-bit words, eight codes side by side in each, with byte-wise
arithmetic made of shifts and masks, which compilers turn into vector instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numba import njit, prange

from lrqmm.packing import BLOCK, LANES, WIDTH, packed_length

Array = Any
CHUNK = 64  # whole blocks that a thread takes at a time: 32 KiB of codes
WORDS = WIDTH // 8  # of a lane of a block
EVERY = 0x0101010101010101  # times a byte: that byte in all places of a word


def pack(codes: Array, bits: int) -> tuple[Array, bool]:
    """(..., k) int8 to (..., bits ⌈k / 8⌉) uint8, and whether all codes fit."""
    xp = array_namespace(codes)
    length = packed_length(codes.shape[-1], bits)
    if not length or 0 in codes.shape:
        return xp.asarray(np.empty((*codes.shape[:-1], length), np.uint8)), True
    rows = _rows(codes)
    packed = np.empty((rows.shape[0], length), np.uint8)
    whole, ragged = _packer(bits)
    if rows.shape[1] % 8 or length % 8:
        fits = ragged(rows, packed)
    else:
        fits = whole(rows, _words(rows), packed, _words(packed))
    return xp.asarray(packed.reshape(*codes.shape[:-1], length)), bool(fits)


def unpack(packed: Array, bits: int, k: int) -> Array:
    """(..., bits ⌈k / 8⌉) uint8 to (..., k) int8."""
    xp = array_namespace(packed)
    if not k or 0 in packed.shape:
        return xp.asarray(np.empty((*packed.shape[:-1], k), np.int8))
    rows = _rows(packed)
    codes = np.empty((rows.shape[0], k), np.int8)
    whole, ragged = _unpacker(bits)
    if k % 8 or rows.shape[1] % 8:
        ragged(rows, codes)
    else:
        whole(rows, _words(rows), codes, _words(codes))
    return xp.asarray(codes.reshape(*packed.shape[:-1], k))


def _rows(x: Array) -> Array:
    """(rows, length), contiguous."""
    x = np.asarray(x)
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])


def _words(x: Array) -> Array:
    """The same memory as 64-bit words."""
    return x.view(np.uint64).reshape(-1)


@cache
def _packer(bits: int) -> tuple[Callable[..., bool], Callable[..., bool]]:
    """The kernels of one width, for rows of whole words and for others, which pass through words of
    their own; loops over t and j have constant bounds and are unrolled."""
    mask = 2**bits - 1
    alike = np.uint64((0x7F & ~(2 ** (bits - 1) - 1)) * EVERY)  # bits that repeat the sign

    @njit(inline="always")
    def block(words: Array, c: int, packed: Array, p: int) -> Any:
        """One block; what does not fit shows in the result."""
        bad = np.uint64(0)
        for i in range(WORDS):
            for j in range(LANES):
                x = words[c + j * WORDS + i]
                bad |= (x ^ (x >> np.uint64(1))) & alike
            for t in range(bits):
                out = np.uint64(0)
                for j in range(LANES):
                    shift = bits * j - 8 * t
                    x = words[c + j * WORDS + i]
                    if 0 <= shift < 8:
                        keep = np.uint64((mask & (255 >> shift)) * EVERY)
                        out |= (x & keep) << np.uint64(shift)
                    elif -bits < shift < 0:
                        keep = np.uint64((mask >> -shift) * EVERY)
                        out |= (x >> np.uint64(-shift)) & keep
                packed[p + t * WORDS + i] = out
        return bad

    @njit(inline="always")
    def column(codes: Array, c: int, packed: Array, p: int, width: int, i: int) -> int:
        """Eight codes, `width` apart, to `bits` bytes."""
        bad = 0
        for j in range(LANES):
            code = codes[c + j * width + i]
            bad |= (code ^ (code >> 1)) & 0x7F & ~(2 ** (bits - 1) - 1)
        for t in range(bits):
            byte = 0
            for j in range(LANES):
                shift = bits * j - 8 * t
                if 0 <= shift < 8:
                    byte |= (codes[c + j * width + i] & mask) << shift
                elif -bits < shift < 0:
                    byte |= (codes[c + j * width + i] & mask) >> -shift
            packed[p + t * width + i] = np.uint8(byte & 255)
        return bad

    @njit(parallel=True, cache=True)
    def kernel(codes: Array, code_words: Array, packed: Array, packed_words: Array) -> bool:
        rows, k = codes.shape
        length = packed.shape[1]
        blocks = k // BLOCK
        total = rows * blocks
        bad = 0
        for chunk in prange((total + CHUNK - 1) // CHUNK):
            wrong = np.uint64(0)
            for at in range(chunk * CHUNK, min(total, (chunk + 1) * CHUNK)):
                r, b = at // blocks, at % blocks
                c, p = r * k // 8 + b * LANES * WORDS, r * length // 8 + b * bits * WORDS
                wrong |= block(code_words, c, packed_words, p)
            bad += int(wrong != np.uint64(0))
        at = blocks * BLOCK
        width = (k - at) // LANES
        for r in prange(rows):
            wrong_here = 0
            for i in range(width):
                wrong_here |= column(codes[r], at, packed[r], bits * at // LANES, width, i)
            bad += wrong_here
        return bad == 0

    @njit(parallel=True, cache=True)
    def ragged(codes: Array, packed: Array) -> bool:
        rows, k = codes.shape
        length = packed.shape[1]
        blocks = (k + -k % LANES) // BLOCK
        at = blocks * BLOCK
        width = (k + -k % LANES - at) // LANES
        bad = 0
        for r in prange(rows):
            words = np.zeros((k + 7) // 8, np.uint64)
            out = np.empty((length + 7) // 8, np.uint64)
            own, made = words.view(np.int8), out.view(np.uint8)
            own[:k] = codes[r]
            wrong = np.uint64(0)
            for b in range(blocks):
                wrong |= block(words, b * LANES * WORDS, out, b * bits * WORDS)
            wrong_here = int(wrong != np.uint64(0))
            for i in range(width):
                wrong_here |= column(own, at, made, bits * at // LANES, width, i)
            packed[r] = made[:length]
            bad += wrong_here
        return bad == 0

    return kernel, ragged


@cache
def _unpacker(bits: int) -> tuple[Callable[..., None], Callable[..., None]]:
    """As `_packer`."""
    mask, half = 2**bits - 1, 2 ** (bits - 1)
    halves, tops = np.uint64(half * EVERY), np.uint64(0x80 * EVERY)

    @njit(inline="always")
    def block(packed: Array, p: int, words: Array, c: int) -> None:
        for i in range(WORDS):
            for j in range(LANES):
                code = np.uint64(0)
                for t in range(bits):
                    shift = bits * j - 8 * t
                    x = packed[p + t * WORDS + i]
                    if 0 <= shift < 8:
                        code |= (x >> np.uint64(shift)) & np.uint64((mask & (255 >> shift)) * EVERY)
                    elif -bits < shift < 0:
                        keep = np.uint64((mask >> -shift) * EVERY)
                        code |= (x & keep) << np.uint64(-shift)
                if bits < 8:  # (code ^ half) - half in every byte, without a borrow between them
                    code = (((code ^ halves) | tops) - halves) ^ tops
                words[c + j * WORDS + i] = code

    @njit(inline="always")
    def column(packed: Array, p: int, codes: Array, c: int, width: int, i: int) -> None:
        for j in range(LANES):
            code = 0
            for t in range(bits):
                shift = bits * j - 8 * t
                if 0 <= shift < 8:
                    code |= packed[p + t * width + i] >> shift
                elif -bits < shift < 0:
                    code |= packed[p + t * width + i] << -shift
            codes[c + j * width + i] = np.int8(((code & mask) ^ half) - half)

    @njit(parallel=True, cache=True)
    def kernel(packed: Array, packed_words: Array, codes: Array, code_words: Array) -> None:
        rows, k = codes.shape
        length = packed.shape[1]
        blocks = k // BLOCK
        total = rows * blocks
        for chunk in prange((total + CHUNK - 1) // CHUNK):
            for at in range(chunk * CHUNK, min(total, (chunk + 1) * CHUNK)):
                r, b = at // blocks, at % blocks
                c, p = r * k // 8 + b * LANES * WORDS, r * length // 8 + b * bits * WORDS
                block(packed_words, p, code_words, c)
        at = blocks * BLOCK
        width = (k - at) // LANES
        for r in prange(rows):
            for i in range(width):
                column(packed[r], bits * at // LANES, codes[r], at, width, i)

    @njit(parallel=True, cache=True)
    def ragged(packed: Array, codes: Array) -> None:
        rows, k = codes.shape
        length = packed.shape[1]
        blocks = (k + -k % LANES) // BLOCK
        at = blocks * BLOCK
        width = (k + -k % LANES - at) // LANES
        for r in prange(rows):
            words = np.zeros((length + 7) // 8, np.uint64)
            out = np.empty((k + 7) // 8, np.uint64)
            own, made = words.view(np.uint8), out.view(np.int8)
            own[:length] = packed[r]
            for b in range(blocks):
                block(words, b * bits * WORDS, out, b * LANES * WORDS)
            for i in range(width):
                column(own, bits * at // LANES, made, at, width, i)
            codes[r] = made[:k]

    return kernel, ragged
