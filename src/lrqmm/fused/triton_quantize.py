# mypy: allow-untyped-decorators
"""Quantisation in Triton: codes, residual digits and scales of a matrix in one pass or two."""

from __future__ import annotations

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
def _scale(largest: tl.tensor, TOP: tl.constexpr) -> tl.tensor:
    """max|x| / top a row, 0 below 2^-126, and its reciprocal or 0; both rounded correctly."""
    scale = tl.div_rn(largest, tl.full(largest.shape, TOP, tl.float32))
    usable = scale >= 2.0**-126
    inverse = tl.div_rn(tl.full(largest.shape, 1.0, tl.float32), tl.where(usable, scale, 1.0))
    return tl.where(usable, scale, 0.0), tl.where(usable, inverse, 0.0)


@triton.jit
def _encode(
    x: tl.tensor, largest: tl.tensor, inverse: tl.tensor, TOP: tl.constexpr, TRUNCATE: tl.constexpr
) -> tl.tensor:
    """Codes q of x (rows, k), and the digits of x / scale - q, which lie within ±127 of themselves.

    max|x| · (1 / scale) may fall just below `top`, so truncation pins the largest elements there.
    """
    v = x * inverse[:, None]
    if TRUNCATE:
        pinned = (tl.abs(x) == largest[:, None]) & (inverse > 0.0)[:, None]
        q = tl.where(pinned, tl.where(x < 0.0, -1.0, 1.0) * TOP, v.to(tl.int32).to(tl.float32))
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
    TRUNCATE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Whole rows in registers: one read of X."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.arange(0, BLOCK_K)
    inside = (row < rows)[:, None] & (column < k)[None, :]
    x = tl.load(X + row[:, None] * stride_row + column[None, :] * stride_k, mask=inside, other=0.0)
    largest = tl.max(tl.abs(x), axis=1)
    scale, inverse = _scale(largest, TOP)
    q, digit = _encode(x, largest, inverse, TOP, TRUNCATE)
    target = row[:, None] * k + column[None, :]
    tl.store(codes + target, q, mask=inside)
    if digits is not None:
        tl.store(digits + target, digit, mask=inside)
    tl.store(scales + row, scale, mask=row < rows)


@triton.jit
def _largest(
    X: tl.tensor,
    largest: tl.tensor,
    rows: tl.tensor,
    k: tl.tensor,
    stride_row: tl.tensor,
    stride_k: tl.tensor,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """max|x| a row, tile by tile, into zeros: a maximum is the same in any order."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.program_id(1).to(tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = (row < rows)[:, None] & (column < k)[None, :]
    x = tl.load(X + row[:, None] * stride_row + column[None, :] * stride_k, mask=inside, other=0.0)
    tl.atomic_max(largest + row, tl.max(tl.abs(x), axis=1), mask=row < rows, sem="relaxed")


@triton.jit
def _quantize_tiles(
    X: tl.tensor,
    largest: tl.tensor,
    codes: tl.tensor,
    digits: tl.tensor,
    scales: tl.tensor,
    rows: tl.tensor,
    k: tl.tensor,
    stride_row: tl.tensor,
    stride_k: tl.tensor,
    TOP: tl.constexpr,
    TRUNCATE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Codes from the known maxima; a tile is read along X's contiguous axis, written along k."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.program_id(1).to(tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = (row < rows)[:, None] & (column < k)[None, :]
    x = tl.load(X + row[:, None] * stride_row + column[None, :] * stride_k, mask=inside, other=0.0)
    top = tl.load(largest + row, mask=row < rows, other=0.0)
    scale, inverse = _scale(top, TOP)
    q, digit = _encode(x, top, inverse, TOP, TRUNCATE)
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

    scale = max|x| / top a row, top = 2^(bits-1) - 1; where that is below 2^-126 all three are 0.
    'nearest': q = round(x · (1 / scale)), ties to even, digit = round(254 (x / scale - q));
    'truncate': q = trunc(x · (1 / scale)), largest at ±top, digit = round(127 (x / scale - q)).
    So X ≈ scale (q + digit / 254), or scale (q + digit / 127), to half a unit of the digit.
    """
    rows, k = X.shape
    results = (codes, digits, scale, rows, k, *X.stride())
    options: dict[str, Any] = dict(TOP=2 ** (bits - 1) - 1, TRUNCATE=rounding == "truncate")
    options["enable_fp_fusion"] = False  # x · (1 / scale) is rounded before anything uses it
    if k <= LONGEST_ROW and X.stride(1) <= X.stride(0):
        width = max(triton.next_power_of_2(k), 16)
        height = max(4096 // width, 1)
        options.update(BLOCK_ROWS=height, BLOCK_K=width, num_warps=max(width // 1024, 4))
        _quantize_rows[(triton.cdiv(rows, height),)](X, *results, **options)
    else:
        tile: dict[str, Any] = dict(BLOCK_ROWS=64, BLOCK_K=128, num_warps=8)
        grid = (triton.cdiv(rows, 64), triton.cdiv(k, 128))
        largest = torch.zeros_like(scale)
        _largest[grid](X, largest, rows, k, *X.stride(), **tile)
        _quantize_tiles[grid](X, largest, *results, **options, **tile)
