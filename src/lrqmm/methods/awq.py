"""AWQ: rows of B that meet large columns of A are scaled up before B is quantised.

    A B = (A diag(1/s)) (diag(s) B),    s_j = mean|A_:j|^ρ / sqrt(max · min of that)

ρ is the best of a grid from 0 to 1 for ‖X B - (X diag(1/s)) Q(diag(s) B)‖ on the sample X.
Source: Lin et al., arXiv 2306.00978 (weight-only there; here A diag(1/s) is quantised as well).
"""

from __future__ import annotations

from dataclasses import dataclass

from array_api_compat import array_namespace

from lrqmm import _checks
from lrqmm._checks import Array
from lrqmm.composition import Operand, Preset
from lrqmm.methods.smoothquant import Scaling
from lrqmm.phases import phase
from lrqmm.quantize import Quantizer


@dataclass(frozen=True, kw_only=True)
class AWQ(Scaling):
    """Scales by activation magnitude, their exponent searched.

    Parameters
    ----------
    grid : exponents that are tried
    """

    grid: int = 20

    def __post_init__(self) -> None:
        _checks.integer("grid", self.grid, 1)

    def fit(self, B: Array, quantizer: Quantizer, calibration: Array | None) -> Array:
        xp = array_namespace(B)
        X: Array = calibration
        with phase("transform"):
            magnitude = xp.mean(xp.abs(X), axis=0)
            magnitude = xp.where(magnitude > 0, magnitude, xp.ones_like(magnitude))
            exact = X @ B
            best, least = xp.ones_like(magnitude), float("inf")
            for step in range(self.grid):
                s = magnitude ** (step / self.grid)
                s = s / (xp.max(s) * xp.min(s)) ** 0.5
                approx = Operand.quantize(
                    B * s[:, None], quantizer, right=True, calibration=X / s
                ).approx
                error = float(xp.sum((exact - (X / s) @ approx) ** 2))
                if error < least:
                    best, least = s, error
            return best


METHOD = Preset("awq", transform=AWQ, cites=("lin2023awq",), usual=False)
