"""ARHQ: the low-rank part of B that the activations' own rounding errors meet, in high precision.

    C ≈ Ã Q(B - L) + A L,    L = S⁻¹ [S B]_r,  S = (E[e eᵀ])^(1/2),  e = x - x̃

makes E ‖e (B - L)‖², the error that quantised activations cause, as small as rank r can: the mirror
image of the term R_A B that LRQMM compensates, chosen offline.
Source: Wang, Sun, Sakaguchi, arXiv 2605.00140, as described; details unverified.
"""

from array_api_compat import array_namespace

from lrqmm._checks import Array
from lrqmm.methods.qera import QERA
from lrqmm.products.composition import Preset
from lrqmm.products.parts import Factors, Operand
from lrqmm.products.quantize import Quantizer
from lrqmm.products.weightside import best_low_rank


class ARHQ(QERA):
    """The metric of the activations' residual; the weight's low-rank part is taken out first."""

    def quantize_right(
        self, B: Array, quantizer: Quantizer, calibration: Array | None
    ) -> tuple[Operand, Factors | None]:
        rank = self.rank_of(*map(int, B.shape))
        if rank == 0:
            return Operand.quantize(B, quantizer, right=True, calibration=calibration), None
        lost = Operand.quantize(calibration, quantizer.left).residual
        xp = array_namespace(lost)
        metric = self.fitted_metric(lost) if bool(xp.any(lost != 0)) else None
        factors = self.stored(best_low_rank(B, rank, metric))
        operand = Operand.quantize(B, quantizer, right=True, calibration=calibration, taken=factors)
        return operand, factors


METHOD = Preset("arhq", title="ARHQ", compensator=ARHQ, cites=("wang2026arhq",))
