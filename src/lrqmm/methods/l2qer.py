"""L2QER: the weight's residual, its rows weighted by how large the activations are that meet them.

    L = S⁻¹ [S R_B]_r,    S = diag(s),  s_i = mean|x_i| / sqrt(min s · max s)

Source: Zhang et al., "LQER", arXiv 2402.02446 (there the largest mean of several batches).
"""

from array_api_compat import array_namespace

from lrqmm._checks import Array
from lrqmm.products.composition import Preset
from lrqmm.products.weightside import Metric, WeightSide


class L2QER(WeightSide):
    """A diagonal metric of mean magnitudes."""

    def metric(self, sample: Array) -> Metric:
        xp = array_namespace(sample)
        s = xp.clip(xp.mean(xp.abs(sample), axis=0), min=1e-6)
        s = s / (xp.min(s) * xp.max(s)) ** 0.5
        return s, 1 / s


METHOD = Preset("l2qer", title="L2QER", compensator=L2QER, cites=("zhang2024lqer",))
