# mypy: allow-untyped-decorators
"""Quantisation in Triton: codes, residual digits and scales of a matrix in one pass or two."""

from typing import Any

import torch
import triton
import triton.language as tl

LONGEST_ROW = 16384
"""Elements of a row that a program holds in registers; longer rows are read twice."""


@triton.jit
def _round(v: tl.tensor) -> tl.tensor:
    """Half to even, |v| < 2²²: float32 numbers about 1.5 · 2²³ are one apart."""
    return (v + 12582912.0) - 12582912.0


@triton.jit
def _scale(low: tl.tensor, high: tl.tensor, TOP: tl.constexpr, MODE: tl.constexpr) -> tl.tensor:
    """Of rows from -low to high: max|x| / top, 0 below 2^-126, and its reciprocal or 0; both
    rounded correctly. Signed: max|x| / (top + 1), negative where the largest is above zero."""
    largest = tl.maximum(low, high)
    levels = TOP + 1.0 if MODE == "signed" else TOP
    scale = tl.div_rn(largest, tl.full(largest.shape, levels, tl.float32))
    usable = scale >= 2.0**-126
    if MODE == "signed":
        scale = tl.where(high > low, -scale, scale)
    inverse = tl.div_rn(tl.full(largest.shape, 1.0, tl.float32), tl.where(usable, scale, 1.0))
    return tl.where(usable, scale, 0.0), tl.where(usable, inverse, 0.0), largest


@triton.jit
def _encode(
    x: tl.tensor, largest: tl.tensor, inverse: tl.tensor, TOP: tl.constexpr, MODE: tl.constexpr
) -> tl.tensor:
    """Codes q of x (rows, k), and the digits of x / scale - q, which lie within ±127 of themselves.

    max|x| · (1 / scale) may fall just below `top`, so truncation pins the largest elements there.
    """
    v = x * inverse[:, None]
    if MODE == "truncate":
        pinned = (tl.abs(x) == largest[:, None]) & (inverse > 0.0)[:, None]
        q = tl.where(pinned, tl.where(x < 0.0, -1.0, 1.0) * TOP, v.to(tl.int32).to(tl.float32))
        digit = _round(127.0 * (v - q))
    elif MODE == "signed":
        q = tl.minimum(_round(v), TOP * 1.0)
        digit = _round(127.0 * (v - q))
    else:
        q = _round(v)
        digit = _round(254.0 * (v - q))
    return q.to(tl.int8), digit.to(tl.int8)


@triton.jit
def _quantize_rows(
    X: tl.tensor,
    codes: tl.tensor,
    digits: tl.tensor,
    scales: tl.tensor,
    rows: tl.tensor,
    k: tl.tensor,
    stride_row: tl.tensor,
    stride_k: tl.tensor,
    TOP: tl.constexpr,
    MODE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Whole rows in registers: one read of X."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.arange(0, BLOCK_K)
    inside = (row < rows)[:, None] & (column < k)[None, :]
    x = tl.load(X + row[:, None] * stride_row + column[None, :] * stride_k, mask=inside, other=0.0)
    scale, inverse, largest = _scale(-tl.min(x, axis=1), tl.max(x, axis=1), TOP, MODE)
    q, digit = _encode(x, largest, inverse, TOP, MODE)
    target = row[:, None] * k + column[None, :]
    tl.store(codes + target, q, mask=inside)
    if digits is not None:
        tl.store(digits + target, digit, mask=inside)
    tl.store(scales + row, scale, mask=row < rows)


@triton.jit
def _extremes(
    X: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    rows: tl.tensor,
    k: tl.tensor,
    stride_row: tl.tensor,
    stride_k: tl.tensor,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """max(-x) and max(x) per row, tile by tile, into zeros: maxima are the same in any order."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.program_id(1).to(tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = (row < rows)[:, None] & (column < k)[None, :]
    x = tl.load(X + row[:, None] * stride_row + column[None, :] * stride_k, mask=inside, other=0.0)
    tl.atomic_max(low + row, -tl.min(x, axis=1), mask=row < rows, sem="relaxed")
    tl.atomic_max(high + row, tl.max(x, axis=1), mask=row < rows, sem="relaxed")


@triton.jit
def _quantize_tiles(
    X: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    codes: tl.tensor,
    digits: tl.tensor,
    scales: tl.tensor,
    rows: tl.tensor,
    k: tl.tensor,
    stride_row: tl.tensor,
    stride_k: tl.tensor,
    TOP: tl.constexpr,
    MODE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Codes from the known extremes; a tile is read along X's contiguous axis, written along k."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.program_id(1).to(tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = (row < rows)[:, None] & (column < k)[None, :]
    x = tl.load(X + row[:, None] * stride_row + column[None, :] * stride_k, mask=inside, other=0.0)
    least = tl.load(low + row, mask=row < rows, other=0.0)
    most = tl.load(high + row, mask=row < rows, other=0.0)
    scale, inverse, largest = _scale(least, most, TOP, MODE)
    q, digit = _encode(x, largest, inverse, TOP, MODE)
    target = row[:, None] * k + column[None, :]
    tl.store(codes + target, q, mask=inside)
    if digits is not None:
        tl.store(digits + target, digit, mask=inside)
    tl.store(scales + row, scale, mask=(row < rows) & (tl.program_id(1) == 0))


def quantize(
    X: torch.Tensor,
    bits: int,
    rounding: str,
    codes: torch.Tensor,
    digits: torch.Tensor | None,
    scale: torch.Tensor,
) -> None:
    """X (rows, k) float32, any strides -> int8 codes and digits (or None), (rows, k) row-major.

    scale = max|x| / top per row, top = 2^(bits-1) - 1; where that is below 2^-126 all three are 0.
    'nearest': q = round(x · (1 / scale)), ties to even, digit = round(254 (x / scale - q));
    'truncate': q = trunc(x · (1 / scale)), largest at ±top, digit = round(127 (x / scale - q));
    'signed': scale = -x_max / (top + 1) with x_max the element of largest magnitude, q as to
    nearest but at most top, digit = round(127 (x / scale - q)).
    So X ≈ scale (q + digit / 254), or scale (q + digit / 127), to half a unit of the digit.
    """
    rows, k = X.shape
    results = (codes, digits, scale, rows, k, *X.stride())
    options: dict[str, Any] = dict(TOP=2 ** (bits - 1) - 1, MODE=rounding)
    options["enable_fp_fusion"] = False  # x · (1 / scale) is rounded before anything uses it
    if k <= LONGEST_ROW and X.stride(1) <= X.stride(0):
        width = max(triton.next_power_of_2(k), 16)
        height = max(4096 // width, 1)
        options.update(BLOCK_ROWS=height, BLOCK_K=width, num_warps=max(width // 1024, 4))
        _quantize_rows[(triton.cdiv(rows, height),)](X, *results, **options)
    else:
        tile: dict[str, Any] = dict(BLOCK_ROWS=64, BLOCK_K=128, num_warps=8)
        grid = (triton.cdiv(rows, 64), triton.cdiv(k, 128))
        low, high = torch.zeros_like(scale), torch.zeros_like(scale)
        _extremes[grid](X, low, high, rows, k, *X.stride(), **tile)
        _quantize_tiles[grid](X, low, high, *results, **options, **tile)
