"""SRR: the rank divided between a part taken out before quantising and one that repairs it after.

    C ≈ Ã Q(B - L₁) + A (L₁ + L₂),    L₁ = S⁻¹[S B]_k,  L₂ = S⁻¹[S (B - L₁ - Q̃)]_(r-k)
    k = argmin ρ_k(S B) ρ_(r-k)(S E),    E uniform in [-1, 1],  ρ_p(X) = energy of X beyond rank p

so k = 0 is quantisation with repair (QERA) and k = r taking out alone (SVDQuant). The rule predicts
the error of each k from one SVD of S B and one of a random E.
Source: arXiv 2602.02001, from its description; its code was not available to us.
"""

from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace, device

from lrqmm._checks import Array
from lrqmm._parameters import whole
from lrqmm.methods.qera import QERA
from lrqmm.products.composition import Preset
from lrqmm.products.decompose import singular_values
from lrqmm.products.parts import Factors, Operand
from lrqmm.products.quantize import Quantizer
from lrqmm.products.scaling import near_one
from lrqmm.products.weightside import Metric, apply_metric, best_low_rank


@dataclass(frozen=True, kw_only=True)
class SRR(QERA):
    """Rank split by the rule above.

    Parameters
    ----------
    seed : of E
    """

    seed: int = whole(0, 0)

    def split(self, B: Array, rank: int, metric: Metric) -> int:
        """k, from 0 to the rank."""
        xp = array_namespace(B)
        chances = np.random.Generator(np.random.Philox(self.seed))
        E = xp.asarray(chances.uniform(-1, 1, tuple(B.shape)), device=device(B))
        beyond = []
        for X in (near_one(xp.astype(B, xp.float64))[0], E):
            energy = singular_values(apply_metric(metric[0], X) if metric else X) ** 2
            beyond.append(xp.flip(xp.cumulative_sum(xp.flip(energy))))
        rho = [[float(x[p]) if p < x.shape[0] else 0.0 for p in range(rank + 1)] for x in beyond]
        return min(range(rank + 1), key=lambda k: rho[0][k] * rho[1][rank - k])

    def quantize_right(
        self, B: Array, quantizer: Quantizer, calibration: Array | None
    ) -> tuple[Operand, Factors | None]:
        rank = self.rank_of(*map(int, B.shape))
        if rank == 0:
            return Operand.quantize(B, quantizer, right=True, calibration=calibration), None
        xp = array_namespace(B)
        metric = self.fitted_metric(calibration)
        first = self.split(B, rank, metric)
        removed = self.stored(best_low_rank(B, first, metric))
        operand = Operand.quantize(B, quantizer, right=True, calibration=calibration, taken=removed)
        repair = self.stored(best_low_rank(operand.residual, rank - first, metric))
        return operand, (
            xp.concat([removed[0], repair[0]], axis=1),
            xp.concat([removed[1], repair[1]], axis=0),
        )


METHOD = Preset("srr", title="SRR", compensator=SRR, cites=("cho2026srr",))
