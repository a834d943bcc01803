"""The smallest rank whose product meets a tolerance: `rank="auto", tolerance=eps`.

Factors are found once, to the largest rank; those of a smaller one are their leading columns. With
C_r the product at rank r and E_r = A B - C_r, its error is estimated from a few vectors Y,

    E_r Y = A (B Y) - Â_r (B̂_r Y),    Â_r = Ã + L_A, B̂_r = B̃ + L_B
    ê² = ‖E_r W‖² + ‖E_r X‖² / P,    x̂ = <C_r W, E_r W> + <C_r X, E_r X> / P
    relative error ≈ ê / sqrt(‖C_r‖² + 2 x̂ + ê²)

W spans the directions in which errors may be large (ones, the right factors, the image of the left
ones) and is met exactly; the P columns of X are Gaussian, orthogonal to it.
Source: this project; probes as in Hutchinson's estimator of a norm.
"""

import math
import warnings
from dataclasses import dataclass
from functools import cached_property

from array_api_compat import array_namespace

from lrqmm._checks import Array
from lrqmm.products.decompose import basis
from lrqmm.products.parts import Factors, Operand, compensate, product_of_second_slices
from lrqmm.products.phases import phase
from lrqmm.products.quantized import product
from lrqmm.products.rsvd import sketch_matrix
from lrqmm.products.scaling import energy

PROBES, PROBES_UP_TO = 64, 512
"""Gaussian probes up to that n; in proportion beyond."""
MARGIN = 1.01
"""The estimate times this is to meet the tolerance."""
NEAR_BEST = 1.02
"""Where it cannot, the smallest rank within this of the largest rank's estimate."""


class ToleranceNotReached(UserWarning):
    """No rank meets the tolerance.

    Attributes
    ----------
    estimate : relative error that was reached, as estimated
    bits : about how many bits would meet it

    Examples
    --------
    >>> import warnings, numpy as np, lrqmm
    >>> A, B = np.random.default_rng(0).standard_normal((2, 64, 64))
    >>> with warnings.catch_warnings(record=True, action="always") as caught:
    ...     C = lrqmm.matmul(A, B, bits=4, rank="auto", tolerance=1e-6)
    >>> caught[0].category.__name__
    'ToleranceNotReached'
    >>> caught[0].message.estimate > 1e-6, caught[0].message.bits > 4
    (True, True)
    """

    def __init__(
        self, estimate: float, tolerance: float, bits: int, how: str = "at the largest rank"
    ) -> None:
        self.estimate = estimate
        missing = math.log2(estimate / tolerance) if math.isfinite(estimate) else 0.0
        self.bits = bits + max(1, math.ceil(missing))
        super().__init__(
            f"the tolerance {tolerance:g} is not reached: about {estimate:.3g} {how}; "
            f"about {self.bits} bits would do"
        )


@dataclass
class Search:
    """Products at ranks of one pair of operands, with their estimated errors."""

    C: Array
    A: Operand
    B: Operand
    left: Factors | None
    right: Factors | None
    terms: str
    seed: int

    def __post_init__(self) -> None:
        xp = array_namespace(self.C)
        n = self.C.shape[1]
        with phase("sketch"):
            directions = [xp.ones_like(self.C[:1, :]).T]
            if self.right is not None:
                directions.append(self.right[1].T)
            if self.left is not None:
                directions.append(self.B.approx.T @ self.left[1][:4, :].T)
            W = basis(xp.concat(directions, axis=1)[:, :n])
            probes = PROBES * max(1, n // PROBES_UP_TO)
            X = sketch_matrix(W, n, probes, "gaussian", (self.seed, 4))
            X = X - W @ (W.T @ X)
            small = 2.0 ** -int(n).bit_length()  # so that sums over n stay in range
            weights = [1.0] * W.shape[1] + [1 / probes] * probes
            self.weights = [weight / small**2 for weight in weights]
            self.Y = small * xp.concat([W, X], axis=1)
            self.exact = self.A.exact @ (self.B.exact @ self.Y)

    def two_slices(self) -> tuple[Array, float]:
        """The product of two slices, of the operands as they were given."""
        A, B, C = self.A, self.B, self.C
        if A.taken is not None or B.taken is not None:  # what is quantised is not all of them
            A, B = (Operand.quantize(X.exact, X.quantizer, right=X.transposed) for X in (A, B))
            C = product(A.quantized, B.quantized)
        C = C + product_of_second_slices(A, B, B.quantize_residual())
        return C, self.error_of(C)

    @property
    def largest(self) -> int:
        """The largest rank."""
        pairs = (factors for factors in (self.left, self.right) if factors is not None)
        return max(int(U.shape[1]) for U, _ in pairs)

    def at(self, rank: int) -> tuple[Array, float]:
        """C_r and its estimated relative error."""
        C = self.C
        if rank:
            left, right = (f and (f[0][:, :rank], f[1][:rank, :]) for f in (self.left, self.right))
            C = C + compensate(self.A, self.B, left, right, self.terms)
        return C, self.error_of(C)

    def error_of(self, C: Array) -> float:
        """Estimated relative error of a product of these operands."""
        xp = array_namespace(C)
        with phase("correct"):
            weights = xp.asarray(self.weights, dtype=xp.float64, device=C.device)
            exact, approx = (xp.astype(Y, xp.float64) for Y in (self.exact, C @ self.Y))
            missed = exact - approx
            squared = float(xp.sum(missed**2 * weights))
            cross = float(xp.sum(approx * missed * weights))
            total = energy(C) + 2 * cross + squared
        return (squared / total) ** 0.5 if total > 0 else 0.0

    @cached_property
    def whole(self) -> tuple[Array, float]:
        """The product at the largest rank."""
        return self.at(self.largest)

    def smallest(self, limit: float) -> tuple[Array, float]:
        """The product of the smallest rank whose estimate is within the limit, by bisection."""
        low, high = -1, self.largest
        best = self.whole
        while high - low > 1:
            middle = (low + high) // 2
            trial = self.at(middle)
            if trial[1] <= limit:
                high, best = middle, trial
            else:
                low = middle
        self.rank = high
        return best


def compensated(search: Search, tolerance: float, on_unreachable: str, bits: int) -> Array:
    """The product at the smallest rank that meets the tolerance.

    Where none does, `on_unreachable` says what is done: 'warn' is the smallest rank that is about
    as good as the largest, 'slices' the product of two slices where that is better, which costs
    three integer products; both warn where the tolerance is not met.

    Raises
    ------
    ArithmeticError : none does and `on_unreachable` is 'raise'
    """
    _, reached = search.whole
    if MARGIN * reached <= tolerance:
        return search.smallest(tolerance / MARGIN)[0]
    warning = ToleranceNotReached(reached, tolerance, bits)
    if on_unreachable == "raise":
        raise ArithmeticError(str(warning))
    if on_unreachable == "slices":
        C, of_slices = search.two_slices()
        if MARGIN * of_slices <= tolerance:
            return C
        if of_slices < reached:
            warnings.warn(
                ToleranceNotReached(of_slices, tolerance, 2 * bits, "with two slices"), stacklevel=4
            )
            return C
    warnings.warn(warning, stacklevel=4)
    return search.smallest(NEAR_BEST * reached)[0]
