"""EoRA: the weight's residual in the eigenspace of the activations.

    G = E[x xᵀ] = Q Λ Qᵀ,    L = Q Λ^(-1/2) [Λ^(1/2) Qᵀ R_B]_r

The objective is QERA-exact's, with another root of the same matrix, so the product is the same.
Source: Liu et al., arXiv 2410.21271.
"""

from lrqmm._checks import Array
from lrqmm.products.composition import Preset
from lrqmm.products.weightside import Metric, WeightSide, second_moment


class EoRA(WeightSide):
    """The metric Λ^(1/2) Qᵀ."""

    def metric(self, sample: Array) -> Metric:
        values, Q = second_moment(sample)
        root = values**0.5
        return root[:, None] * Q.T, Q / root


METHOD = Preset("eora", title="EoRA", compensator=EoRA, cites=("liu2024eora",))
