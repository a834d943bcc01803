"""Permutation: columns of like magnitude side by side, so that they share a group's scale.

    A B = (A P) (Pᵀ B),    columns in the order of mean|A_:j| over the sample

Changes nothing with one scale per row; meant for granularity='group:N'.
Source: reordering of channels, as in Atom (Zhao et al., arXiv 2310.19102) and LoPRo.
"""

from typing import Any

from array_api_compat import array_namespace

from lrqmm._checks import Array
from lrqmm.products.composition import Preset
from lrqmm.products.cost import Cost
from lrqmm.products.parts import Transform
from lrqmm.products.phases import phase
from lrqmm.products.quantize import Quantizer
from lrqmm.products.scaling import near_one


class Permutation(Transform):
    """The inner dimension in the order of A's column magnitudes."""

    calibrated = True

    def fit(self, B: Array, quantizer: Quantizer, calibration: Array | None) -> Any:
        xp = array_namespace(B)
        with phase("transform"):
            return xp.argsort(xp.mean(xp.abs(near_one(calibration)[0]), axis=0), stable=True)

    def left(self, A: Array, fitted: Any) -> Array:
        with phase("transform"):
            return array_namespace(A).take(A, fitted, axis=1)

    def right(self, B: Array, fitted: Any) -> Array:
        with phase("transform"):
            return array_namespace(B).take(B, fitted, axis=0)

    def cost(self, m: int, k: int, n: int) -> Cost:
        return Cost(bytes=8 * m * k, operand_bits=32 * k)


METHOD = Preset("permutation", transform=Permutation, cites=("zhao2023atom", "gu2026lopro"))
