"""LBW: weights of powers of two and zero, so that products are shifts; scale a power of two too.

    w ≈ 2^s q,    q in {0, ±2^(1-n), ..., ±1/2, ±1},  n = 2^(b-2)

For a pattern q the best exponent is s = ⌊log2(4 <q, w> / (3 ‖q‖²))⌋. Ternary (b = 2): of the N
patterns sign(w) on the k largest |w| the best one, exact. More bits: of every integer s the best,
each weight at its nearest level, so globally optimal; the paper's threshold ¾ max|w| is worse.
The levels are integers after division by 2^(1-n): up to 128 at 5 bits, where the product runs on
wider codes; more bits would only add levels below 2^-7 of the largest, and mean 5.
Activations are uniform at `bits_a`.
Source: Yin, Zhang, Qi, Xin, "LBW-Net", arXiv 1612.06052; the exhaustive rules: this project.
"""

from dataclasses import dataclass
from types import ModuleType

from lrqmm._checks import Array
from lrqmm.products.composition import Preset
from lrqmm.products.quantize import Encoded, WeightOnly
from lrqmm.products.scaling import power_of_two

MOST_BITS = 5


@dataclass(frozen=True, kw_only=True)
class LBW(WeightOnly):
    """Power-of-two levels.

    Parameters
    ----------
    bits : 2 to 8, of which 5 at most are used
    """

    bits: int = 4

    @property
    def octaves(self) -> int:
        """n."""
        return int(2 ** (min(self.bits, MOST_BITS) - 2))

    @property
    def code_bits(self) -> int:
        return 1 + self.octaves

    def stored_bits(self, rows: int, k: int) -> int:
        """With 5 bits a code at most."""
        unused = max(0, self.bits - MOST_BITS)
        return super().stored_bits(rows, k) - unused * rows * k

    def encode(self, xp: ModuleType, x: Array, axes: tuple[int, ...]) -> Encoded:
        if len(axes) == 3:  # one scale for all
            flat = xp.reshape(x, (1, 1, -1))
            codes, scale, _ = self.encode(xp, flat, (2,))
            return xp.reshape(codes, x.shape), scale, None
        return self._ternary(xp, x) if self.bits == 2 else self._exponents(xp, x)

    def _ternary(self, xp: ModuleType, x: Array) -> Encoded:
        size = xp.abs(x)
        ordered = -xp.sort(-size, axis=2)
        sums = xp.cumulative_sum(xp.astype(ordered, xp.float64), axis=2)
        k = xp.cumulative_sum(xp.ones_like(sums), axis=2)
        scale = power_of_two(4 * sums / (3 * k))
        gain = k * scale**2 - 2 * scale * sums  # ‖w - 2^s q‖² - ‖w‖²
        best = xp.argmin(gain, axis=2)[:, :, None]
        scale = xp.take_along_axis(scale, best, axis=2)
        rank = xp.argsort(xp.argsort(-size, axis=2, stable=True), axis=2, stable=True)
        codes = xp.where(rank <= best, xp.sign(x), xp.zeros_like(x))
        return codes, xp.astype(scale, xp.float32), None

    def _exponents(self, xp: ModuleType, x: Array) -> Encoded:
        n = self.octaves
        top = power_of_two(xp.max(xp.abs(x), axis=2, keepdims=True))
        best, chosen = xp.zeros_like(x), xp.ones_like(top)
        least = xp.full_like(top, float("inf"))
        for step in range(2, -n - 2, -1):
            scale = top * 2.0**step
            divisor = xp.where(scale > 0, scale, xp.ones_like(scale))
            levels = _nearest_power(xp, xp.astype(x, xp.float64) / divisor, n)
            error = xp.sum((x - scale * levels) ** 2, axis=2, keepdims=True)
            better = error < least
            least = xp.where(better, error, least)
            best = xp.where(better, xp.astype(levels, x.dtype), best)
            chosen = xp.where(better, scale, chosen)
        return best * 2 ** (n - 1), xp.astype(chosen * 2.0 ** (1 - n), xp.float32), None


def _nearest_power(xp: ModuleType, x: Array, n: int) -> Array:
    """The nearest of 0, ±2^(1-n), ..., ±1."""
    size = xp.abs(x)
    below = xp.clip(power_of_two(size), min=2.0 ** (1 - n), max=1.0)
    above = xp.clip(2 * below, max=1.0)
    power = xp.where(size - below <= above - size, below, above)
    return xp.where(2 * size < 2.0 ** (1 - n), xp.zeros_like(x), xp.sign(x) * power)


METHOD = Preset("lbw", title="LBW", quantizer=LBW, cites=("yin2016lbw", "lrqmm_bench"))
