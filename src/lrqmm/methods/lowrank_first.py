"""Low rank first: a low-rank part of B is taken out before the rest is quantised.

    C ≈ Ã Q(B - L) + A L,    L = [B]_r;    then in turns  L ← [B - Q̃]_r,  Q ← Q(B - L)

Outliers go into L, so the rest has a smaller range; the turns give L what quantisation threw away
too, and the pair with the smallest ‖B - L - Q̃‖ is kept. With a smoothing before it this is
SVDQuant. Data-free. Cost: one SVD per turn, once per weight.
Source: Li et al., SVDQuant, arXiv 2411.05007, without its smoothing.
"""

from dataclasses import dataclass

from lrqmm._checks import Array
from lrqmm._parameters import whole
from lrqmm.products.composition import Preset
from lrqmm.products.parts import Factors, Operand
from lrqmm.products.quantize import Quantizer
from lrqmm.products.scaling import energy
from lrqmm.products.weightside import WeightSide, best_low_rank


@dataclass(frozen=True, kw_only=True)
class LowRankFirst(WeightSide):
    """B = L + Q̃ + what is lost.

    Parameters
    ----------
    iterations : turns after the first
    """

    calibrated = False

    iterations: int = whole(10, 0)

    def quantize_right(
        self, B: Array, quantizer: Quantizer, calibration: Array | None
    ) -> tuple[Operand, Factors | None]:
        rank = self.rank_of(*map(int, B.shape))
        if rank == 0:
            return Operand.quantize(B, quantizer, right=True, calibration=calibration), None
        best, least, target = None, float("inf"), B
        for _ in range(1 + self.iterations):
            factors = self.stored(best_low_rank(target, rank, None))
            operand = Operand.quantize(
                B, quantizer, right=True, calibration=calibration, taken=factors
            )
            error = energy(operand.residual)
            if best is None or error < least:
                best, least = operand, error
            target = B - operand.approx
        assert best is not None
        return best, best.taken


METHOD = Preset("lowrank_first", compensator=LowRankFirst, cites=("li2024svdquant",))
