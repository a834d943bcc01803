"""LQER: the low-rank part of the weight's residual, plain.

    C ≈ Ã B̃ + A [R_B]_r

Data-free, best in ‖R_B - L‖. Factors in float32, or in 8 bits by column (MXINT blocks there).
Source: Zhang et al., arXiv 2402.02446; the same correction in ZeroQuant-V2, arXiv 2303.08302.
"""

from lrqmm.products.composition import Preset
from lrqmm.products.weightside import WeightSide


class LQER(WeightSide):
    """The metric is the identity."""

    calibrated = False


METHOD = Preset("lqer", title="LQER", compensator=LQER, cites=("zhang2024lqer", "yao2023zeroquant"))
