"""Exact integer products by float32 GEMM, for devices without a fast integer one.

A float32 product of integers is exact while every partial sum stays within 2^24, so the inner
dimension is cut into pieces short enough for that: 1024 columns at 8 bits, over 300,000 at 4 bits.
"""

from types import ModuleType

from lrqmm._checks import Array

EXACT = 2**24


def integer_matmul(xp: ModuleType, a: Array, b: Array) -> Array:
    """(m, k) int8 by (k, n) int8 -> (m, n) int32, exact."""
    largest = max(_largest(xp, a) * _largest(xp, b), 1)
    step = EXACT // largest
    k = a.shape[1]
    total = None
    for start in range(0, k, step):
        piece = slice(start, min(start + step, k))
        left, right = xp.astype(a[:, piece], xp.float32), xp.astype(b[piece, :], xp.float32)
        part = xp.astype(left @ right, xp.int32)
        total = part if total is None else total + part
    return total


def _largest(xp: ModuleType, x: Array) -> int:
    return max(int(xp.max(x)), -int(xp.min(x)))
