"""Four-bit weights with a fitted scale: levels from the maximum, their scale by least squares.

    |q| = min(7, round(7.5 |w| / max|w|)),    scale = <|w|, |q|> / ‖q‖²

The thresholds are the odd multiples of max|w| / 15. Activations are uniform at `bits_a`.
Source: Yin et al., BCGD, arXiv 1808.05240 (its quantiser; the training method is another matter).
"""

from dataclasses import dataclass, field
from types import ModuleType

from lrqmm._checks import Array
from lrqmm._parameters import whole
from lrqmm.products.composition import Preset
from lrqmm.products.quantize import Encoded, WeightOnly, usable_scale
from lrqmm.products.scaling import near_one


@dataclass(frozen=True, kw_only=True)
class BC4(WeightOnly):
    """Four bits per weight."""

    bits: int = field(default=4, init=False)
    bits_a: int | None = whole(8, 2, 8)

    def encode(self, xp: ModuleType, x: Array, axes: tuple[int, ...]) -> Encoded:
        x, power = near_one(x, axes)
        largest = xp.max(xp.abs(x), axis=axes, keepdims=True)
        _, divisor = usable_scale(xp, largest / 7.5)
        codes = xp.clip(xp.round(x / divisor), -7, 7)
        norm = xp.sum(codes * codes, axis=axes, keepdims=True)
        scale = xp.sum(x * codes, axis=axes, keepdims=True) / xp.clip(norm, min=1.0)
        return codes, power * scale, None


METHOD = Preset("bc4", quantizer=BC4, cites=("yin2018bcgd",))
