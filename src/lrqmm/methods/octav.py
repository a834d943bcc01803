"""OCTAV: the clipping that makes the mean squared error of a vector smallest, by a recursion.

    s ← Σ_{|x|>s} |x| / (#{0<|x|≤s} / (12 top²) + #{|x|>s}),    top = 2^(b-1) - 1, scale = s / top

Rounding costs s² / (12 top²) an element, clipping (|x| - s)²; the recursion is Newton's on their
sum. The printed one has 4^-b / 3 for a grid of 2^b + 1 levels; this is the same for ours.
Source: Sakr et al., arXiv 2206.06501; at most 25 steps.
"""

from types import ModuleType

from lrqmm._checks import Array
from lrqmm.products.composition import Preset
from lrqmm.products.quantize import Encoded, Quantizer, usable_scale
from lrqmm.products.scaling import near_one

STEPS = 25


class Octav(Quantizer):
    """Symmetric levels up to the best clipping instead of the maximum; to nearest."""

    def encode(self, xp: ModuleType, x: Array, axes: tuple[int, ...]) -> Encoded:
        top = 2 ** (self.bits - 1) - 1
        x, power = near_one(x, axes)
        size = xp.abs(x)

        def total(values: Array) -> Array:
            return xp.sum(values, axis=axes, keepdims=True)

        def count(chosen: Array) -> Array:
            return total(xp.astype(chosen, xp.float32))

        s = total(size) / xp.clip(count(size > 0), min=1.0)
        for _ in range(STEPS):
            beyond = size > s
            weight = count((size > 0) & ~beyond) / (12 * top**2) + count(beyond)
            s = total(xp.where(beyond, size, xp.zeros_like(size))) / xp.clip(weight, min=1e-30)
        s = xp.where(s > 0, s, xp.max(size, axis=axes, keepdims=True))
        scale, divisor = usable_scale(xp, s / top)
        return xp.clip(xp.round(x / divisor), -top, top), power * scale, None


METHOD = Preset("octav", title="OCTAV", quantizer=Octav, cites=("sakr2022octav",))
