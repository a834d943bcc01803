"""Product-aware LRQMM (ours): low-rank parts of the residuals chosen for the error of the product.

What must be small is not R_A but R_A B. Both operands are at hand, so take the product's range:

    Q = orth(R_A B (Bᵀ R_Aᵀ R_A B)^q Ω),   L_A = Q Qᵀ R_A,
    P = orth of the row space of Ã R_B,    L_B = R_B P Pᵀ;
    C ≈ Ã B̃ + Ã L_B + L_A B̃ + L_A L_B    (the same terms as `lrqmm`)

With oversampling, Q and P are cut to the r directions that hold most of QᵀR_A B and ÃR_B P.
Data-free and O(n² r), about 4(2q + 1)(r + p)kn more operations than `lrqmm`. It needs m and n well
above r. For the weight side the objective ‖A(R_B - L)‖ is that of QERA-exact (arXiv 2410.06040) and
EoRA (arXiv 2410.21271) with the operand itself as calibration; ours are both sides, at every call,
by a sketch of the product instead of a k x k eigendecomposition.
Source: this project.
"""

from typing import Any

from lrqmm._checks import Array
from lrqmm.products.composition import Preset
from lrqmm.products.cost import Cost
from lrqmm.products.decompose import svd
from lrqmm.products.lowrank import LEFT, RIGHT, LowRank
from lrqmm.products.parts import Factors, Operand
from lrqmm.products.phases import phase
from lrqmm.products.rsvd import range_basis, sketch_matrix


class LRQMMAware(LowRank):
    """Factors from the range of R_A B and the row space of Ã R_B: best in the product's norm."""

    together = True
    span = "product"

    def left_factors(self, A: Operand, B: Operand) -> Factors:
        Q = self._basis(A.residual, B.exact, self.rank_of(*A.shape), LEFT)
        with phase("sketch"):
            return Q, Q.T @ A.residual

    def right_factors(self, A: Operand, B: Operand, prepared: Any) -> Factors:
        # the range of (Ã R_B)ᵀ
        P = self._basis(B.residual.T, A.approx.T, self.rank_of(*B.shape), RIGHT)
        with phase("sketch"):
            return B.residual @ P, P.T

    def _basis(self, R: Array, X: Array, rank: int, side: int) -> Array:
        """Orthonormal basis of the r dominant left directions of R X, R (a x k), X (k x b)."""
        width = min(rank + self.oversampling, *R.shape, X.shape[1])
        omega = sketch_matrix(R, X.shape[1], width, self.sketch, (self.seed, side))
        Q = range_basis(
            lambda V: R @ (X @ V), lambda U: X.T @ (R.T @ U), omega, self.power_iterations
        )
        if width <= rank:
            return Q
        with phase("sketch"):
            small = (Q.T @ R) @ X
        with phase("factorize"):
            return Q @ svd(small)[0][:, :rank]

    def cost(self, m: int, k: int, n: int) -> Cost:
        if self.rank == 0:
            return Cost()
        ra, rb, wide_a, wide_b = self._widths(m, k, n)
        passes = 2 * self.power_iterations + 1 + bool(self.oversampling)
        both = m * k + k * n
        sketches = 2 * passes * both * (wide_a + wide_b) + 2 * (m * k * ra + k * n * rb)
        moved = 9 * both + 4 * (2 * passes + 1) * both
        return Cost(float_operations=sketches, bytes=moved) + self._update_cost(m, k, n)


METHOD = Preset(
    "lrqmm_aware",
    title="product-aware LRQMM (ours)",
    short="product-aware",
    compensator=LRQMMAware,
    cites=("lrqmm_bench", "gu2024lrqmm", "zhang2024qera", "liu2024eora"),
    usual=True,
)
