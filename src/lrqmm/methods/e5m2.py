"""float8 E5M2 (two mantissa bits, up to 57344) as a quantiser for any library, one scale
per vector.

    x ≈ scale f,    scale = max|x| / 57344,  f the nearest float8

It composes with transforms and compensators; `fp8` is the product that hardware runs.
Source: Micikevicius et al., arXiv 2209.05433.
"""

from lrqmm.products.composition import Preset
from lrqmm.products.minifloat import E5M2 as FLOAT8
from lrqmm.products.minifloat import Minifloat


class E5M2(Minifloat):
    """float8 with one float32 scale per vector."""

    FORMAT = FLOAT8


METHOD = Preset("e5m2", title="E5M2", quantizer=E5M2, cites=("micikevicius2022fp8",))
