# mypy: allow-untyped-decorators
"""Products of int8 codes in Triton: exact ones in int32, and the scaled one with its update.

Operands lie `rows x k`, the right one as Bᵀ. int8 products are fast where k is contiguous and a
multiple of 16, and right for any strides. Sums are int32: k up to (2³¹ - 1) / 127².
The order of tiles is that of Triton's matrix multiplication tutorial.
"""

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl

PIECE = 1024
"""Rows that `thin_product` sums in float32: 1024 · 128² = 2²⁴, up to which integers are exact."""

# BLOCK_M, BLOCK_N, BLOCK_K, warps, stages of the software pipeline
WIDE = (
    (128, 256, 128, 8, 3),
    (256, 128, 128, 8, 3),
    (128, 256, 64, 8, 4),
    (128, 128, 128, 8, 4),
    (128, 128, 128, 4, 3),
    (128, 64, 128, 4, 4),
    (64, 128, 128, 4, 4),
    (64, 64, 128, 4, 4),
)
THIN = (
    (32, 32, 256, 4, 4),
    (64, 32, 256, 4, 4),
    (32, 64, 256, 4, 4),
    (128, 32, 128, 4, 4),
    (32, 128, 128, 4, 4),
)
THIN_SIDE = 64  # rows or columns of a product up to which the thin tiles are tried


Kernel = Any
INTERPRETED = bool(triton.knobs.runtime.interpret)


def _tuned(
    names: tuple[str, ...], tiles: tuple[tuple[int, ...], ...], key: list[str], **options: Any
) -> Callable[[Kernel], Kernel]:
    """Times a kernel's tiles once for every value of `key` and keeps the answers on disk."""
    configs = [
        triton.Config(dict(zip(names, sizes, strict=True)), num_warps=warps, num_stages=stages)
        for *sizes, warps, stages in tiles
    ]
    tune: Callable[[Kernel], Kernel] = triton.autotune(
        configs, key=key, cache_results=True, **options
    )
    return tune


def _fitting(configs: list[Any], arguments: dict[str, Any], **_: Any) -> list[Any]:
    """Thin tiles for thin products, the others for the rest."""
    thin = min(arguments["M"], arguments["N"]) <= THIN_SIDE
    return [c for c in configs if thin == (min(c.kwargs["BLOCK_M"], c.kwargs["BLOCK_N"]) <= 32)]


def _product_tiles(key: list[str]) -> Callable[[Kernel], Kernel]:
    tiles = ((32, 32, 64, 4, 1),) if INTERPRETED else WIDE + THIN  # nothing is timed there
    names = ("BLOCK_M", "BLOCK_N", "BLOCK_K")
    return _tuned(names, tiles, key, prune_configs_by={"early_config_prune": _fitting})


@triton.jit
def _tile(
    M: tl.tensor,
    N: tl.tensor,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    GROUP: tl.constexpr = 8,
) -> tl.tensor:
    """Rows and columns of this program's tile; GROUP rows of tiles share columns of b in L2."""
    program = tl.program_id(0)
    tiles_m, tiles_n = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    first = program // (GROUP * tiles_n) * GROUP
    height = tl.minimum(tiles_m - first, GROUP)
    within = program % (GROUP * tiles_n)
    row = (first + within % height) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = within // height * BLOCK_N + tl.arange(0, BLOCK_N)
    return row.to(tl.int64), column.to(tl.int64)


@triton.jit
def _sums(
    a: tl.tensor,
    b: tl.tensor,
    row: tl.tensor,
    column: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    K: tl.tensor,
    stride_a: tl.tensor,
    stride_ak: tl.tensor,
    stride_b: tl.tensor,
    stride_bk: tl.tensor,
    BLOCK_K: tl.constexpr,
) -> tl.tensor:
    """A tile of a bᵀ in int32; rows and columns past the end wrap around, and are never stored."""
    k = tl.arange(0, BLOCK_K)
    left = a + (row % M)[:, None] * stride_a + k[None, :] * stride_ak
    right = b + (column % N)[None, :] * stride_b + k[:, None] * stride_bk
    sums = tl.zeros((row.shape[0], column.shape[0]), tl.int32)
    for start in range(0, K, BLOCK_K):
        q = tl.load(left, mask=(k < K - start)[None, :], other=0)
        p = tl.load(right, mask=(k < K - start)[:, None], other=0)
        sums = tl.dot(q, p, sums, out_dtype=tl.int32)
        left += BLOCK_K * stride_ak
        right += BLOCK_K * stride_bk
    return sums


@_product_tiles(["M", "N", "K"])
@triton.jit
def _int_product(
    a: tl.tensor,
    b: tl.tensor,
    C: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    K: tl.tensor,
    stride_a: tl.tensor,
    stride_ak: tl.tensor,
    stride_b: tl.tensor,
    stride_bk: tl.tensor,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    row, column = _tile(M, N, BLOCK_M, BLOCK_N)
    sums = _sums(a, b, row, column, M, N, K, stride_a, stride_ak, stride_b, stride_bk, BLOCK_K)
    inside = (row < M)[:, None] & (column < N)[None, :]
    tl.store(C + row[:, None] * N + column[None, :], sums, mask=inside)


def int_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a (m, k) int8, b (n, k) int8 -> a bᵀ (m, n) int32, exact."""
    (m, k), n = a.shape, b.shape[0]
    C = torch.empty((m, n), dtype=torch.int32, device=a.device)
    if C.numel():
        _int_product[_grid(m, n)](a, b, C, m, n, k, *a.stride(), *b.stride())
    return C


def _grid(m: int, n: int) -> Callable[[dict[str, Any]], tuple[int]]:
    return lambda tile: (triton.cdiv(m, tile["BLOCK_M"]) * triton.cdiv(n, tile["BLOCK_N"]),)


@triton.jit
def _high(x: tl.tensor) -> tl.tensor:
    """The leading 11 bits of x, which TF32 holds; the rest of x is exact too in float32."""
    return (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)


@_product_tiles(["M", "N", "K", "Q"])
@triton.jit
def _scaled_product(
    a: tl.tensor,
    b: tl.tensor,
    s: tl.tensor,
    t: tl.tensor,
    X: tl.tensor,
    Y: tl.tensor,
    C: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    K: tl.tensor,
    Q: tl.tensor,
    stride_a: tl.tensor,
    stride_ak: tl.tensor,
    stride_b: tl.tensor,
    stride_bk: tl.tensor,
    stride_x: tl.tensor,
    stride_xq: tl.tensor,
    stride_y: tl.tensor,
    stride_yq: tl.tensor,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_Q: tl.constexpr = 16,
) -> None:
    row, column = _tile(M, N, BLOCK_M, BLOCK_N)
    sums = _sums(a, b, row, column, M, N, K, stride_a, stride_ak, stride_b, stride_bk, BLOCK_K)
    in_m, in_n = row < M, column < N
    scale = tl.load(s + row, mask=in_m)[:, None] * tl.load(t + column, mask=in_n)[None, :]
    c = scale * sums.to(tl.float32)
    if X is not None:
        for start in range(0, Q, BLOCK_Q):
            q = start + tl.arange(0, BLOCK_Q)
            of_x = row[:, None] * stride_x + q[None, :] * stride_xq
            of_y = column[None, :] * stride_y + q[:, None] * stride_yq
            x = tl.load(X + of_x, mask=in_m[:, None] & (q < Q)[None, :], other=0.0)
            y = tl.load(Y + of_y, mask=(q < Q)[:, None] & in_n[None, :], other=0.0)
            # one TF32 product errs by 2^-10 of each term; high and low parts by 2^-18
            high_x, high_y = _high(x), _high(y)
            c = tl.dot(x - high_x, high_y, c, input_precision="tf32")
            c = tl.dot(high_x, y - high_y, c, input_precision="tf32")
            c = tl.dot(high_x, high_y, c, input_precision="tf32")
    tl.store(C + row[:, None] * N + column[None, :], c, mask=in_m[:, None] & in_n[None, :])


def scaled_product(
    a: torch.Tensor,
    b: torch.Tensor,
    s: torch.Tensor,
    t: torch.Tensor,
    X: torch.Tensor,
    Y: torch.Tensor,
    C: torch.Tensor,
) -> None:
    """C = diag(s) a bᵀ diag(t) + X Yᵀ, written once into C (m, n) float32, row-major.

    a (m, k), b (n, k) int8; s (m,), t (n,) float32; X (m, q), Y (n, q) float32, q = 0 for no
    update. Errors: 2^-22 of |s_i t_j (a bᵀ)_ij|, and about (q + 16) 2^-22 of (|X| |Y|ᵀ)_ij.
    """
    (m, k), n, q = a.shape, b.shape[0], X.shape[1]
    thin = (X, Y) if q else (None, None)  # compiled without the update
    sizes = (m, n, k, q, *a.stride(), *b.stride(), *X.stride(), *Y.stride())
    if C.numel():
        _scaled_product[_grid(m, n)](a, b, s, t, *thin, C, *sizes)


TALL = ((64, 64, 4, 4), (128, 64, 4, 4), (64, 128, 4, 3), (128, 128, 8, 3))
"""BLOCK_K, BLOCK_ROWS, warps, stages of `thin_product`."""


@_tuned(
    ("BLOCK_K", "BLOCK_ROWS"),
    ((64, 64, 4, 1),) if INTERPRETED else TALL,
    ["w", "rows", "k"],
    reset_to_zero=["C"],
)
@triton.jit
def _thin_product(
    T: tl.tensor,
    R: tl.tensor,
    C: tl.tensor,
    w: tl.tensor,
    rows: tl.tensor,
    k: tl.tensor,
    stride_t: tl.tensor,
    stride_t_row: tl.tensor,
    stride_row: tl.tensor,
    stride_k: tl.tensor,
    PIECE: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
) -> None:
    """A tile of T R over one piece of the rows.

    Tensor cores want int8 operands contiguous along the sum, which R is not; 16-bit operands they
    take either way. int8 is exact in float16, and a piece's sums are exact in float32.
    """
    column = tl.program_id(0).to(tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
    line = tl.program_id(2) * BLOCK_W + tl.arange(0, BLOCK_W)
    first = tl.program_id(1) * PIECE
    sums = tl.zeros((BLOCK_W, BLOCK_K), tl.float32)
    for start in range(first, tl.minimum(first + PIECE, rows), BLOCK_ROWS):
        row = (start + tl.arange(0, BLOCK_ROWS)).to(tl.int64)
        of_t = line[:, None] * stride_t + row[None, :] * stride_t_row
        of_r = row[:, None] * stride_row + column[None, :] * stride_k
        t = tl.load(T + of_t, mask=(line < w)[:, None] & (row < rows)[None, :], other=0)
        r = tl.load(R + of_r, mask=(row < rows)[:, None] & (column < k)[None, :], other=0)
        sums = tl.dot(t.to(tl.float16), r.to(tl.float16), sums)
    inside = (line < w)[:, None] & (column < k)[None, :]
    target = C + line[:, None] * k + column[None, :]
    tl.atomic_add(target, sums.to(tl.int32), mask=inside, sem="relaxed")  # exact in any order


def thin_product(T: torch.Tensor, R: torch.Tensor) -> torch.Tensor:
    """T (w, rows) int8, R (rows, k) int8 -> T R (w, k) int32, exact."""
    w, (rows, k) = T.shape[0], R.shape
    C = torch.zeros((w, k), dtype=torch.int32, device=R.device)
    height = min(max(triton.next_power_of_2(w), 16), 128)

    def grid(tile: dict[str, Any]) -> tuple[int, int, int]:
        return triton.cdiv(k, tile["BLOCK_K"]), triton.cdiv(rows, PIECE), triton.cdiv(w, height)

    if C.numel():
        sizes = (w, rows, k, *T.stride(), *R.stride())
        _thin_product[grid](T, R, C, *sizes, PIECE=PIECE, BLOCK_W=height)
    return C
