"""Binary weights: sign and mean magnitude.

    w ≈ mean|w| sign(w),    sign(0) = 1

The best scale for these signs in the mean square. Activations are uniform at `bits_a`.
Source: Rastegari et al., XNOR-Net, arXiv 1603.05279; as in BCGD, Yin et al., arXiv 1808.05240.
"""

from dataclasses import dataclass, field
from types import ModuleType

from lrqmm._checks import Array
from lrqmm._parameters import whole
from lrqmm.products.composition import Preset
from lrqmm.products.quantize import Encoded, WeightOnly
from lrqmm.products.scaling import near_one


@dataclass(frozen=True, kw_only=True)
class BinaryMean(WeightOnly):
    """One bit a weight."""

    bits: int = field(default=1, init=False)
    bits_a: int | None = whole(8, 2, 8)

    def encode(self, xp: ModuleType, x: Array, axes: tuple[int, ...]) -> Encoded:
        x, power = near_one(x, axes)
        scale = power * xp.mean(xp.abs(x), axis=axes, keepdims=True)
        return xp.where(x < 0, -xp.ones_like(x), xp.ones_like(x)), scale, None


METHOD = Preset("binary_mean", quantizer=BinaryMean, cites=("rastegari2016xnor", "yin2018bcgd"))
