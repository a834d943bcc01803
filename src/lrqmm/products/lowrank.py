"""What LRQMM and its relatives share: low-rank parts of both residuals, put back into the product.

With L_A = U_A V_A and L_B = U_B V_B the low-rank parts of R_A = A - Ã and R_B = B - B̃,

    terms='first':  Ã B̃ + Ã L_B + L_A B̃
    terms='full':   Ã B̃ + Ã L_B + L_A B̃ + L_A L_B = (Ã + L_A)(B̃ + L_B)
    terms='exact':  Ã B̃ + Ã L_B + L_A B           (the last product against the float operand)

Which terms the paper keeps is not known to us; `full` is the default.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from lrqmm import _checks
from lrqmm._checks import Array
from lrqmm._parameters import one_of, whole
from lrqmm.products import adaptive
from lrqmm.products.cost import Cost
from lrqmm.products.parts import Compensator, Factors, Operand, compensate, stored
from lrqmm.products.rsvd import SKETCHES

DEFAULT_RANK = 16
AUTO_SHARE = 8  # rank 'auto' goes up to this fraction of an operand's smaller side
LEFT, RIGHT = 0, 1  # which side's sketch a seed belongs to


@dataclass(frozen=True, kw_only=True)
class LowRank(Compensator):
    """Compensation by thin factors of the residuals; subclasses say how the factors are found.

    Parameters
    ----------
    rank : 0 (direct product) to max(min(m, k), min(k, n)); None is min(16, that limit). An operand
        whose smaller side is below the rank is compensated at its own limit. 'auto' is the smallest
        rank that meets the tolerance, up to an eighth of that limit; see `lrqmm.products.adaptive`.
    tolerance : of 'auto', the product's relative Frobenius error
    on_unreachable : of 'auto', 'warn' (`ToleranceNotReached`, and the smallest rank that is about
        as good as the largest), 'slices' (the product of two slices) or 'raise' (ArithmeticError)
    terms : 'full', 'first' or 'exact', see above
    oversampling, power_iterations, sketch, seed : of the randomised SVD
    factor_dtype : 'float32', or 'int8' (each factor column rounded to 8 bits)
    sides : 'ab', or 'a' or 'b' to compensate one operand's residual only
    """

    rank: int | str | None = None
    tolerance: float | None = None
    on_unreachable: str = one_of("warn", "warn", "slices", "raise")
    terms: str = one_of("full", "first", "full", "exact")
    oversampling: int = whole(8, 0)
    power_iterations: int = whole(1, 0)
    sketch: str = one_of("ones+gaussian", *SKETCHES)
    factor_dtype: str = one_of("float32", "float32", "int8")
    sides: str = one_of("ab", "ab", "a", "b")
    seed: int = whole(0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank == "auto":
            _checks.real("tolerance", self.tolerance, 1e-9, 1.0)
        elif self.tolerance is not None:
            raise ValueError(
                f"tolerance is {self.tolerance} with rank {self.rank}; allowed: with rank='auto'"
            )
        elif self.rank is not None:
            _checks.integer("rank", self.rank, 0)
        if self.on_unreachable != "warn" and self.rank != "auto":
            raise ValueError(
                f"on_unreachable is {self.on_unreachable!r} with rank {self.rank}; allowed: with "
                "rank='auto'"
            )

    def check_shape(self, m: int, k: int, n: int) -> None:
        if self.rank != "auto":
            _checks.rank(self.fixed_rank, m, k, n)

    @property
    def fixed_rank(self) -> int | None:
        """The rank, where it is not found from the tolerance."""
        return self.rank if isinstance(self.rank, int) else None

    def compensated(self, C: Array, A: Operand, B: Operand, prepared: Any) -> Array:
        if self.rank != "auto":
            return super().compensated(C, A, B, prepared)
        assert self.tolerance is not None
        search = adaptive.Search(
            C, A, B, *self._both_factors(A, B, prepared), self.terms, self.seed
        )
        bits = A.quantizer.bits
        return adaptive.compensated(search, self.tolerance, self.on_unreachable, bits)

    def correct(self, A: Operand, B: Operand, prepared: Any) -> Array | None:
        if self.rank == 0:
            return None
        left, right = self._both_factors(A, B, prepared)
        return compensate(A, B, left, right, self.terms)

    def _both_factors(
        self, A: Operand, B: Operand, prepared: Any
    ) -> tuple[Factors | None, Factors | None]:
        sides, dtype = self.sides, self.factor_dtype
        left = stored(self.left_factors(A, B), dtype) if "a" in sides else None
        right = stored(self.right_factors(A, B, prepared), dtype) if "b" in sides else None
        return left, right

    @abstractmethod
    def left_factors(self, A: Operand, B: Operand) -> Factors:
        """Factors of R_A: U_A (m x r), V_A (r x k)."""

    @abstractmethod
    def right_factors(self, A: Operand, B: Operand, prepared: Any) -> Factors:
        """Factors of R_B: U_B (k x r), V_B (r x n)."""

    def rank_of(self, rows: int, columns: int) -> int:
        """The rank at which the residual of an operand (rows x columns) is compensated; of 'auto'
        the largest that it may be."""
        smaller = min(rows, columns)
        if self.rank == "auto":
            return max(1, smaller // AUTO_SHARE)
        return min(DEFAULT_RANK if self.fixed_rank is None else self.fixed_rank, smaller)

    def ranks(self, m: int, k: int, n: int) -> tuple[int, int]:
        """Ranks at which the residuals of A (m x k) and B (k x n) are compensated."""
        left = self.rank_of(m, k) if "a" in self.sides else 0
        return left, self.rank_of(k, n) if "b" in self.sides else 0

    def _widths(self, m: int, k: int, n: int) -> tuple[int, int, int, int]:
        """Ranks and sketch widths of the two sides, for the cost model."""
        ra, rb = self.ranks(m, k, n)
        wide_a = min(ra + self.oversampling, m, k) if ra else 0
        return ra, rb, wide_a, min(rb + self.oversampling, k, n) if rb else 0

    def _update_cost(self, m: int, k: int, n: int) -> Cost:
        """Products of `compensate`; the two residuals and the factors are read, C is updated."""
        ra, rb = self.ranks(m, k, n)
        operations = 2 * (m * k * rb + ra * k * n + m * (ra + rb) * n)
        if self.terms == "full":
            operations += 2 * ra * rb * (k + m)
        each, scale = (32, 0) if self.factor_dtype == "float32" else (8, 32)  # scales by column
        factors = each * (ra * (m + k) + rb * (k + n)) + scale * 2 * (ra + rb)
        moved = m * k + k * n + 8 * m * n
        return Cost(float_operations=operations, bytes=moved, operand_bits=factors)
