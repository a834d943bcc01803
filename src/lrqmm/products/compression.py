"""A right operand kept in few bits, for a left one that stays in float32: C ≈ A B̂.

What compressors share: B̂ as thin factors and a dense part, each in a few bits; the bits that hold
it, scales and minima included; and the rank that a budget buys. A subclass says how B (k x n)
becomes B̂.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

from array_api_compat import array_namespace, device

from lrqmm._checks import Array
from lrqmm._parameters import one_of, whole
from lrqmm.products.cost import Cost
from lrqmm.products.decompose import pinv
from lrqmm.products.parts import Factors
from lrqmm.products.phases import phase
from lrqmm.products.quantize import Uniform, group_length
from lrqmm.products.scaling import in_float32, in_float64, near_one
from lrqmm.products.wholeproduct import WholeProduct

FLOAT_BITS = 32
WIDTHS = (*range(1, 9), 16, FLOAT_BITS)
"""Bits that a factor's element may have; 16 is half precision."""


@dataclass(frozen=True)
class Compressed:
    """B̂ = gain (D + Σ L R) + shift · 1 1ᵀ.

    Attributes
    ----------
    factors : pairs L (k x r) and R (r x n), as they are read back
    dense : D (k x n), or None
    """

    factors: tuple[Factors, ...]
    dense: Array | None = None
    gain: float = 1.0
    shift: float = 0.0

    def from_left(self, A: Array) -> Array:
        """A B̂, (m x n), thin products first."""
        xp = array_namespace(A)
        C = None if self.dense is None else A @ self.dense
        for L, R in self.factors:
            thin = (A @ L) @ R
            C = thin if C is None else C + thin
        assert C is not None
        if self.gain != 1.0 or self.shift != 0.0:
            shift = xp.full((A.shape[1], 1), self.shift, dtype=A.dtype, device=device(A))
            C = self.gain * C + A @ shift
        return C

    def times(self, power: float) -> Compressed:
        """B̂ times a number, in float32, as it is multiplied. The number goes into the left factors,
        so that A L has the product's size."""
        factors = tuple((in_float32(power * L), in_float32(R)) for L, R in self.factors)
        dense = None if self.dense is None else in_float32(power * self.dense)
        return replace(self, factors=factors, dense=dense, shift=power * self.shift)


@dataclass(frozen=True)
class Compressor(WholeProduct):
    """A method that keeps B in about `bits` bits per element.

    Parameters
    ----------
    bits : of an element of B on average; the rank is what they buy unless it is given
    granularity : scales shared by the 'tensor', or by a 'vector' (each of the rank's columns and
        rows, or each column of a dense part) or 'group:N' of its elements
    """

    ahead = True

    bits: int = whole(4, 1, 8)
    granularity: str = "tensor"

    def __post_init__(self) -> None:
        super().__post_init__()
        group_length(self.granularity, 1)

    @abstractmethod
    def compress(self, B: Array, calibration: Array | None) -> Compressed:
        """B (k x n) in few bits; `calibration` (s x k float32) where the method is calibrated.

        B and the answer are float64: what is rounded must not depend on the order of a sum, which
        changes with the number of threads.
        """

    @abstractmethod
    def stored_bits(self, k: int, n: int) -> int:
        """Bits that hold a k x n operand."""

    @abstractmethod
    def operations(self, m: int, k: int, n: int) -> int:
        """Of the products with B̂, a multiply-add as two."""

    def _prepare(self, B: Array, calibration: Array | None, *, scratch: bool) -> Compressed:
        near, power = near_one(B)  # squares and half precision have their range too
        compressed = self.compress(in_float64(near), calibration)
        return compressed.times(float(power[0, 0]))

    def _multiply(self, A: Array, prepared: Compressed, out: Array | None) -> Array:
        with phase("product"):
            return prepared.from_left(A)

    def integer_route(self, like: Array) -> str:
        return "none: the left operand is float32"

    def cost(self, m: int, k: int, n: int) -> Cost:
        stored = self.stored_bits(k, n)
        return Cost(
            float_operations=self.operations(m, k, n),
            bytes=4 * (m * k + m * n) + stored // 8,
            operand_bits=FLOAT_BITS * m * k + stored,
        )


@dataclass(frozen=True)
class Factorizer(Compressor):
    """B̂ = L R.

    Parameters
    ----------
    bits_left, bits_right : of an element of L and of R: 1 to 8, 16 or 32
    rank : None is the equal-budget rank, ⌊bits k n / (k bits_left + n bits_right)⌋, at least 1 and
        at most min(k, n); scales come on top
    """

    bits_left: int = one_of(8, *WIDTHS)
    bits_right: int = one_of(8, *WIDTHS)
    rank: int | None = whole(None, 1)

    @property
    def pairs(self) -> int:
        """Pairs of factors among which the budget is shared."""
        return 1

    def rank_of(self, k: int, n: int) -> int:
        """Rank of each pair of factors of a k x n operand."""
        if self.rank is not None:
            return min(self.rank, k, n)
        return affordable_rank(self.bits / self.pairs, k, n, self.bits_left, self.bits_right)

    def stored_bits(self, k: int, n: int) -> int:
        r = self.rank_of(k, n)
        left = kept_bits(r, k, self.bits_left, self.granularity)
        return self.pairs * (left + kept_bits(r, n, self.bits_right, self.granularity))

    def operations(self, m: int, k: int, n: int) -> int:
        return self.pairs * 2 * m * self.rank_of(k, n) * (k + n)

    def left(self, L: Array) -> Array:
        """L (k x r) as it is kept; a vector is a column."""
        return kept(L.T, self.bits_left, self.granularity).T

    def right(self, R: Array) -> Array:
        """R (r x n) as it is kept; a vector is a row."""
        return kept(R, self.bits_right, self.granularity)


def affordable_rank(bits: float, k: int, n: int, bits_left: int, bits_right: int) -> int:
    """The rank whose factors, k x r and r x n, take `bits` bits per element of a k x n matrix.

    Source: Saha, Srivastava, Pilanci, arXiv 2310.11028 (equal budgets).
    """
    return max(1, min(k, n, int(bits * k * n / (k * bits_left + n * bits_right))))


def kept(X: Array, bits: int, granularity: str) -> Array:
    """X (rows x columns) as it is read back from `bits` bits per element, in its own dtype.

    Up to 8 bits: 2^bits equally spaced levels from the minimum to the maximum, both included, of
    the tensor or of each row or group.
    """
    xp = array_namespace(X)
    if bits >= 16:
        return xp.astype(xp.astype(X, xp.float16 if bits == 16 else xp.float32), X.dtype)
    with phase("quantize"):
        stored = _levels(bits, granularity).quantize(in_float32(X))
        return xp.astype(stored.dequantize(), X.dtype)


def kept_bits(rows: int, columns: int, bits: int, granularity: str) -> int:
    """Bits that hold a matrix as `kept` reads it back."""
    if bits >= 16:
        return bits * rows * columns
    return _levels(bits, granularity).stored_bits(rows, columns)


def _levels(bits: int, granularity: str) -> Uniform:
    return Uniform(bits=bits, granularity=granularity, zero_point="float")


def least_squares(L: Array, B: Array) -> Array:
    """pinv(L) B, (r x n), of a thin L (k x r) that may be rank deficient."""
    with phase("factorize"):
        return pinv(L) @ B
