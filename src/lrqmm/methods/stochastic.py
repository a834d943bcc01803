"""Stochastic rounding: up or down by chance, so that a code's expectation is the number itself.

    q = ⌊x / scale + u⌋,  u uniform in [0, 1);    E[scale q] = x,  Var = scale² f (1 - f)

f is the fraction of x / scale. No element is biased, so no mean is left in the residual; for that
its variance is up to six times that of rounding to nearest.
Source: classical; Gupta et al., arXiv 1502.02551.
"""

from dataclasses import dataclass
from types import ModuleType

import numpy as np
from array_api_compat import device

from lrqmm._checks import Array
from lrqmm._parameters import whole
from lrqmm.products.composition import Preset
from lrqmm.products.quantize import Encoded, Quantizer, scale_to_top


@dataclass(frozen=True, kw_only=True)
class Stochastic(Quantizer):
    """Symmetric levels, rounded up with the probability of the fraction.

    Parameters
    ----------
    seed : of the chances (Philox, so every library and device rounds alike)
    """

    seed: int = whole(0, 0)

    def encode(self, xp: ModuleType, x: Array, axes: tuple[int, ...]) -> Encoded:
        top = 2 ** (self.bits - 1) - 1
        scaled, scale, largest = scale_to_top(xp, x, axes, top)
        chances = np.random.Generator(np.random.Philox(self.seed))
        u = xp.asarray(chances.random(tuple(x.shape), dtype=np.float32), device=device(x))
        codes = xp.where(xp.abs(x) == largest, xp.round(scaled), xp.floor(scaled + u))
        return xp.clip(codes, -top, top), scale, None


METHOD = Preset("stochastic", quantizer=Stochastic, cites=("gupta2015stochastic",))
