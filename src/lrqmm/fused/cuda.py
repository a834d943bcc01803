"""Kernels of the fused path on CUDA, in Triton: quantisation in one pass, integer products, update.

Operands lie `rows x k`, the right one as Bᵀ. int8 products are fast where k is contiguous and a
multiple of 16, and right for any strides. Sums are int32: k up to (2³¹ - 1) / 127².

Under Triton's interpreter (TRITON_INTERPRET=1) the same kernels run on CPU tensors, slowly.
Source: this project; the order of tiles is that of Triton's matrix multiplication tutorial.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lrqmm._checks import Unsupported

try:
    import triton
    import triton.language as tl
except ImportError:  # no wheel for this system: every call raises Unsupported
    triton = None

LONGEST_ROW = 16384
"""Elements of a row that a program holds in registers; longer rows are read twice."""

PIECE = 1024
"""Rows that `thin_product` sums in float32: 1024 · 128² = 2²⁴, up to which integers are exact."""

E4M3_MAX = 448.0
"""The largest float8_e4m3fn."""

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


def _jit(function: Callable[..., Any]) -> Kernel:
    return function if triton is None else triton.jit(function)


def _interpreted() -> bool:
    return bool(triton is not None and triton.knobs.runtime.interpret)


def _tuned(
    names: tuple[str, ...], tiles: tuple[tuple[int, ...], ...], key: list[str], **options: Any
) -> Callable[[Kernel], Kernel]:
    """Times a kernel's tiles once for every value of `key` and keeps the answers on disk."""

    def decorate(kernel: Kernel) -> Kernel:
        if triton is None:
            return kernel
        configs = [
            triton.Config(dict(zip(names, sizes, strict=True)), num_warps=warps, num_stages=stages)
            for *sizes, warps, stages in tiles
        ]
        return triton.autotune(configs, key=key, cache_results=True, **options)(kernel)

    return decorate


def _fitting(configs: list[Any], arguments: dict[str, Any], **_: Any) -> list[Any]:
    """Thin tiles for thin products, the others for the rest."""
    thin = min(arguments["M"], arguments["N"]) <= THIN_SIDE
    return [c for c in configs if thin == (min(c.kwargs["BLOCK_M"], c.kwargs["BLOCK_N"]) <= 32)]


def _product_tiles(key: list[str]) -> Callable[[Kernel], Kernel]:
    tiles = ((32, 32, 64, 4, 1),) if _interpreted() else WIDE + THIN  # nothing is timed there
    names = ("BLOCK_M", "BLOCK_N", "BLOCK_K")
    return _tuned(names, tiles, key, prune_configs_by={"early_config_prune": _fitting})


# quantisation


@_jit
def _round(v: tl.tensor) -> tl.tensor:
    """Half to even, |v| < 2²²: float32 numbers about 1.5 · 2²³ are one apart."""
    return (v + 12582912.0) - 12582912.0


@_jit
def _scale(largest: tl.tensor, TOP: tl.constexpr) -> tl.tensor:
    """max|x| / top a row, 0 below 2^-126, and its reciprocal or 0; both rounded correctly."""
    scale = tl.div_rn(largest, tl.full(largest.shape, TOP, tl.float32))
    usable = scale >= 2.0**-126
    inverse = tl.div_rn(tl.full(largest.shape, 1.0, tl.float32), tl.where(usable, scale, 1.0))
    return tl.where(usable, scale, 0.0), tl.where(usable, inverse, 0.0)


@_jit
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


@_jit
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


@_jit
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


@_jit
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
    X: torch.Tensor, bits: int, rounding: str, *, residual: bool
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """X (rows, k) float32, any strides -> codes, digits (or None) int8 (rows, k), scale (rows,).

    scale = max|x| / top a row, top = 2^(bits-1) - 1; where that is below 2^-126 all three are 0.
    'nearest': q = round(x · (1 / scale)), ties to even, digit = round(254 (x / scale - q));
    'truncate': q = trunc(x · (1 / scale)), largest at ±top, digit = round(127 (x / scale - q)).
    So X ≈ scale (q + digit / 254), or scale (q + digit / 127), to half a unit of the digit.
    """
    _check(X)
    rows, k = X.shape
    codes = torch.empty((rows, k), dtype=torch.int8, device=X.device)
    digits = torch.empty_like(codes) if residual else None
    scale = torch.empty(rows, dtype=torch.float32, device=X.device)
    results = (codes, digits, scale, rows, k, *X.stride())
    options: dict[str, Any] = dict(TOP=2 ** (bits - 1) - 1, TRUNCATE=rounding == "truncate")
    options["enable_fp_fusion"] = False  # x · (1 / scale) is rounded before anything uses it
    if k <= LONGEST_ROW and X.stride(1) <= X.stride(0):
        width = max(triton.next_power_of_2(k), 16)
        height = max(4096 // width, 1)
        options.update(BLOCK_ROWS=height, BLOCK_K=width, num_warps=max(width // 1024, 4))
        _launch(_quantize_rows, (_tiles(rows, height),), X, *results, **options)
    else:
        tile: dict[str, Any] = dict(BLOCK_ROWS=64, BLOCK_K=128, num_warps=8)
        grid = (_tiles(rows, 64), max(_tiles(k, 128), 1))
        largest = torch.zeros_like(scale)
        _launch(_largest, grid, X, largest, rows, k, *X.stride(), **tile)
        _launch(_quantize_tiles, grid, X, largest, *results, **options, **tile)
    return codes, digits, scale


# products


@_jit
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


@_jit
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
@_jit
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
    _check(a)
    (m, k), n = a.shape, b.shape[0]
    C = torch.empty((m, n), dtype=torch.int32, device=a.device)
    _launch(_int_product, _grid(m, n), a, b, C, m, n, k, *a.stride(), *b.stride())
    return C


@_jit
def _high(x: tl.tensor) -> tl.tensor:
    """The leading 11 bits of x, which TF32 holds; the rest of x is exact too in float32."""
    return (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)


@_product_tiles(["M", "N", "K", "Q"])
@_jit
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
    X: torch.Tensor | None = None,
    Y: torch.Tensor | None = None,
) -> torch.Tensor:
    """C = diag(s) a bᵀ diag(t) + X Yᵀ, (m, n) float32, written once.

    a (m, k), b (n, k) int8; s (m,), t (n,) float32; X (m, q), Y (n, q) float32 or None.
    Errors: 2^-22 of |s_i t_j (a bᵀ)_ij|, and about (q + 16) 2^-22 of (|X| |Y|ᵀ)_ij.
    """
    _check(a)
    (m, k), n = a.shape, b.shape[0]
    C = torch.empty((m, n), dtype=torch.float32, device=a.device)
    q = 0 if X is None else X.shape[1]
    thin = (0, 0, 0, 0) if X is None or Y is None else (*X.stride(), *Y.stride())
    sizes = (m, n, k, q, *a.stride(), *b.stride(), *thin)
    _launch(_scaled_product, _grid(m, n), a, b, s, t, X, Y, C, *sizes)
    return C


def _thin_tiles() -> tuple[tuple[int, ...], ...]:
    if _interpreted():
        return ((64, 64, 4, 1),)
    return ((64, 64, 4, 4), (128, 64, 4, 4), (64, 128, 4, 3), (128, 128, 8, 3))


@_tuned(("BLOCK_K", "BLOCK_ROWS"), _thin_tiles(), ["w", "rows", "k"], reset_to_zero=["C"])
@_jit
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
    _check(R)
    w, (rows, k) = T.shape[0], R.shape
    C = torch.zeros((w, k), dtype=torch.int32, device=R.device)
    height = min(max(triton.next_power_of_2(w), 16), 128)

    def grid(tile: dict[str, Any]) -> tuple[int, int, int]:
        return _tiles(k, tile["BLOCK_K"]), _tiles(rows, PIECE), _tiles(w, height)

    sizes = (w, rows, k, *T.stride(), *R.stride())
    _launch(_thin_product, grid, T, R, C, *sizes, PIECE=PIECE, BLOCK_W=height)
    return C


# the rival in 8-bit floating point


def to_fp8(X: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """X (rows, k) float32 -> float8_e4m3fn codes (rows, k) and scale (rows, 1), X ≈ scale · codes.

    scale = max|x| / 448 a row, 0 where that is below 2^-126. Errors: 2^-4 |x|, scale 2^-10 near 0.
    """
    scale = X.abs().amax(dim=1, keepdim=True) / E4M3_MAX
    usable = scale >= 2.0**-126
    codes = (X / scale.where(usable, torch.inf)).to(torch.float8_e4m3fn)
    return codes, scale.where(usable, 0.0)


def fp8_product(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """C = A B of A (m, k), B (k, n) float32 through float8_e4m3fn, a scale a row of A, column of B.

    `torch._scaled_mm` rounds C to bfloat16 (2^-9); its fast sums keep about 14 bits, which is less
    than what the codes' own rounding costs. Returned as float32.
    """
    if A.device.type != "cuda" or torch.cuda.get_device_capability(A.device) < (8, 9):
        raise Unsupported("float8 products need a CUDA device of compute capability 8.9 or higher")
    m, n = A.shape[0], B.shape[1]
    a, s = to_fp8(_pad(A))
    b, t = to_fp8(_pad(B.T))
    C = torch._scaled_mm(a, b.T, s, t.T, out_dtype=torch.bfloat16, use_fast_accum=True)
    return C[:m, :n].float()


def _pad(X: torch.Tensor) -> torch.Tensor:
    """Zeros up to multiples of 16, which `_scaled_mm` asks for."""
    rows, k = X.shape
    return torch.nn.functional.pad(X, (0, -k % 16, 0, -rows % 16)).contiguous()


# launching


def _check(X: torch.Tensor) -> None:
    if triton is None:
        raise Unsupported("the fused CUDA kernels need Triton, which is not installed")
    if X.device.type != "cuda" and not _interpreted():
        raise Unsupported("the fused CUDA kernels need CUDA tensors")


def _tiles(length: int, block: int) -> int:
    return -(-length // block)


def _grid(m: int, n: int) -> Callable[[dict[str, Any]], tuple[int]]:
    return lambda tile: (_tiles(m, tile["BLOCK_M"]) * _tiles(n, tile["BLOCK_N"]),)


def _launch(kernel: Kernel, grid: Any, X: torch.Tensor, *arguments: Any, **options: Any) -> None:
    """Run a kernel on the device of X, its first argument."""
    with torch.cuda.device(X.device if X.is_cuda else -1):  # -1: no device to change to
        kernel[grid](X, *arguments, **options)
