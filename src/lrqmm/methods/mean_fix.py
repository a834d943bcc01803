"""Mean correction: rank one from the residuals' row and column means, no SVD.

    L_A = (row means of R_A) 1ᵀ,  L_B = 1 (column means of R_B)ᵀ;
    C ≈ Ã B̃ + Ã L_B + L_A B̃ + L_A L_B

Where quantisation leaves a residual of one sign this is nearly all that a rank-one LRQMM finds, so
it is the honest baseline of `lrqmm` at small ranks. Cost: sums, and one rank-two update.
Source: this project; the same idea is folded into every affine quantiser's zero point.
"""

from array_api_compat import array_namespace

from lrqmm._checks import Array
from lrqmm.products.composition import Preset
from lrqmm.products.cost import Cost
from lrqmm.products.parts import Compensator, Operand, compensate
from lrqmm.products.phases import phase


class MeanFix(Compensator):
    """Compensates the mean of each row of R_A and of each column of R_B."""

    span = "means"

    def prepare(self, B: Operand, calibration: Array | None) -> Array:
        residual = B.residual
        with phase("sketch"):
            return array_namespace(residual).mean(residual, axis=0, keepdims=True)

    def correct(self, A: Operand, B: Operand, prepared: Array) -> Array:
        xp = array_namespace(A.exact)
        residual = A.residual
        with phase("sketch"):
            row_means = xp.mean(residual, axis=1, keepdims=True)
        root = 2.0 ** (int(residual.shape[1]).bit_length() // 2)  # so that sums stay in range
        ones = xp.ones_like(residual[:1, :]) / root
        left, right = (root * row_means, ones), (ones.T, root * prepared)
        return compensate(A, B, left, right, terms="full")

    def cost(self, m: int, k: int, n: int) -> Cost:
        update = 2 * (m * k + k * n + 2 * m * n) + 2 * (k + m)
        moved = 9 * (m * k + k * n) + 8 * m * n
        return Cost(float_operations=update, bytes=moved, operand_bits=32 * (m + n))


METHOD = Preset("mean_fix", compensator=MeanFix, cites=("lrqmm_bench",), usual=True)
