"""HQQ: the zero point of each group that makes a sparse norm of the residual smallest.

    min over z of Σ |w - scale (q - z)|^p,  p = 0.7,    q = clip(round(w / scale + z))

by half-quadratic splitting, in units of the scale: e = w/scale - (q - z),
    e ← sign(e) max(0, |e| - |e|^(p-1) / β),    z ← mean(q - (w/scale - e)),    β ← 1.01 β.
Activations are uniform at `bits_a`. Data-free.
Source: Badri, Shaji, "Half-Quadratic Quantization" (2023). In its public code β acts on weights as
they are, so what it does depends on their size: the smaller they are, the nearer a step is to one
that only makes residuals average out. Here they are divided by the scale first, and β is small.
"""

from dataclasses import dataclass
from types import ModuleType

from lrqmm._checks import Array
from lrqmm._parameters import number, one_of, whole
from lrqmm.products.composition import Preset
from lrqmm.products.quantize import SCALE_BITS, Encoded, WeightOnly, usable_scale
from lrqmm.products.scaling import in_float32, in_float64

P = 0.7
GROWTH = 1.01


@dataclass(frozen=True, kw_only=True)
class HQQ(WeightOnly):
    """Affine levels, the zero point searched.

    Parameters
    ----------
    iterations : of the splitting
    beta : β at the first one
    ends_on : 'mean', the zero point of the last mean step, whose residuals average out, as the
        hqq package's does; 'norm', the one with the smallest norm of all, which is better by the
        formula and worse for products of one-sided data
    """

    granularity: str = "group:64"
    iterations: int = whole(20, 0)
    beta: float = number(1.0, 1e-3, 1e6)
    ends_on: str = one_of("mean", "mean", "norm")

    @property
    def offsets(self) -> bool:
        return True

    def stored_bits(self, rows: int, k: int) -> int:
        """With a float32 zero point beside each scale."""
        return super().stored_bits(rows, k) + SCALE_BITS * self._scales(rows, k)

    def encode(self, xp: ModuleType, x: Array, axes: tuple[int, ...]) -> Encoded:
        bottom, levels = -(2 ** (self.bits - 1)), 2**self.bits - 1
        low, high = (f(x, axis=axes, keepdims=True) for f in (xp.min, xp.max))
        scale, divisor = usable_scale(xp, (high - low) / levels)
        w = in_float64(x) / in_float64(divisor)  # where a search ends, sums decide

        def codes(z: Array) -> Array:
            return xp.clip(xp.round(w + z), bottom, bottom + levels)

        def missed(z: Array) -> Array:
            return xp.sum(xp.abs(w - (codes(z) - z)) ** P, axis=axes, keepdims=True)

        z = bottom - in_float64(low) / divisor
        best, least, beta = z, missed(z), self.beta
        for _ in range(self.iterations):
            q = codes(z)
            e = w - (q - z)
            size = xp.abs(e)
            shrunk = size - xp.clip(size, min=1e-8) ** (P - 1) / beta
            e = xp.sign(e) * xp.clip(shrunk, min=0.0)
            z = xp.mean(q - (w - e), axis=axes, keepdims=True)
            error = missed(z)
            best, least = xp.where(error < least, z, best), xp.where(error < least, error, least)
            beta *= GROWTH
        if self.ends_on == "mean":
            best = z
        # a constant group is its value
        offset = xp.where(scale > 0, in_float32(-scale * best), low)
        return xp.where(scale > 0, in_float32(codes(best)), xp.zeros_like(x)), scale, offset


METHOD = Preset("hqq", title="HQQ", quantizer=HQQ, cites=("badri2023hqq",))
