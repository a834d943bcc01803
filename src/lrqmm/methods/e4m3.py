"""float8 E4M3 (three mantissa bits, up to 448) as a quantiser for any library, one scale
per vector.

    x ≈ scale f,    scale = max|x| / 448,  f the nearest float8

It composes with transforms and compensators; `fp8` is the product that hardware runs.
Source: Micikevicius et al., arXiv 2209.05433.
"""

from lrqmm.products.composition import Preset
from lrqmm.products.minifloat import E4M3 as FLOAT8
from lrqmm.products.minifloat import Minifloat


class E4M3(Minifloat):
    """float8 with one float32 scale per vector."""

    FORMAT = FLOAT8


METHOD = Preset("e4m3", title="E4M3", quantizer=E4M3, cites=("micikevicius2022fp8",))
