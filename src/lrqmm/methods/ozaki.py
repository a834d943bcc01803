"""Ozaki's splitting: float operands as sums of int8 slices, all leading products exact.

    A = diag(2^e) Σ_i 2^(1 - 7i) A_i,  |A_i| ≤ 64;  the same for B by column;
    C ≈ Σ_{i+j ≤ s+1} diag(2^e) 2^(2 - 7(i+j)) A_i B_j diag(2^f)

With s slices it keeps about 7s bits and costs s(s+1)/2 integer products: accuracy bought by GEMMs
alone, the other end from a compensator. Scales are powers of two, so nothing but the cut is lost;
the products are summed in float64 from the smallest.
Source: Ootomo, Ozaki, Yokota, doi:10.1177/10943420241239588 (there 7 bits a slice as well).
"""

from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from lrqmm._checks import Array
from lrqmm._parameters import whole
from lrqmm.products.backends import integer_matmul
from lrqmm.products.cost import Cost
from lrqmm.products.phases import phase
from lrqmm.products.quantize import SMALLEST_SCALE, stored_codes
from lrqmm.products.scaling import power_of_two
from lrqmm.products.wholeproduct import WholeProduct

BITS = 7
"""Of a slice; the first holds the sign and six."""

Slices = tuple[list[Array], Array]
"""Int8 matrices (rows, k), and 2^e (rows, 1) float64."""


def split(X: Array, slices: int) -> Slices:
    """X (rows, k) float32 as int8 slices along k."""
    xp = array_namespace(X)
    rest = xp.astype(X, xp.float64)
    largest = xp.max(xp.abs(rest), axis=1, keepdims=True)
    safe = xp.where(largest >= SMALLEST_SCALE, largest, xp.ones_like(largest))
    power = power_of_two(safe)
    power = xp.where(power < safe, 2 * power, power)
    rest = rest / power * 2.0 ** (BITS - 1)
    parts = []
    for _ in range(slices):
        codes = xp.round(rest)
        parts.append(stored_codes(xp, codes, xp.int8))
        rest = (rest - codes) * 2.0**BITS
    return parts, power


@dataclass(frozen=True)
class Ozaki(WholeProduct):
    """The product from slices.

    Parameters
    ----------
    slices : 2 to 4
    """

    slices: int = whole(2, 2, 4)

    def _prepare(self, B: Array, calibration: Array | None, *, scratch: bool) -> Slices:
        with phase("quantize"):
            return split(B.T, self.slices)

    def _multiply(self, A: Array, prepared: Slices, out: Array | None) -> Array:
        xp = array_namespace(A)
        with phase("quantize"):
            left, powers_a = split(A, self.slices)
        right, powers_b = prepared
        total: Any = 0.0
        with phase("product"):
            for both in range(self.slices + 1, 1, -1):  # i + j, counted from 1
                for i in range(max(1, both - self.slices), min(self.slices, both - 1) + 1):
                    C = integer_matmul(left[i - 1], right[both - i - 1].T)
                    total = total + 2.0 ** (2 - BITS * both) * xp.astype(C, xp.float64)
            return xp.astype(powers_a * total * powers_b.T, xp.float32)

    def cost(self, m: int, k: int, n: int) -> Cost:
        products = self.slices * (self.slices + 1) // 2
        both = m * k + k * n
        return Cost(
            integer_operations=products * 2 * m * k * n,
            bytes=(4 + self.slices) * both + products * (both + 4 * m * n) + 8 * m * n,
            operand_bits=8 * self.slices * both + 32 * (m + n),
        )


METHOD = Ozaki("ozaki", title="Ozaki", cites=("ootomo2024dgemm",))
