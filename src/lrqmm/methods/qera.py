"""QERA: the weight's residual in the metric of the layer's output; of all L of rank r the best.

    exact:     L = S⁻¹ [S R_B]_r,    S = (E[x xᵀ])^(1/2)       minimises E ‖x (R_B - L)‖²
    diagonal:  the same with S = diag(sqrt(E[x_i²]))           where the x_i are uncorrelated

Cost: an eigendecomposition k x k and an SVD, once per weight.
Source: Zhang et al., arXiv 2410.06040 (QERA-exact and QERA-approx).
"""

from dataclasses import dataclass

from array_api_compat import array_namespace

from lrqmm._checks import Array
from lrqmm._parameters import one_of
from lrqmm.products.composition import Preset
from lrqmm.products.weightside import Metric, WeightSide, second_moment


@dataclass(frozen=True, kw_only=True)
class QERA(WeightSide):
    """The metric of the sample's second moments.

    Parameters
    ----------
    moments : 'exact' or 'diagonal'
    """

    moments: str = one_of("exact", "exact", "diagonal")

    def metric(self, sample: Array) -> Metric:
        xp = array_namespace(sample)
        if self.moments == "diagonal":
            s = xp.clip(xp.mean(sample**2, axis=0) ** 0.5, min=1e-6)
            return s, 1 / s
        values, Q = second_moment(sample)
        root = values**0.5
        return (Q * root) @ Q.T, (Q / root) @ Q.T


METHOD = Preset("qera", title="QERA", compensator=QERA, cites=("zhang2024qera",))
