"""Float32 products from three of a narrower float: each operand as a sum of two roundings.

A ≈ A₁ + A₂,  A₁ = rd(A), A₂ = rd(A - A₁);    C ≈ A₁ B₁ + (A₁ B₂ + A₂ B₁),  sums in float32
"""

from typing import Any

from array_api_compat import array_namespace

from lrqmm._checks import Array
from lrqmm.products.backends import backend_of
from lrqmm.products.cost import Cost
from lrqmm.products.floatproduct import FloatProduct
from lrqmm.products.minifloat import Format, to_format
from lrqmm.products.phases import phase

ROUNDED = {
    "bfloat16": Format(7, -126, (2 - 2.0**-7) * 2.0**127, 16),
    "tf32": Format(10, -126, (2 - 2.0**-10) * 2.0**127, 19),
}

Parts = tuple[Array, Array]


class SplitProduct(FloatProduct):
    """Three products of rounded parts. The parts are float32 numbers that the narrow format holds,
    multiplied in float32, which only imitates the hardware's products: no time is measured."""

    @property
    def float32_precision(self) -> str:
        """Float32: the parts are rounded here."""
        return "ieee"

    def _prepare(self, B: Array, calibration: Array | None, *, scratch: bool) -> Parts:
        return self._split(B)

    def _multiply(self, A: Array, prepared: Parts, out: Array | None) -> Array:
        (a1, a2), (b1, b2) = self._split(A), prepared

        def times(X: Array, Y: Array) -> Any:
            return backend_of(X).float_matmul(X, Y, "float32", None)

        with phase("product"):
            return times(a1, b1) + (times(a1, b2) + times(a2, b1))

    def _split(self, X: Array) -> Parts:
        xp = array_namespace(X)
        with phase("quantize"):
            first = to_format(xp, X, ROUNDED[self.precision])
            return first, to_format(xp, X - first, ROUNDED[self.precision])

    def emulated(self, like: Array) -> bool:
        """Always: see above."""
        return True

    def cost(self, m: int, k: int, n: int) -> Cost:
        both = m * k + k * n
        each = 2 if self.precision == "bfloat16" else 4
        moved = (4 + 2 * each) * both + 3 * (each * both + 4 * m * n)
        held = 2 * ROUNDED[self.precision].bits * both
        return Cost(float_operations=6 * m * k * n, bytes=moved, operand_bits=held)
