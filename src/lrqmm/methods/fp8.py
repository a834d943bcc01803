"""float8_e4m3fn operands, one scale per row of A and per column of B, as `torch._scaled_mm` has
them.

    C = diag(s) a b diag(t), rounded to bfloat16;  X ≈ scale · codes, scale = max|x| / 448

`fp8_f32` is the same without that rounding.

On CUDA of compute capability 8.9 or higher the product runs in float8, with fast sums (about 14
bits: they cost less than the codes' rounding); this has never been run on a GPU. On any other
torch device the same codes are multiplied in float32: the error means something there, the time
does not. The passes that quantise are torch's own, not fused, and count as part of the time.

Source: the format is that of Micikevicius et al. (arXiv 2209.05433); one scale per vector: torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lrqmm._checks import Array, Unsupported
from lrqmm.products.backends import library_of
from lrqmm.products.cost import Cost
from lrqmm.products.floatproduct import FloatProduct
from lrqmm.products.phases import phase
from lrqmm.products.scaling import near_one

if TYPE_CHECKING:
    import torch  # in the functions: slow to load, and planning a study needs none of it

SMALLEST_SCALE = 2.0**-133
LARGEST = 448.0
"""The largest float8_e4m3fn."""

Coded = tuple["torch.Tensor", "torch.Tensor"]
"""Codes (rows, k) float8_e4m3fn and scale (rows, 1) float32."""


def encode(X: torch.Tensor) -> Coded:
    """X (rows, k) float32, any strides -> row-major codes and scale, X ≈ scale · codes.

    The scale is 0 where it would be below 2^-133, which has 16 bits. Errors: 2^-4 |x|, and
    scale 2^-10 near 0.
    """
    import torch

    scale = X.abs().amax(dim=1, keepdim=True) / LARGEST
    usable = scale >= SMALLEST_SCALE
    codes = X / scale.where(usable, torch.inf)
    row_major = torch.contiguous_format
    return codes.to(torch.float8_e4m3fn, memory_format=row_major), scale.where(usable, 0.0)


def in_float8(left: Coded, right: Coded) -> torch.Tensor:
    """The product of A (m, k) and Bᵀ (n, k) by `torch._scaled_mm`; (m, n) bfloat16."""
    import torch

    (a, s), (b, t) = _balanced(left, right)
    m, n = a.shape[0], b.shape[0]
    s, t = _padded(s, columns=1), _padded(t, columns=1)
    C = torch._scaled_mm(
        _padded(a), _padded(b).T, s, t.T, out_dtype=torch.bfloat16, use_fast_accum=True
    )
    return C[:m, :n]


def _padded(x: torch.Tensor, columns: int = 16) -> torch.Tensor:
    """With zeros up to a multiple of 16 rows, and of `columns`, as `_scaled_mm` asks for."""
    rows, k = x.shape
    if rows % 16 == 0 and k % columns == 0:
        return x
    padded = x.new_zeros((rows + -rows % 16, k + -k % columns))
    padded[:rows, :k] = x
    return padded


def _balanced(left: Coded, right: Coded) -> tuple[Coded, Coded]:
    """The same product with scales of A near 1, so that a sum of codes times one scale is in range
    where the product is."""
    (a, s), (b, t) = left, right
    s, power = near_one(s)
    return (a, s), (b, t * power)


def in_float32(left: Coded, right: Coded) -> torch.Tensor:
    """The same product with the codes multiplied in float32; (m, n) float32."""
    from lrqmm.products.backends.torch import exact_float32

    (a, s), (b, t) = _balanced(left, right)
    with exact_float32():
        return s * (a.float() @ b.float().T) * t.T


def has_float8(device: torch.device) -> bool:
    """Whether `in_float8` is fast here."""
    import torch

    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


@dataclass(frozen=True)
class Float8(FloatProduct):
    """C = A B through float8; what is prepared are the codes of Bᵀ.

    Attributes
    ----------
    rounded : whether the result is rounded to bfloat16
    """

    rounded: bool = True

    def _prepare(self, B: Array, calibration: Array | None, *, scratch: bool) -> Coded:
        if library_of(B) != "torch":
            raise Unsupported(f"{library_of(B)} has no float8 product; torch has one")
        with phase("quantize"):
            return encode(B.T)

    def _multiply(self, A: Array, prepared: Coded, out: Array | None) -> Array:
        with phase("quantize"):
            left = encode(A)
        with phase("product"):
            if self.emulated(A):
                C = in_float32(left, prepared)
                C = C.bfloat16() if self.rounded else C
            else:
                C = in_float8(left, prepared)
            return C.float() if out is None else out.copy_(C)

    def emulated(self, like: Array) -> bool:
        return library_of(like) == "torch" and not (self.rounded and has_float8(like.device))

    def cost(self, m: int, k: int, n: int) -> Cost:
        both = m * k + k * n
        moved = 5 * both + both + 4 * m * n  # quantise, multiply
        held = 8 * both + 32 * (m + n)
        return Cost(float_operations=2 * m * k * n, bytes=moved, operand_bits=held)


METHOD = Float8(
    "fp8",
    "float8",
    title="float8 (e4m3)",
    short="float8",
    needs="torch arrays",
    cites=("micikevicius2022fp8",),
    usual=True,
)
