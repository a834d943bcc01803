"""The fused path on CUDA, in Triton: a quantising pass, thin products, a product with its update.

Quantisation writes codes and residual digits in one pass (`triton_quantize`); the big product
scales its int32 sums and adds the low-rank update before it writes a float32 result, so nothing
of size m n is held in int32 (`triton_products`); the thin steps are the library's (`thin`).
Codes lie row-major along k whatever the layout of X: tensor cores take int8 no other way.

The host waits for the device once in every `orthonormal`, and in the eigenvectors of an oversampled
sketch; product-aware LRQMM copies its sketch up at every call. The direct product does not wait,
but for the look for NaN (`check_finite`) and the first product of a shape, which tries the tiles.
Work space and what `prepare` returns belong to one stream: no event orders several.

Never run on a GPU: Triton's interpreter (TRITON_INTERPRET=1) runs the same kernels on CPU tensors,
slowly, and they compile for compute capability 9.0; no more is known.
"""

from functools import lru_cache
from typing import Any

import torch

from lrqmm.fused import thin, triton_quantize
from lrqmm.fused.coded import UNIT, Coded
from lrqmm.fused.kernels import Buffers, Plan, Update
from lrqmm.fused.thin import merge, one_digit, orthonormal, take, two_digits
from lrqmm.fused.triton_products import INTERPRETED, int_product, scaled_product, thin_product
from lrqmm.products.phases import phase

__all__ = [
    "compensate", "int_product", "merge", "multiply", "one_digit", "orthonormal", "pack",
    "quantize", "signs", "thin_product", "two_digits", "whole",
]  # fmt: skip

PASSES = "Triton"
"""What the passes are written in."""

PRODUCTS = "Triton (int8 tl.dot, int32 sums)"
"""How integer products are computed."""

OFFSETS = False
"""Operands have no offsets: no zero points, no means of residuals."""


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

    Formulas as in `triton_quantize.quantize`.
    """
    assert not zero_point, "refused where an operand is prepared"
    with phase("quantize"):
        rows, k = X.shape
        room = take(space, "codes", (rows + rank, k), X)
        digits = take(space, "digits", (rows, k), X) if residual else None
        scale = torch.empty(rows, dtype=torch.float32, device=X.device)
        triton_quantize.quantize(X, bits, rounding, room[:rows], digits, scale)
        return Coded(room, digits, scale, UNIT[rounding])


def pack(right: Coded, space: Buffers | None) -> None:
    """Nothing: codes lie as tensor cores take them."""


def signs(rows: int, width: int, sketch: str, seed: tuple[int, ...]) -> torch.Tensor:
    """Ωᵀ (width, rows) int8, on the current device."""
    device = "cpu" if INTERPRETED else f"cuda:{torch.cuda.current_device()}"
    return _signs(device, rows, width, sketch, seed)


@lru_cache(maxsize=16)
def _signs(device: str, rows: int, width: int, sketch: str, seed: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(thin.signs(rows, width, sketch, seed)).to(device)


def compensate(right: Coded, rank: int, options: Any, side: int) -> bool:
    """Nothing, as `whole`."""
    return False


def whole(
    A: torch.Tensor, right: Coded, plan: Plan, out: torch.Tensor | None, space: Buffers
) -> None:
    """Nothing: steps are queued one by one, and the host does not wait for them."""


def multiply(
    left: Coded, right: Coded, update: Update, out: torch.Tensor | None, space: Buffers
) -> torch.Tensor:
    """C = diag(s) q pᵀ diag(t) + X Yᵀ, (m, n) float32, with `update` giving X and Y.

    The thin products are apart from the big one, whose update needs them; `space` is not needed.
    """
    with phase("correct"):
        qw = int_product(left.codes, right.thin)
        pv = int_product(right.codes, left.thin)
        vw = int_product(left.thin, right.thin)
    X, Y = update(qw, pv, vw)
    with phase("product"):
        scales = left.scale, right.scale
        C = scales[0].new_empty((left.rows, right.rows)) if out is None else out
        scaled_product(left.codes, right.codes, *scales, X, Y, C)
    return C
