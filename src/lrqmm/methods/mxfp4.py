"""MXFP4: four-bit floats (E2M1) in blocks of 32 with a power of two as scale.

Source: OCP Microscaling Formats v1.0; Rouhani et al., arXiv 2310.10537.
"""

from lrqmm.products.composition import Preset
from lrqmm.products.minifloat import E2M1, Microscaling


class MXFP4(Microscaling):
    """E2M1 with block scales."""

    FORMAT = E2M1
    bits = 4


METHOD = Preset("mxfp4", title="MXFP4", quantizer=MXFP4, cites=("ocp2023mx", "rouhani2023mx"))
