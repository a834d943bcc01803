"""SVDQuant: smoothing, then a low-rank part of the weight taken out before the rest is quantised.

    A B = (A diag(1/s)) (diag(s) B),    C ≈ Ã' Q(B' - L) + A' L

A preset of `smoothquant` and `lowrank_first`; the smoothing's exponent is `alpha`, which the paper
searches on a grid.
Source: Li et al., arXiv 2411.05007 (there with groups of 64, rank 32, L in 16 bits).
"""

from lrqmm.methods.lowrank_first import LowRankFirst
from lrqmm.methods.smoothquant import SmoothQuant
from lrqmm.products.composition import Preset

METHOD = Preset(
    "svdquant",
    title="SVDQuant",
    compensator=LowRankFirst,
    transform=SmoothQuant,
    cites=("li2024svdquant", "xiao2022smoothquant"),
)
