"""The passes of passes.cpp in numba: the fallback where no compiler was at hand."""

from typing import Any

import numpy as np
from numba import njit, prange

Array = Any

SMALLEST_SCALE = np.float32(2.0**-126)
MARGIN = np.float32(1 + 2.0**-22)  # under truncation the largest element reaches the top
STRIP = 256  # columns that are quantised together
LOOSE = {"nnan", "nsz", "contract"}  # lets a maximum use vectors; inputs are finite


NEAREST, TRUNCATE, SIGNED = range(3)  # as passes.py numbers them


@njit(inline="always")
def _scale(low: Any, high: Any, top: Any, mode: Any) -> Any:
    """The scale of values from `low` to `high`, and what to multiply by."""
    largest = max(-low, high)
    scale = np.float32(largest / np.float32(top + 1 if mode == SIGNED else top))
    if scale < SMALLEST_SCALE:
        return np.float32(0), np.float32(0)
    if mode == SIGNED and high > -low:
        scale = -scale
    inverse = np.float32(1) / scale
    return scale, inverse * MARGIN if mode == TRUNCATE else inverse


@njit(inline="always")
def _encode(v: Any, top: Any, mode: Any) -> Any:
    """The code of v, and the digit of what is left."""
    if mode == TRUNCATE:
        code = np.trunc(v)
    elif mode == SIGNED:
        code = min(np.rint(v), np.float32(top))
    else:
        code = np.rint(v)
        return code, np.rint((v - code) * np.float32(254))
    return code, np.rint((v - code) * np.float32(127))


@njit(parallel=True, cache=True, error_model="numpy", fastmath=LOOSE)
def quantize_rows_affine(
    x: Array, top: int, codes: Array, digits: Array, scale: Array, zero: Array
) -> None:
    """x (rows, columns) -> codes, digits (empty for none), one scale and one zero point per row."""
    for i in prange(x.shape[0]):
        low, high = np.float32(0), np.float32(0)
        for j in range(x.shape[1]):
            low, high = min(low, x[i, j]), max(high, x[i, j])
        step = np.float32((high - low) / np.float32(2 * top + 1))
        usable = step >= SMALLEST_SCALE
        scale[i] = step if usable else np.float32(0)
        inverse = np.float32(1) / step if usable else np.float32(0)
        zero[i] = np.rint(-low * inverse) - np.float32(top + 1) if usable else np.float32(0)
        for j in range(x.shape[1]):
            v = x[i, j] * inverse
            code = min(max(np.rint(v) + zero[i], np.float32(-top - 1)), np.float32(top))
            codes[i, j] = np.int8(code)
            if digits.shape[0] > 0:
                digits[i, j] = np.int8(np.rint((v - (code - zero[i])) * np.float32(254)))


@njit(parallel=True, cache=True, error_model="numpy", fastmath=LOOSE)
def quantize_rows(x: Array, top: int, mode: int, codes: Array, digits: Array, scale: Array) -> None:
    """x (rows, columns) -> codes, digits (none where empty) and one scale per row."""
    for i in prange(x.shape[0]):
        low, high = np.float32(0), np.float32(0)
        for j in range(x.shape[1]):
            low, high = min(low, x[i, j]), max(high, x[i, j])
        scale[i], inverse = _scale(low, high, top, mode)
        for j in range(x.shape[1]):
            code, digit = _encode(x[i, j] * inverse, top, mode)
            codes[i, j] = np.int8(code)
            if digits.shape[0] > 0:
                digits[i, j] = np.int8(digit)


@njit(parallel=True, cache=True, error_model="numpy", fastmath=LOOSE)
def quantize_columns(
    x: Array, top: int, mode: int, codes: Array, digits: Array, scale: Array
) -> None:
    """x (rows, columns) -> codes, digits (none where empty) and one scale per column."""
    rows, columns = x.shape
    for strip in prange((columns + STRIP - 1) // STRIP):
        start, end = strip * STRIP, min(columns, (strip + 1) * STRIP)
        low, high, inverse = np.zeros((3, end - start), np.float32)
        for i in range(rows):
            for j in range(start, end):
                low[j - start] = min(low[j - start], x[i, j])
                high[j - start] = max(high[j - start], x[i, j])
        for j in range(start, end):
            scale[j], inverse[j - start] = _scale(low[j - start], high[j - start], top, mode)
        for i in range(rows):
            for j in range(start, end):
                code, digit = _encode(x[i, j] * inverse[j - start], top, mode)
                codes[i, j] = np.int8(code)
                if digits.shape[0] > 0:
                    digits[i, j] = np.int8(digit)


@njit(parallel=True, cache=True, error_model="numpy", fastmath=LOOSE)
def thin_codes(X: Array, weight: Array, first: Array, second: Array, scale: Array) -> None:
    """weight_i X_il = scale_l (first_li + second_li / 254); X (n, w), first and second (w, n).

    An empty `weight` is one of ones, an empty `second` is left out.
    """
    n, w = X.shape
    for col in prange(w):
        largest = np.float32(0)
        for i in range(n):
            f = weight[i] if len(weight) else np.float32(1)
            largest = max(largest, abs(f * X[i, col]))
        scale[col], inverse = _scale(np.float32(0), largest, 127, NEAREST)
        for i in range(n):
            f = weight[i] if len(weight) else np.float32(1)
            code, digit = _encode(f * X[i, col] * inverse, 127, NEAREST)
            first[col, i] = np.int8(code)
            if len(second):
                second[col, i] = np.int8(digit)


@njit(parallel=True, cache=True)
def merge(sums: Array, f: Array, g: Array, out: Array) -> None:
    """out_il = f_i g_l (sums_il + sums_i(l+w) / 254), out (n, w)."""
    n, w = out.shape
    for i in prange(n):
        for col in range(w):
            second = np.float32(sums[i, col + w]) * np.float32(1 / 254)
            row = f[i] if len(f) else np.float32(1)
            out[i, col] = row * g[col] * (np.float32(sums[i, col]) + second)


@njit(parallel=True, cache=True, fastmath=LOOSE)
def scale_update(sums: Array, s: Array, t: Array, X: Array, Y: Array, C: Array) -> None:
    """C = s_i t_j sums_ij + (X Yᵀ)_ij; X (m, q), Y (n, q), q = 0 for no update."""
    rank = X.shape[1]
    V = np.ascontiguousarray(Y.T)
    for i in prange(C.shape[0]):
        for j in range(C.shape[1]):
            C[i, j] = s[i] * t[j] * np.float32(sums[i, j])
        fours = rank - rank % 4  # four terms a read and write of C
        for p in range(0, fours, 4):
            a, b, c, d = X[i, p], X[i, p + 1], X[i, p + 2], X[i, p + 3]
            for j in range(C.shape[1]):
                C[i, j] += a * V[p, j] + b * V[p + 1, j] + c * V[p + 2, j] + d * V[p + 3, j]
        for p in range(fours, rank):
            for j in range(C.shape[1]):
                C[i, j] += X[i, p] * V[p, j]
