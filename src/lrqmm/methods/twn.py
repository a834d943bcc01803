"""Ternary weights by a threshold: small weights are zero, the others share their mean magnitude.

    q = sign(w) where |w| > 0.7 mean|w|, else 0;    scale = mean of |w| over those

Activations are uniform at `bits_a`. For the exact ternary quantiser (with a scale that is a power
of two) see `lbw` at 2 bits.
Source: Li, Zhang, Liu, "Ternary weight networks", arXiv 1605.04711; as in BCGD, arXiv 1808.05240.
"""

from dataclasses import dataclass, field
from types import ModuleType

from lrqmm._checks import Array
from lrqmm._parameters import whole
from lrqmm.products.composition import Preset
from lrqmm.products.quantize import Encoded, WeightOnly
from lrqmm.products.scaling import near_one

THRESHOLD = 0.7


@dataclass(frozen=True, kw_only=True)
class TWN(WeightOnly):
    """Two bits per weight, three levels."""

    bits: int = field(default=2, init=False)
    bits_a: int | None = whole(8, 2, 8)

    def encode(self, xp: ModuleType, x: Array, axes: tuple[int, ...]) -> Encoded:
        x, power = near_one(x, axes)
        size = xp.abs(x)
        large = size > THRESHOLD * xp.mean(size, axis=axes, keepdims=True)
        codes = xp.where(large, xp.sign(x), xp.zeros_like(x))
        count = xp.sum(xp.abs(codes), axis=axes, keepdims=True)
        scale = xp.sum(size * xp.abs(codes), axis=axes, keepdims=True) / xp.clip(count, min=1.0)
        return codes, power * scale, None


METHOD = Preset("twn", title="TWN", quantizer=TWN, cites=("li2016twn", "yin2018bcgd"))
