"""LRQMM: low-rank approximations of both residuals compensate the direct product.

    L_A = rank-r part of R_A,  L_B = rank-r part of R_B,  each by randomised SVD;
    C ≈ Ã B̃ + Ã L_B + L_A B̃ + L_A L_B

Cost: sketches 2 (2q + 2)(r + p)(mk + kn) and update 2r(mk + kn + 2mn) operations, so O(n²).
Source: Gu, "LRQMM", arXiv 2409.18772. Its full text was not available to us: terms, rank, power
iterations, rounding and granularity are our reading, and parameters.
"""

from typing import ClassVar

from lrqmm._checks import Array
from lrqmm.products.composition import Preset
from lrqmm.products.cost import Cost
from lrqmm.products.lowrank import LEFT, RIGHT, LowRank
from lrqmm.products.parts import Factors, Operand, Span
from lrqmm.products.rsvd import rsvd


class LRQMM(LowRank):
    """Factors from the residuals themselves: best in ‖R - L‖."""

    span: ClassVar[Span | None] = "residual"

    def prepare(self, B: Operand, calibration: Array | None) -> Factors | None:
        if self.rank == 0 or "b" not in self.sides:
            return None
        U, V = self._factors(B.residual.T, self.rank_of(*B.shape), RIGHT)
        return V.T, U.T

    def left_factors(self, A: Operand, B: Operand) -> Factors:
        return self._factors(A.residual, self.rank_of(*A.shape), LEFT)

    def right_factors(self, A: Operand, B: Operand, prepared: Factors) -> Factors:
        return prepared

    def _factors(self, R: Array, rank: int, side: int) -> Factors:
        """U (rows x r) and V (r x columns) of R, in R's dtype."""
        U, s, Vt = rsvd(
            R,
            rank,
            oversampling=self.oversampling,
            power_iterations=self.power_iterations,
            sketch=self.sketch,
            seed=(self.seed, side),
        )
        return U, s[:, None] * Vt

    def cost(self, m: int, k: int, n: int) -> Cost:
        if self.rank == 0:
            return Cost()
        _, _, wide_a, wide_b = self._widths(m, k, n)
        passes = 2 * self.power_iterations + 2
        sketches = 2 * passes * (m * k * wide_a + k * n * wide_b)
        residuals = 9 * (m * k + k * n)  # codes and floats in, residual out
        moved = residuals + 4 * passes * (m * k + k * n)
        return Cost(float_operations=sketches, bytes=moved) + self._update_cost(m, k, n)


METHOD = Preset(
    "lrqmm",
    title="LRQMM (paper)",
    short="LRQMM",
    compensator=LRQMM,
    cites=("gu2024lrqmm",),
    usual=True,
)
