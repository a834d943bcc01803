"""Affine quantisation: an integer zero point, so that one-sided data uses all of the levels.

    x ≈ scale (q - z),    scale = (max - min) / (2^b - 1),  0 a level

`direct` with another default; after a ReLU the cheap rival of every compensator.
Source: Jacob et al., arXiv 1712.05877.
"""

from dataclasses import dataclass

from lrqmm.products.composition import Preset
from lrqmm.products.quantize import Uniform


@dataclass(frozen=True, kw_only=True)
class Affine(Uniform):
    """Equally spaced levels from the minimum to the maximum, zero among them."""

    zero_point: str | None = "integer"


METHOD = Preset("affine", quantizer=Affine, cites=("jacob2017quantization",))
