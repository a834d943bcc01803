"""Both residuals kept whole, in float32: the ceiling of every first-order compensator.

    C ≈ Ã B̃ + Ã R_B + R_A B̃    error R_A R_B

Costs two float products, so it is no method to use: it shows what a rank short of full leaves out.
Source: arXiv 2403.06924 starts from the full residual before it makes it sparse.
"""

from typing import Any

from lrqmm._checks import Array
from lrqmm.products.composition import Preset
from lrqmm.products.cost import Cost
from lrqmm.products.parts import Compensator, Operand
from lrqmm.products.phases import phase


class FullResidual(Compensator):
    """First-order compensation with the residuals themselves."""

    def correct(self, A: Operand, B: Operand, prepared: Any) -> Array:
        left, right = A.residual, B.residual
        with phase("correct"):
            return A.approx @ right + left @ B.approx

    def cost(self, m: int, k: int, n: int) -> Cost:
        both = m * k + k * n
        moved = 17 * both + 8 * m * n
        return Cost(float_operations=4 * m * k * n, bytes=moved, operand_bits=32 * both)


METHOD = Preset(
    "full_residual",
    title="full residual (ceiling)",
    short="full residual",
    compensator=FullResidual,
    cites=("gu2024sparse",),
    usual=True,
)
