"""MXFP8: eight-bit floats (E4M3) in blocks of 32 with a power of two as scale.

Source: OCP Microscaling Formats v1.0; Rouhani et al., arXiv 2310.10537.
"""

from lrqmm.products.composition import Preset
from lrqmm.products.minifloat import E4M3, Microscaling


class MXFP8(Microscaling):
    """E4M3 with block scales."""

    FORMAT = E4M3
    bits = 8


METHOD = Preset("mxfp8", title="MXFP8", quantizer=MXFP8, cites=("ocp2023mx", "rouhani2023mx"))
