"""A low-bit product as a composition: quantiser -> integer product -> compensator.

Each part is a small frozen dataclass with its own parameters; a composed method has the parameters
of all its parts. A named method (`lrqmm`, `direct`, ...) is a preset of such parts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar

from lrqmm import _checks
from lrqmm._checks import Array
from lrqmm._repr import Shown
from lrqmm.products.backends import integer_route
from lrqmm.products.phases import phase
from lrqmm.products.precision import summed_in_float64
from lrqmm.products.quantize import Quantized, Quantizer, Uniform, product

EIGHT_BITS = Uniform(bits=8)
"""Of the columns that a transform keeps apart."""
NOTHING = "nothing beside its operands"
NEEDS = {
    "calibrated": "a sample of left operands",
    "ahead": "weights ahead of time",
    "together": "both operands at every call",
}
"""What a part needs, in words, by the attribute that says so."""


@dataclass(frozen=True)
class Cost(Shown):
    """What a product takes, as modelled; QR and SVD of thin matrices are left out, and so is what
    methods that calibrate do once a weight.

    Attributes
    ----------
    integer_operations, float_operations : of matrix products, a multiply-add as two
    bytes : moved at the least; each operand, code and result once a pass, as a fused
        implementation would move them
    operand_bits : that hold both operands: codes, scales, zero points, factors
    """

    integer_operations: int = 0
    float_operations: int = 0
    bytes: int = 0
    operand_bits: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.integer_operations + other.integer_operations,
            self.float_operations + other.float_operations,
            self.bytes + other.bytes,
            self.operand_bits + other.operand_bits,
        )


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
    taken: tuple[Array, Array] | None = None

    @classmethod
    def quantize(
        cls,
        X: Array,
        quantizer: Quantizer,
        *,
        right: bool = False,
        calibration: Array | None = None,
    ) -> Operand:
        """Quantise a left (m x k) or right (k x n) operand along k."""
        given = {"calibration": calibration} if quantizer.calibrated else {}
        with phase("quantize"):
            quantized = quantizer.quantize(X.T if right else X, **given)
        return cls(X, quantized, quantizer, right)

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
class Transform(Shown, ABC):
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


@dataclass(frozen=True, kw_only=True)
class NoTransform(Transform):
    """The operands as they are."""

    def left(self, A: Array, fitted: Any) -> Array:
        return A

    def right(self, B: Array, fitted: Any) -> Array:
        return B

    def cost(self, m: int, k: int, n: int) -> Cost:
        return Cost()


@dataclass(frozen=True, kw_only=True)
class Basis(Transform):
    """T (k x l) with orthonormal columns, which is what `fit` returns; T⁻¹ is Tᵀ."""

    def left(self, A: Array, fitted: Any) -> Array:
        with phase("transform"):
            return summed_in_float64(A, fitted)

    def right(self, B: Array, fitted: Any) -> Array:
        with phase("transform"):
            return summed_in_float64(fitted.T, B)


@dataclass(frozen=True, kw_only=True)
class Compensator(Shown, ABC):
    """Wins back part of what quantisation threw away; subclasses add their parameters."""

    calibrated: ClassVar[bool] = False
    """Whether `prepare` looks at left operands."""
    ahead: ClassVar[bool] = False
    """Whether it is made for weights, right operands that are known ahead of time."""
    together: ClassVar[bool] = False
    """Whether what it does to the right operand depends on the left one, at every call."""
    slices: ClassVar[int] = 1
    """Matrices of codes that are kept of each operand."""

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


@dataclass(frozen=True, kw_only=True)
class NoCompensator(Compensator):
    """Nothing is won back: the direct product."""

    def correct(self, A: Operand, B: Operand, prepared: Any) -> Array | None:
        return None

    def cost(self, m: int, k: int, n: int) -> Cost:
        return Cost()


@dataclass(frozen=True)
class Composition(Shown):
    """C ≈ Ã B̃ + correction of transformed operands, on checked float32 matrices.

    Made by `Preset.build`.
    """

    quantizer: Quantizer
    compensator: Compensator
    transform: Transform = NoTransform()

    execution: ClassVar[str] = "plain"

    @property
    def calibrated(self) -> bool:
        """Whether some part looks at left operands; without a sample it is the operand itself."""
        return any(part.calibrated for part in (self.transform, self.quantizer, self.compensator))

    @property
    def parameters(self) -> dict[str, Any]:
        """All parameters of the parts, defaults included; the execution where there is a choice."""
        parts = {
            field.name: getattr(part, field.name)
            for part in (self.transform, self.quantizer, self.compensator)
            for field in fields(part)
            if field.init
        }
        choice = _has_fused(type(self.quantizer), type(self.compensator), type(self.transform))
        return {**parts, "execution": self.execution} if choice else parts

    def check_shape(self, m: int, k: int, n: int) -> None:
        self.compensator.check_shape(m, k, n)
        unseen = self.transform.kept(k) or self.transform.inner(k) < k
        if getattr(self.compensator, "rank", None) == "auto" and unseen:
            raise ValueError(
                "rank is 'auto'; allowed: an integer or None with a transform that multiplies "
                "columns apart or leaves some out, whose error the search would not see"
            )

    def prepare(self, B: Array, *, scratch: bool = False, calibration: Array | None = None) -> Any:
        """What depends on B alone; with `scratch` it need only last until the next call.

        A calibrated composition without a sample waits for its left operand.
        """
        if self.calibrated and calibration is None:
            return Uncalibrated(B)
        fitted = self.transform.fit(B, self.quantizer, calibration)
        sample = None if calibration is None else self.transform.left(calibration, fitted)
        right = self.transform.right(B, fitted)
        kept = self.transform.kept(B.shape[0])
        high = EIGHT_BITS.quantize(right[:kept, :].T) if kept else None
        if sample is not None:
            sample = sample[:, kept:]
        operand, state = self.compensator.quantize_right(right[kept:, :], self.quantizer, sample)
        return fitted, high, operand, state

    def matmul(self, A: Array, prepared: Any, out: Array | None = None) -> Array:
        """The product; `out` may be used for it, or not."""
        if isinstance(prepared, Uncalibrated):
            prepared = self.prepare(prepared.B, calibration=A)
        fitted, high, right, state = prepared
        A = self.transform.left(A, fitted)
        kept = self.transform.kept(A.shape[1])
        left = self.compensator.quantize_left(A[:, kept:], self.quantizer.left)
        with phase("product"):
            C = product(left.quantized, right.quantized)
            if kept:
                C = C + product(EIGHT_BITS.quantize(A[:, :kept]), high)
        return self.compensator.compensated(C, left, right, state)

    def integer_route(self, like: Array) -> str:
        return integer_route(like) if self.quantizer.integer else "none: float codes in float32"

    def emulated(self, like: Array) -> bool:
        """Whether the codes' product is only imitated, so that its time means nothing."""
        return not self.quantizer.integer

    def cost(self, m: int, k: int, n: int) -> Cost:
        transform, k = self.transform.cost(m, k, n), self.transform.inner(k)
        halved = [q.code_bits > 8 for q in (self.quantizer.left, self.quantizer)]
        products = 2 ** sum(halved)  # codes wider than int8 are products of two halves
        quantize = 5 * (m * k + k * n)  # float32 in, int8 out
        gemm = m * k + k * n + 4 * m * n  # codes in, int32 out
        scaling = 8 * m * n  # int32 in, float32 out
        direct = Cost(
            integer_operations=products * 2 * m * k * n,
            bytes=quantize + products * gemm + scaling,
            operand_bits=self._operand_bits(m, k, n),
        )
        for q in (self.quantizer.left, self.quantizer):
            if q.offsets:  # times the sums of the other operand's codes
                direct += Cost(float_operations=2 * m * n * q.groups(k))
        if not self.quantizer.integer:
            floats = direct.integer_operations
            direct = replace(direct, integer_operations=0, float_operations=floats)
        direct += transform
        extra = self.compensator.cost(m, k, n)
        return direct + replace(extra, integer_operations=products * extra.integer_operations)

    def _operand_bits(self, m: int, k: int, n: int) -> int:
        left, right = self.quantizer.left.stored_bits(m, k), self.quantizer.stored_bits(n, k)
        return self.compensator.slices * left + self.compensator.right_slices * right


@dataclass(frozen=True)
class Uncalibrated:
    """A right operand that waits for the left one, which is then the calibration sample too."""

    B: Array


@dataclass(frozen=True)
class Preset:
    """A named composition: the classes of its parts, whose fields are the method's parameters.

    Attributes
    ----------
    cites : keys of its sources in docs/references.bib
    usual : whether experiments that name no methods measure it; others are for `methods: all`
    """

    name: str
    quantizer: type[Quantizer] = Uniform
    compensator: type[Compensator] = NoCompensator
    transform: type[Transform] = NoTransform
    cites: tuple[str, ...] = ()
    usual: bool = True

    parts: ClassVar[tuple[str, ...]] = ("quantizer", "compensator", "transform")

    @property
    def defaults(self) -> dict[str, Any]:
        """Parameters and their defaults."""
        own = {
            field.name: field.default
            for part in self.parts
            for field in fields(getattr(self, part))
            if field.init  # bits that a quantiser fixes are none
        }
        choice = _has_fused(self.quantizer, self.compensator, self.transform)
        return {**own, "execution": "plain"} if choice else own

    @property
    def classes(self) -> tuple[type, ...]:
        """The classes whose code decides what the method computes."""
        return tuple(getattr(self, part) for part in self.parts)

    @property
    def needs(self) -> str:
        """What it needs beside its operands, or of them, in words."""
        return needed(self.classes)

    def build(self, **params: Any) -> Composition:
        """The composition with these parameters; unknown ones raise TypeError.

        `execution` is 'plain', array code on any library, or 'fused', the fast passes of
        `lrqmm.fused`, which some methods have, with defaults of their own.
        """
        _checks.known(f"method {self.name!r} has no parameter", params, self.defaults)
        execution = params.pop("execution", "plain")
        _checks.choice("execution", execution, ("plain", "fused"))
        made: type[Composition] = Composition
        if execution == "fused":
            from lrqmm import fused  # which is made of methods, as they are of this

            made = fused.Fused
            params = fused.defaults(self.compensator) | params
        built = []
        for part in self.parts:
            cls = getattr(self, part)
            own = {field.name for field in fields(cls)}
            built.append(cls(**{key: value for key, value in params.items() if key in own}))
        return made(*built)


def needed(parts: Iterable[type]) -> str:
    """What classes such as these need, in words.

    What is calibrated is fitted to the sample once a right operand, so ahead of time too.
    """
    found = {trait for part in parts for trait in NEEDS if getattr(part, trait, False)}
    if "calibrated" in found:
        found.add("ahead")
    return ", ".join(words for trait, words in NEEDS.items() if trait in found) or NOTHING


def _has_fused(quantizer: type, compensator: type, transform: type) -> bool:
    from lrqmm import fused

    usual = quantizer is Uniform and transform is NoTransform
    return usual and compensator in fused.COMPENSATORS
