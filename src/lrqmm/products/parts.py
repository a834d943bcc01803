"""The parts of a composed product: what a quantised operand is, transforms and compensators.

Each part is a small frozen dataclass, whose fields are parameters of the methods that it is in; a
class that adds none needs no decorator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

from array_api_compat import array_namespace

from lrqmm._checks import Array
from lrqmm._parameters import Checked
from lrqmm._repr import Shown
from lrqmm.products.cost import Cost
from lrqmm.products.phases import phase
from lrqmm.products.quantize import Quantizer, Uniform, clipped
from lrqmm.products.quantized import Quantized, product
from lrqmm.products.scaling import summed_in_float64

Span = Literal["nothing", "means", "residual", "product"]
Factors = tuple[Array, Array]
"""(U, V): thin factors whose product is the low-rank part of a matrix."""


@dataclass(frozen=True)
class Operand(Shown):
    """One operand of a product and what quantisation made of it: X ≈ X̃, R = X - X̃.

    `exact`, `approx` and `residual` have the operand's own shape; `quantized` lies along k, so for
    the right operand it is that of Bᵀ. Where a low-rank part U V was taken out before quantising,
    `taken` is (U, V), and X̃ and R are those of what was left.
    """

    exact: Array
    quantized: Quantized
    quantizer: Quantizer
    transposed: bool
    taken: Factors | None = None

    @classmethod
    def quantize(
        cls,
        X: Array,
        quantizer: Quantizer,
        *,
        right: bool = False,
        calibration: Array | None = None,
        taken: Factors | None = None,
        clip: float = 1.0,
    ) -> Operand:
        """Quantise a left (m x k) or right (k x n) operand along k; where factors are taken out of
        it what is left, cut at `clip` times the largest magnitude of each vector or group."""
        rest = X
        if taken is not None:
            with phase("residual"):
                rest = X - taken[0] @ taken[1]
        options = {"calibration": calibration} if quantizer.calibrated else {}
        with phase("quantize"):
            along = rest.T if right else rest
            if clip < 1:
                along = clipped(along, clip, quantizer.granularity)
            return cls(X, quantizer.quantize(along, **options), quantizer, right, taken)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the operand itself."""
        rows, columns = map(int, self.exact.shape)
        return rows, columns

    @cached_property
    def approx(self) -> Array:
        """X̃, float32."""
        with phase("residual"):
            approx = self.quantized.dequantize()
            return approx.T if self.transposed else approx

    @cached_property
    def residual(self) -> Array:
        """R = X - X̃, float32."""
        approx = self.approx
        with phase("residual"):
            residual = self.exact - approx
            return residual if self.taken is None else residual - self.taken[0] @ self.taken[1]

    def quantize_residual(self) -> Quantized:
        """The residual quantised by the operand's own quantiser, laid along k."""
        residual = self.residual
        with phase("quantize"):
            return self.quantizer.quantize(residual.T if self.transposed else residual)


@dataclass(frozen=True, kw_only=True)
class Transform(Shown, Checked, ABC):
    """A change of basis along k that leaves the product as it is: A B = (A T) (T⁻¹ B)."""

    calibrated: ClassVar[bool] = False
    """Whether `fit` looks at left operands."""

    def kept(self, k: int) -> int:
        """How many of the leading columns of A T are multiplied apart, at 8 bits."""
        return 0

    def inner(self, k: int) -> int:
        """Columns of A T; fewer than k where T projects, and the product is then not all of it."""
        return k

    def fit(self, B: Array, quantizer: Quantizer, calibration: Array | None) -> Any:
        """What T is made of, from B (k x n) and, where it is calibrated, left operands (s x k)."""
        return None

    @abstractmethod
    def left(self, A: Array, fitted: Any) -> Array:
        """A T, (m x k)."""

    @abstractmethod
    def right(self, B: Array, fitted: Any) -> Array:
        """T⁻¹ B, (k x n)."""

    @abstractmethod
    def cost(self, m: int, k: int, n: int) -> Cost:
        """Cost on top of the direct product's."""


class NoTransform(Transform):
    """The operands as they are."""

    def left(self, A: Array, fitted: Any) -> Array:
        return A

    def right(self, B: Array, fitted: Any) -> Array:
        return B

    def cost(self, m: int, k: int, n: int) -> Cost:
        return Cost()


class Basis(Transform):
    """T (k x l) with orthonormal columns, which is what `fit` returns; T⁻¹ is Tᵀ."""

    def left(self, A: Array, fitted: Any) -> Array:
        with phase("transform"):
            return summed_in_float64(A, fitted)

    def right(self, B: Array, fitted: Any) -> Array:
        with phase("transform"):
            return summed_in_float64(fitted.T, B)


@dataclass(frozen=True, kw_only=True)
class Compensator(Shown, Checked, ABC):
    """Wins back part of what quantisation threw away; subclasses add their parameters."""

    calibrated: ClassVar[bool] = False
    """Whether `prepare` looks at left operands."""
    ahead: ClassVar[bool] = False
    """Whether it is made for weights, right operands that are known ahead of time."""
    together: ClassVar[bool] = False
    """Whether what it does to the right operand depends on the left one, at every call."""
    slices: ClassVar[int] = 1
    """Matrices of codes that are kept of each operand."""
    span: ClassVar[Span | None] = None
    """What its correction spans: 'nothing', the residuals' 'means', the leading directions of each
    'residual', or those of the residual's 'product' with the other operand; None for others. The
    fused and the tiled code run these four."""

    @property
    def right_slices(self) -> int:
        """Matrices of codes that are kept of the right operand."""
        return self.slices

    def check_shape(self, m: int, k: int, n: int) -> None:
        """Raise ValueError where a parameter does not fit an m x k by k x n product."""

    def quantize_left(self, A: Array, quantizer: Quantizer) -> Operand:
        """A quantised, by the quantiser of left operands."""
        return Operand.quantize(A, quantizer)

    def quantize_right(
        self, B: Array, quantizer: Quantizer, calibration: Array | None
    ) -> tuple[Operand, Any]:
        """B quantised, and what is prepared of it once for many products."""
        operand = Operand.quantize(B, quantizer, right=True, calibration=calibration)
        return operand, self.prepare(operand, calibration)

    def prepare(self, B: Operand, calibration: Array | None) -> Any:
        """What depends on B alone and, where it is calibrated, on left operands (s x k)."""
        return None

    def compensated(self, C: Array, A: Operand, B: Operand, prepared: Any) -> Array:
        """Ã B̃, given as C, and the correction."""
        correction = self.correct(A, B, prepared)
        if correction is None:
            return C
        with phase("correct"):
            return C + correction

    @abstractmethod
    def correct(self, A: Operand, B: Operand, prepared: Any) -> Array | None:
        """What to add to Ã B̃, (m, n) float32; None for nothing."""

    @abstractmethod
    def cost(self, m: int, k: int, n: int) -> Cost:
        """Cost on top of the direct product's."""


class NoCompensator(Compensator):
    """Nothing is won back: the direct product."""

    span = "nothing"

    def correct(self, A: Operand, B: Operand, prepared: Any) -> Array | None:
        return None

    def cost(self, m: int, k: int, n: int) -> Cost:
        return Cost()


def product_of_second_slices(A: Operand, B: Operand, second_of_B: Quantized) -> Array:
    """Ã B̃₂ + Ã₂ B̃, with the residuals quantised at the operands' own bits."""
    second_of_A = A.quantize_residual()
    with phase("product"):
        return product(A.quantized, second_of_B) + product(second_of_A, B.quantized)


def compensate(
    A: Operand, B: Operand, left: Factors | None, right: Factors | None, terms: str
) -> Array:
    """The correction of Ã B̃ as one product of thin matrices, (m x 2r) by (2r x n)."""
    xp = array_namespace(A.exact)
    with phase("correct"):
        columns, rows = [], []
        if right is not None:
            U_B, V_B = right
            thin = A.approx @ U_B
            if terms == "full" and left is not None:
                thin = thin + left[0] @ (left[1] @ U_B)
            columns.append(thin)
            rows.append(V_B)
        if left is not None:
            U_A, V_A = left
            columns.append(U_A)
            rows.append(V_A @ (B.exact if terms == "exact" else B.approx))
        return xp.concat(columns, axis=1) @ xp.concat(rows, axis=0)


def stored(factors: Factors, dtype: str | Quantizer) -> Factors:
    """The factors as they are kept: in 'int8', or by a quantiser of its own, the columns of U and
    the rows of V are rounded."""
    U, V = factors
    if dtype == "float32" or 0 in U.shape:
        return factors
    quantizer = Uniform() if isinstance(dtype, str) else dtype
    U, V = (quantizer.quantize(X).dequantize() for X in (U.T, V))
    return U.T, V
