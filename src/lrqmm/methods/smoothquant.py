"""SmoothQuant: what is hard to quantise in A's columns moves into B's rows.

    A B = (A diag(1/s)) (diag(s) B),    s_j = max|A_:j|^α / max|B_j:|^(1-α)

Calibrated: the columns' maxima are those of the sample.
Source: Xiao et al., arXiv 2211.10438 (α = 0.5).
"""

from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from lrqmm._checks import Array
from lrqmm._parameters import number
from lrqmm.products.composition import Preset
from lrqmm.products.cost import Cost
from lrqmm.products.parts import Transform
from lrqmm.products.phases import phase
from lrqmm.products.quantize import Quantizer
from lrqmm.products.scaling import near_one


class Scaling(Transform):
    """A diagonal T⁻¹ = diag(s); subclasses choose s."""

    calibrated = True

    def left(self, A: Array, fitted: Any) -> Array:
        with phase("transform"):
            return A / fitted

    def right(self, B: Array, fitted: Any) -> Array:
        with phase("transform"):
            return B * fitted[:, None]

    def cost(self, m: int, k: int, n: int) -> Cost:
        return Cost(bytes=8 * m * k, operand_bits=32 * k)


@dataclass(frozen=True, kw_only=True)
class SmoothQuant(Scaling):
    """Scales that share the range between both operands.

    Parameters
    ----------
    alpha : 0 (all stays in A) to 1 (all moves into B)
    """

    alpha: float = number(0.5, 0.0, 1.0)

    def fit(self, B: Array, quantizer: Quantizer, calibration: Array | None) -> Array:
        xp = array_namespace(B)
        with phase("transform"):
            of_a, of_b = (
                near_one(xp.astype(xp.max(xp.abs(X), axis=axis), xp.float64))[0]
                for X, axis in ((calibration, 0), (B, 1))
            )  # ratios only, so that what is done does not depend on the operands' size
            usable = (of_a > 0) & (of_b > 0)
            ones = xp.ones_like(of_b)
            of_a, of_b = xp.where(usable, of_a, ones), xp.where(usable, of_b, ones)
            s = of_a**self.alpha / of_b ** (1 - self.alpha)
            return xp.astype(xp.clip(s, min=2.0**-100, max=2.0**100), B.dtype)


METHOD = Preset(
    "smoothquant", title="SmoothQuant", transform=SmoothQuant, cites=("xiao2022smoothquant",)
)
