"""Two slices: the residual is quantised too, at the same bits, and three integer products are kept.

    C ≈ Ã B̃ + Ã B̃₂ + Ã₂ B̃,    Ã₂ = Q(R_A), B̃₂ = Q(R_B)

The honest rival of a low-rank correction: three integer GEMMs instead of one, no structure needed.
Source: the leading terms of Ozaki-style split-integer products (Ootomo, Ozaki, Yokota,
doi:10.1177/10943420241239588), with the library's scales.
"""

from lrqmm._checks import Array
from lrqmm.products.composition import Preset
from lrqmm.products.cost import Cost
from lrqmm.products.parts import Compensator, Operand, product_of_second_slices
from lrqmm.products.quantized import Quantized


class SecondSlice(Compensator):
    """The residuals at the operands' own bits."""

    slices = 2

    def prepare(self, B: Operand, calibration: Array | None) -> Quantized:
        return B.quantize_residual()

    def correct(self, A: Operand, B: Operand, prepared: Quantized) -> Array:
        return product_of_second_slices(A, B, prepared)

    def cost(self, m: int, k: int, n: int) -> Cost:
        both = m * k + k * n
        gemm = 2 * (both + 4 * m * n) + 16 * m * n
        return Cost(integer_operations=4 * m * k * n, bytes=9 * both + 5 * both + gemm)


METHOD = Preset(
    "two_slice", title="two slices", compensator=SecondSlice, cites=("ootomo2024dgemm",), usual=True
)
