# mypy: allow-untyped-decorators
"""Packing and unpacking on CUDA, in Triton; `lrqmm.products.packing` has the format."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from lrqmm.products.packing.layout import BLOCK, LANES, WIDTH, packed_length

PIECES = 16
"""Pieces of a row, of up to 512 codes, that a program packs."""


@triton.jit
def _pack(
    codes: tl.tensor,
    packed: tl.tensor,
    fits: tl.tensor,
    k: tl.tensor,
    length: tl.tensor,
    pieces: tl.tensor,
    bits: tl.constexpr,
    width: tl.constexpr,
    many: tl.constexpr,
) -> None:
    """A few pieces of one row."""
    row = tl.program_id(0).to(tl.int64)
    piece = tl.program_id(1) * many + tl.arange(0, many)
    lane_width = tl.minimum((k - piece * (8 * width) + 7) // 8, width)  # of the last piece, less
    i = tl.arange(0, width)
    inside = (piece < pieces)[:, None] & (i[None, :] < lane_width[:, None])
    total = tl.zeros((many, width), tl.int64)
    bad = tl.zeros((many, width), tl.int32)
    for j in tl.static_range(8):
        c = piece[:, None] * (8 * width) + j * lane_width[:, None] + i[None, :]
        code = tl.load(codes + row * k + c, mask=inside & (c < k), other=0).to(tl.int32)
        bad |= ((code + (1 << (bits - 1))) & 255) >> bits
        total |= (code & ((1 << bits) - 1)).to(tl.int64) << (bits * j)
    for t in tl.static_range(bits):
        p = piece[:, None] * (bits * width) + t * lane_width[:, None] + i[None, :]
        byte = ((total >> (8 * t)) & 255).to(tl.uint8)
        tl.store(packed + row * length + p, byte, mask=inside)
    worst = tl.max(tl.max(bad, axis=1), axis=0)
    if worst > 0:
        tl.store(fits, 0)


@triton.jit
def _unpack(
    packed: tl.tensor,
    codes: tl.tensor,
    k: tl.tensor,
    length: tl.tensor,
    pieces: tl.tensor,
    bits: tl.constexpr,
    width: tl.constexpr,
    many: tl.constexpr,
) -> None:
    """A few pieces of one row."""
    row = tl.program_id(0).to(tl.int64)
    piece = tl.program_id(1) * many + tl.arange(0, many)
    lane_width = tl.minimum((k - piece * (8 * width) + 7) // 8, width)
    i = tl.arange(0, width)
    inside = (piece < pieces)[:, None] & (i[None, :] < lane_width[:, None])
    total = tl.zeros((many, width), tl.int64)
    for t in tl.static_range(bits):
        p = piece[:, None] * (bits * width) + t * lane_width[:, None] + i[None, :]
        byte = tl.load(packed + row * length + p, mask=inside, other=0).to(tl.int64)
        total |= byte << (8 * t)
    half: tl.constexpr = 1 << (bits - 1)
    for j in tl.static_range(8):
        c = piece[:, None] * (8 * width) + j * lane_width[:, None] + i[None, :]
        code = ((((total >> (bits * j)) & ((1 << bits) - 1)) ^ half) - half).to(tl.int8)
        tl.store(codes + row * k + c, code, mask=inside & (c < k))


def pack(codes: Tensor, bits: int) -> tuple[Tensor, bool]:
    """(..., k) int8 to (..., bits ⌈k / 8⌉) uint8, and whether all codes fit."""
    k = codes.shape[-1]
    packed, flat = _empty(codes, packed_length(k, bits), torch.uint8), codes.contiguous()
    fits = torch.ones(1, dtype=torch.int32, device=codes.device)
    if packed.numel():
        _pack[_grid(flat, k)](
            flat, packed, fits, k, packed.shape[-1], _pieces(k), bits, WIDTH, PIECES
        )
    return packed, bool(fits)


def unpack(packed: Tensor, bits: int, k: int) -> Tensor:
    """(..., bits ⌈k / 8⌉) uint8 to (..., k) int8."""
    codes, flat = _empty(packed, k, torch.int8), packed.contiguous()
    if codes.numel():
        _unpack[_grid(codes, k)](flat, codes, k, packed.shape[-1], _pieces(k), bits, WIDTH, PIECES)
    return codes


def _empty(like: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    return torch.empty((*like.shape[:-1], length), dtype=dtype, device=like.device)


def _pieces(k: int) -> int:
    return -(-k // BLOCK)


def _grid(codes: Tensor, k: int) -> Any:
    assert LANES * WIDTH == BLOCK
    return (codes.numel() // k, triton.cdiv(_pieces(k), PIECES))
