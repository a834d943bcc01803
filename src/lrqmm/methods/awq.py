"""AWQ: rows of B that meet large columns of A are scaled up before B is quantised.

    A B = (A diag(1/s)) (diag(s) B),    s_j = mean|A_:j|^ρ / sqrt(max · min of that)

ρ is the best of a grid from 0 to 1 for ‖X B - (X diag(1/s)) Q(diag(s) B)‖ on the sample X. The
root is at least 2^-20 of the maximum.
Source: Lin et al., arXiv 2306.00978 (weight-only there; here A diag(1/s) is quantised as well).
"""

from dataclasses import dataclass

from array_api_compat import array_namespace

from lrqmm._checks import Array
from lrqmm._parameters import whole
from lrqmm.methods.smoothquant import Scaling
from lrqmm.products.composition import Preset
from lrqmm.products.parts import Operand
from lrqmm.products.phases import phase
from lrqmm.products.quantize import Quantizer
from lrqmm.products.scaling import energy, near_one

SMALLEST = 2.0**-20
"""Of the root, in maxima: more would lift rows of B out of float32."""


@dataclass(frozen=True, kw_only=True)
class AWQ(Scaling):
    """Scales by activation magnitude, their exponent searched.

    Parameters
    ----------
    grid : exponents that are tried
    """

    grid: int = whole(20, 1)

    def fit(self, B: Array, quantizer: Quantizer, calibration: Array | None) -> Array:
        xp = array_namespace(B)
        with phase("transform"):
            (X, _), (B, _) = near_one(calibration), near_one(B)  # s does not depend on their size
            magnitude = xp.mean(xp.abs(X), axis=0)
            magnitude = xp.where(magnitude > 0, magnitude, xp.ones_like(magnitude))
            exact = X @ B
            best, least = xp.ones_like(magnitude), float("inf")
            for step in range(self.grid):
                s = magnitude ** (step / self.grid)
                most = xp.max(s)
                s = s / xp.maximum((most * xp.min(s)) ** 0.5, SMALLEST * most)
                approx = Operand.quantize(
                    B * s[:, None], quantizer, right=True, calibration=X / s
                ).approx
                error = energy(exact - (X / s) @ approx)
                if error < least:
                    best, least = s, error
            return best


METHOD = Preset("awq", title="AWQ", transform=AWQ, cites=("lin2023awq",))
