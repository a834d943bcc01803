"""The fused path on a CPU: compiled passes, and integer products by kernels of this project.

Where those do not run (see `gemm`), products are `torch._int_mm`'s, with the thin ones inside the
big one.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from lrqmm.fused import gemm, passes, thin
from lrqmm.fused import whole as compiled
from lrqmm.fused.coded import UNIT, Coded
from lrqmm.fused.kernels import Buffers, Plan, Update
from lrqmm.products.backends import torch as backend
from lrqmm.products.phases import phase

PASSES = passes.implementation()
"""What the passes are written in."""

PRODUCTS = gemm.described() if gemm.usable() else ""
"""How integer products are computed; '' for as torch does."""

OFFSETS = True
"""Operands may have offsets: zero points, means of residuals."""

_NUMPY = {torch.int8: np.int8, torch.int32: np.int32, torch.float32: np.float32}


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """An uninitialised tensor, of that dtype and on the CPU whatever torch's defaults are.

    NumPy asks for huge pages, which makes large fresh ones cheaper.
    """
    return torch.from_numpy(np.empty(shape, _NUMPY[dtype]))


def take(
    space: Buffers | None, name: str, shape: tuple[int, ...], dtype: torch.dtype
) -> torch.Tensor:
    """A tensor from the work space, which grows where it is too small; a fresh one without one."""
    if space is None:
        return empty(shape, dtype)
    size = int(np.prod(shape))
    if name not in space or space[name].numel() < size:
        space[name] = empty((size,), dtype)
    flat: torch.Tensor = space[name]
    return flat[:size].view(shape)


def quantize(
    X: torch.Tensor,
    bits: int,
    rounding: str,
    *,
    rank: int,
    residual: bool,
    zero_point: bool = False,
    space: Buffers | None = None,
) -> Coded:
    """X (rows, k) float32 as int8 codes, with room for `rank` thin rows and digits of its residual.

    scale = max|x| / (2^(bits-1) - 1) a row, 0 where that is below 2^-126;
    'nearest': q = round(x / scale), d = round(254 (x / scale - q));
    'truncate': q = trunc(x / scale) with the extremes at the top, d = round(127 (x / scale - q));
    'signed': scale = -x_max / 2^(bits-1) with x_max the element of largest magnitude, q = round(x /
    scale) up to 2^(bits-1) - 1, d = round(127 (x / scale - q)).
    A value within float32 rounding of a tie may go either way. With a zero point, to nearest only,
    scale = (max(x, 0) - min(x, 0)) / (2^bits - 1), zero = round(-min(x, 0) / scale) - 2^(bits-1)
    and q = round(x / scale) + zero, d = round(254 (x / scale - q + zero)).
    """
    with phase("quantize"):
        if zero_point:
            X = X.contiguous()
        if X.stride(1) != 1 and X.stride(0) != 1:
            X = X.contiguous()
        rows, k = X.shape
        tall = rows + rank
        by_rows = X.stride(1) == 1
        room = take(space, "codes", (tall, k) if by_rows else (k, tall), torch.int8)
        digits = None
        if residual:
            digits = take(space, "digits", (rows, k) if by_rows else (k, rows), torch.int8)
        scale = empty((rows,), torch.float32)
        top = 2 ** (bits - 1) - 1
        if zero_point:
            zero = empty((rows,), torch.float32)
            passes.quantize_rows_affine(X, top, room, digits, scale, zero)
            return Coded(room, digits, scale, UNIT[rounding], -scale * zero)
        if by_rows:
            passes.quantize_rows(X, top, rounding, room, digits, scale)
            return Coded(room, digits, scale, UNIT[rounding])
        passes.quantize_columns(X.T, top, rounding, room, digits, scale)
        return Coded(room.T, None if digits is None else digits.T, scale, UNIT[rounding])


def pack(right: Coded, space: Buffers | None) -> None:
    """Put the codes of a right operand into the layout of the kernels."""
    if not gemm.usable():
        return
    with phase("quantize"):
        codes = right.codes.T
        panels = None if space is None else take(space, "panels", gemm.size(codes), torch.int8)
        right.packed = gemm.pack(codes, panels)


def int_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a (m, k) int8, b (n, k) int8 -> a bᵀ (m, n) int32, exact."""
    if a.stride(1) == 1:
        return _int_mm(a, b.T)
    return _int_mm(b, a.T).T  # a left operand has its rows in memory


def thin_product(t: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    """t (w, rows) int8, r (rows, k) int8 -> t r (w, k) int32, exact."""
    if r.stride(1) == 1:
        return _int_mm(t, r)
    return _int_mm(r.T, t.T).T


def _int_mm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if gemm.usable():
        return gemm.product(a, b)
    product: torch.Tensor = backend.integer_matmul(a, b)
    return product


@lru_cache(maxsize=16)
def signs(rows: int, width: int, sketch: str, seed: tuple[int, ...]) -> torch.Tensor:
    """Ωᵀ (width, rows) int8."""
    return torch.from_numpy(thin.signs(rows, width, sketch, seed))


def two_digits(X: torch.Tensor, weight: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Thin X (n, w) in two digits (2w, n): weight_i X_il = scale_l (first_li + second_li / 254)."""
    n, w = X.shape
    codes, scale = empty((2 * w, n), torch.int8), empty((w,), torch.float32)
    passes.thin_codes(X.contiguous(), weight, codes[:w], codes[w:], scale)
    return codes, scale


def one_digit(X: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Thin X (n, w) rounded into int8 `codes` (w, n); returns the scales (w,)."""
    scale = empty((X.shape[1],), torch.float32)
    passes.thin_codes(X.contiguous(), None, codes, None, scale)
    return scale


def merge(sums: torch.Tensor, f: torch.Tensor | None, g: torch.Tensor) -> torch.Tensor:
    """f_i g_l (sums_il + sums_i(l+w) / 254) for the sums (n, 2w) of two digits; (n, w) float32."""
    out = empty((sums.shape[0], sums.shape[1] // 2), torch.float32)
    passes.merge(sums, f, g, out)
    return out


def orthonormal(Y: torch.Tensor) -> torch.Tensor:
    """Orthonormal basis of a thin matrix's columns: Cholesky QR in float64, else Householder QR.

    The loss of orthogonality of Cholesky QR is eps κ(Y)² (Yamamoto et al. 2015): in float64 one
    pass is enough up to κ = 1e5, beyond that Householder takes over.
    """
    with phase("factorize"):
        Y = Y.double()
        lower, failed = torch.linalg.cholesky_ex(Y.T @ Y)
        pivots = lower.diagonal()
        if int(failed) or float(pivots.min()) < 1e-5 * float(pivots.max()):
            basis = torch.linalg.qr(Y).Q
        else:
            basis = torch.linalg.solve_triangular(lower, Y.T, upper=False).T
        rounded: torch.Tensor = basis.to(torch.float32)
        return rounded


def compensate(right: Coded, rank: int, options: Any, side: int) -> bool:
    """Put the low-rank part of a right operand into it by one call; False where none does it."""
    if not gemm.usable() or options.oversampling:
        return False
    return compiled.compensate(right, rank, options, side)


def whole(
    A: torch.Tensor, right: Coded, plan: Plan, out: torch.Tensor | None, space: Buffers
) -> torch.Tensor | None:
    """The product in one call; None where that does not cover it."""
    if not compiled.covers(plan, right):
        return None
    A = _rows(A)
    m, k = A.shape
    C = empty((m, right.rows), torch.float32) if out is None else out
    both = take(space, "both", (2 * m * k,), torch.int8)
    return C if compiled.multiply(A, right, plan, C, both) else None


def multiply(
    left: Coded, right: Coded, update: Update, out: torch.Tensor | None, space: Buffers
) -> torch.Tensor:
    """C = diag(s) q pᵀ diag(t) + X Yᵀ, (m, n) float32, with `update` giving X and Y."""
    m, n = left.rows, right.rows
    C = empty((m, n), torch.float32) if out is None else out
    if right.packed is not None:
        codes, thin_codes = _rows(left.codes), _rows(left.thin)
        with phase("correct"):
            qw = gemm.product(codes, right.thin.T) if right.rank else None
            pv = gemm.product(thin_codes, right.packed).T if left.rank else None
            vw = gemm.product(thin_codes, right.thin.T) if left.rank and right.rank else None
            X, Y = update(qw, pv, vw)
            X, Y = X.contiguous(), Y.contiguous()
        with phase("product"):
            gemm.scaled_product(codes, right.packed, left.scale, right.scale, X, Y, C)
        return C
    with phase("product"):
        shape = (m + left.rank, n + right.rank)
        sums = take(space, "sums", shape, torch.int32)
        backend.integer_matmul(left.stack, right.stack.T, out=sums)
    X, Y = update(sums[:m, n:], sums[m:, :n].T, sums[m:, n:])
    with phase("correct" if X.shape[1] else "product"):
        passes.scale_update(sums, left.scale, right.scale, X.contiguous(), Y.contiguous(), C)
    return C


def _rows(x: torch.Tensor) -> torch.Tensor:
    """With its rows in memory; copied where they are not."""
    return x if x.stride(1) == 1 else x.contiguous()
