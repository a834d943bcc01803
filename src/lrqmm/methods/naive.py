"""Naive quantisation: every element of B rounded to `bits` bits, A in float32.

    C ≈ A B̂,    2^b levels from min B to max B, both included

The baseline of the factorisers at an equal budget.
Source: NQ of Saha, Srivastava, Pilanci, arXiv 2310.11028.
"""

from lrqmm._checks import Array
from lrqmm.products.compression import Compressed, Compressor, kept, kept_bits


class Naive(Compressor):
    """B̂ is dense; a vector is a column."""

    def compress(self, B: Array, calibration: Array | None) -> Compressed:
        return Compressed((), kept(B.T, self.bits, self.granularity).T)

    def stored_bits(self, k: int, n: int) -> int:
        return kept_bits(n, k, self.bits, self.granularity)

    def operations(self, m: int, k: int, n: int) -> int:
        return 2 * m * k * n


METHOD = Naive("naive", title="naive rounding", cites=("saha2023lplr",))
