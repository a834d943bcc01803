"""MXFP6: six-bit floats (E2M3) in blocks of 32 with a power of two as scale.

Source: OCP Microscaling Formats v1.0; Rouhani et al., arXiv 2310.10537.
"""

from lrqmm.products.composition import Preset
from lrqmm.products.minifloat import E2M3, Microscaling


class MXFP6(Microscaling):
    """E2M3 with block scales."""

    FORMAT = E2M3
    bits = 6


METHOD = Preset("mxfp6", title="MXFP6", quantizer=MXFP6, cites=("ocp2023mx", "rouhani2023mx"))
