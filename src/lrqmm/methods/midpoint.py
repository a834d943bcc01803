"""Truncation with midpoint dequantisation: a code stands for the middle of what it covers.

    x ≈ sign(x) scale (t + 1/2),    t = ⌊|x| / scale⌋

What truncation loses on average is given back in the dequantisation, for free. With its sign, t
has 2^b levels, the odd integers ±(2t + 1), and none of them is zero: an exact zero becomes
+scale/2, which costs on sparse data. The odd integers need b + 1 bits in the integer product; at
8 bits that is nine, and the product runs as four 8-bit ones.
Source: classical (the mid-rise quantiser).
"""

from types import ModuleType

from lrqmm._checks import Array
from lrqmm.products.composition import Preset
from lrqmm.products.quantize import Encoded, Quantizer, scale_to_top, truncate


class Midpoint(Quantizer):
    """Symmetric, truncating; dequantises to the middle of the interval that a code covers."""

    @property
    def code_bits(self) -> int:
        return self.bits + 1

    def encode(self, xp: ModuleType, x: Array, axes: tuple[int, ...]) -> Encoded:
        scaled, scale, largest = scale_to_top(xp, x, axes, 2 ** (self.bits - 1) - 1)
        odd = 2 * truncate(xp, xp.abs(scaled), xp.abs(x) == largest) + 1
        return xp.where(x < 0, -odd, odd), scale / 2, None


METHOD = Preset("midpoint", quantizer=Midpoint, cites=("lrqmm_bench",), usual=True)
