"""Sparse residuals: of what quantisation threw away, the largest entries only.

    C ≈ Ã B̃ + Ã S_B + S_A B̃,    S: the entries of R of largest magnitude, `density` of all

The direct ancestor of LRQMM: sparse where that is of low rank. The products with S run dense here,
so their time is an upper bound; the modelled operations count S's entries only.
Source: Gu, arXiv 2403.06924 (there by a threshold on the relative error; here by density).
"""

from dataclasses import dataclass

from array_api_compat import array_namespace

from lrqmm._checks import Array
from lrqmm._parameters import number
from lrqmm.products.composition import Preset
from lrqmm.products.cost import Cost
from lrqmm.products.parts import Compensator, Operand
from lrqmm.products.phases import phase

INDEX_BITS = 32


@dataclass(frozen=True, kw_only=True)
class SparseResidual(Compensator):
    """First-order compensation with the residuals' largest entries.

    Parameters
    ----------
    density : fraction of the entries that is kept, 0 to 1
    """

    density: float = number(0.05, 0.0, 1.0)

    def prepare(self, B: Operand, calibration: Array | None) -> Array:
        return self._sparse(B.residual)

    def correct(self, A: Operand, B: Operand, prepared: Array) -> Array:
        left = self._sparse(A.residual)
        with phase("correct"):
            return A.approx @ prepared + left @ B.approx

    def _sparse(self, R: Array) -> Array:
        xp = array_namespace(R)
        with phase("sketch"):
            count = round(self.density * R.shape[0] * R.shape[1])
            if count == 0:
                return xp.zeros_like(R)
            size = xp.reshape(xp.abs(R), (-1,))
            smallest = xp.sort(size)[size.shape[0] - count]
            return xp.where(xp.abs(R) >= smallest, R, xp.zeros_like(R))

    def cost(self, m: int, k: int, n: int) -> Cost:
        entries = round(self.density * (m * k + k * n))
        operations = 2 * round(self.density * m * k * n) * 2
        moved = 9 * (m * k + k * n) + 8 * m * n
        held = (32 + INDEX_BITS) * entries
        return Cost(float_operations=operations, bytes=moved, operand_bits=held)


METHOD = Preset("sparse_residual", compensator=SparseResidual, cites=("gu2024sparse",))
