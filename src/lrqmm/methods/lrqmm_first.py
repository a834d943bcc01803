"""LRQMM with the low-rank parts taken out first (ours): A and B less L_A and L_B are quantised.

    L_A = [A]_r, L_B = [B]_r by randomised SVD;    C ≈ (Q(A - L_A) + L_A) (Q(B - L_B) + L_B)

The same products as `lrqmm`, in another order: what the factors hold makes the range of the rest
smaller, while `lrqmm` repairs what the range of the whole has cost. Data-free, at every call.
Source: this project; for stored weights the idea is SVDQuant's (arXiv 2411.05007).
"""

from lrqmm._checks import Array
from lrqmm.methods.lrqmm import LRQMM
from lrqmm.products.composition import Preset
from lrqmm.products.cost import Cost
from lrqmm.products.lowrank import LEFT, RIGHT
from lrqmm.products.parts import Factors, Operand
from lrqmm.products.quantize import Quantizer
from lrqmm.products.scaling import in_float32, in_float64


class LRQMMFirst(LRQMM):
    """Factors from the operands themselves, before they are quantised."""

    span = None

    def _first(self, X: Array, side: int) -> Factors:
        """Factors of X, in float64 and then rounded: what they leave of X is quantised."""
        U, V = self._factors(in_float64(X), self.rank_of(*map(int, X.shape)), side)
        return in_float32(U), in_float32(V)

    def quantize_left(self, A: Array, quantizer: Quantizer) -> Operand:
        if self.rank == 0 or "a" not in self.sides:
            return super().quantize_left(A, quantizer)
        return Operand.quantize(A, quantizer, taken=self._first(A, LEFT))

    def quantize_right(
        self, B: Array, quantizer: Quantizer, calibration: Array | None
    ) -> tuple[Operand, Factors | None]:
        if self.rank == 0 or "b" not in self.sides:
            return Operand.quantize(B, quantizer, right=True, calibration=calibration), None
        V, U = self._first(B.T, RIGHT)
        factors = (U.T, V.T)
        operand = Operand.quantize(B, quantizer, right=True, calibration=calibration, taken=factors)
        return operand, factors

    def cost(self, m: int, k: int, n: int) -> Cost:
        ra, rb = self.ranks(m, k, n)
        return super().cost(m, k, n) + Cost(float_operations=2 * (m * k * ra + k * n * rb))

    def left_factors(self, A: Operand, B: Operand) -> Factors:
        assert A.taken is not None
        return A.taken


METHOD = Preset(
    "lrqmm_first",
    compensator=LRQMMFirst,
    cites=("lrqmm_bench", "gu2024lrqmm", "li2024svdquant"),
)
