"""A low-bit product as a composition: quantiser -> integer product -> compensator.

A composed method has the parameters of all its parts. A named method (`lrqmm`, `direct`, ...) is a
preset of such parts; by which code a composition runs is its execution.
"""

from dataclasses import Field, dataclass, fields, replace
from typing import Any, ClassVar

from lrqmm import _checks
from lrqmm._checks import Array
from lrqmm.products import apriori
from lrqmm.products.backends import integer_route
from lrqmm.products.cost import Cost
from lrqmm.products.method import Method, Recipe, needed
from lrqmm.products.parts import Compensator, NoCompensator, NoTransform, Transform
from lrqmm.products.phases import phase
from lrqmm.products.quantize import Quantizer, Uniform
from lrqmm.products.quantized import product

EIGHT_BITS = Uniform(bits=8)
"""Of the columns that a transform keeps apart."""
NO_TRANSFORM = NoTransform()


@dataclass(frozen=True)
class Composition(Method):
    """C ≈ Ã B̃ + correction of transformed operands, in array code of any library.

    Made by `Preset.build`. A subclass with an `execution` of its own runs the same composition by
    other code, and says what it covers.
    """

    name: str
    quantizer: Quantizer
    compensator: Compensator
    transform: Transform = NO_TRANSFORM

    execution: ClassVar[str] = "plain"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        EXECUTIONS[cls.execution] = cls

    @classmethod
    def changed_defaults(cls, compensator: type[Compensator]) -> dict[str, Any]:
        """Defaults of this execution where they differ from the parts' own."""
        return {}

    @property
    def parts(self) -> tuple[Transform, Quantizer, Compensator]:
        """In the order in which they act."""
        return self.transform, self.quantizer, self.compensator

    @property
    def calibrated(self) -> bool:  # type: ignore[override]
        """Whether some part looks at left operands; without a sample it is the operand itself."""
        return any(part.calibrated for part in self.parts)

    @property
    def code_bits(self) -> int:
        return int(self.quantizer.code_bits)

    @property
    def parameters(self) -> dict[str, Any]:
        """All parameters of the parts, defaults included; the execution where there is a choice."""
        return self._with_execution(
            {field.name: getattr(part, field.name) for part in self.parts for field in _own(part)}
        )

    @property
    def usual_parameters(self) -> dict[str, Any]:
        usual = {field.name: field.default for part in self.parts for field in _own(part)}
        usual |= self.changed_defaults(type(self.compensator))
        return {**self._with_execution(usual), "execution": "plain"}

    def _with_execution(self, parameters: dict[str, Any]) -> dict[str, Any]:
        transform, quantizer, compensator = self.parts
        choice = has_executions(type(transform), type(quantizer), type(compensator))
        return {**parameters, "execution": self.execution} if choice else parameters

    def check_shape(self, m: int, k: int, n: int) -> None:
        self.compensator.check_shape(m, k, n)
        unseen = self.transform.kept(k) or self.transform.inner(k) < k
        if getattr(self.compensator, "rank", None) == "auto" and unseen:
            raise ValueError(
                "rank is 'auto'; allowed: an integer or None with a transform that multiplies "
                "columns apart or leaves some out, whose error the search would not see"
            )

    def _predicted_error(self, A: Array, B: Array) -> float | None:
        return apriori.prediction(*self.parts, A, B)

    def _prepare(self, B: Array, calibration: Array | None, *, scratch: bool) -> Any:
        fitted = self.transform.fit(B, self.quantizer, calibration)
        sample = None if calibration is None else self.transform.left(calibration, fitted)
        right = self.transform.right(B, fitted)
        apart = self.transform.kept(B.shape[0])
        high = EIGHT_BITS.quantize(right[:apart, :].T) if apart else None
        if sample is not None:
            sample = sample[:, apart:]
        operand, state = self.compensator.quantize_right(right[apart:, :], self.quantizer, sample)
        return fitted, high, operand, state

    def _multiply(self, A: Array, prepared: Any, out: Array | None) -> Array:
        fitted, high, right, state = prepared
        A = self.transform.left(A, fitted)
        apart = self.transform.kept(A.shape[1])
        left = self.compensator.quantize_left(A[:, apart:], self.quantizer.left)
        with phase("product"):
            C = product(left.quantized, right.quantized)
            if apart:
                C = C + product(EIGHT_BITS.quantize(A[:, :apart]), high)
        return self.compensator.compensated(C, left, right, state)

    def integer_route(self, like: Array) -> str:
        return integer_route(like) if self.quantizer.integer else "none: float codes in float32"

    def emulated(self, like: Array) -> bool:
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
class Preset(Recipe):
    """A named composition: the classes of its parts, whose fields are the method's parameters."""

    quantizer: type[Quantizer] = Uniform
    compensator: type[Compensator] = NoCompensator
    transform: type[Transform] = NoTransform

    parts: ClassVar[tuple[str, ...]] = ("quantizer", "compensator", "transform")

    @property
    def defaults(self) -> dict[str, Any]:
        types = [getattr(self, part) for part in self.parts]
        parameters = {field.name: field.default for part in types for field in _own(part)}
        choice = has_executions(self.transform, self.quantizer, self.compensator)
        return {**parameters, "execution": "plain"} if choice else parameters

    @property
    def changed(self) -> list[str]:
        """The kinds of its parts that are others than those of `direct`."""
        return [kind for kind in self.parts if getattr(self, kind) != getattr(Preset, kind)]

    @property
    def needs(self) -> str:
        return needed(getattr(self, part) for part in self.parts)

    def build(self, **params: Any) -> Composition:
        """The composition with these parameters; unknown ones raise TypeError.

        `execution` is 'plain', array code on any library, or 'fused', the fast passes of
        `lrqmm.fused`, which some methods have, with defaults of their own.
        """
        _checks.known(f"method {self.name!r} has no parameter", params, self.defaults)
        execution = params.pop("execution", "plain")
        _checks.choice("execution", execution, tuple(EXECUTIONS))
        composition = EXECUTIONS[execution]
        params = composition.changed_defaults(self.compensator) | params
        parts = {}
        for kind in self.parts:
            part = getattr(self, kind)
            names = {field.name for field in fields(part)}
            parts[kind] = part(**{key: value for key, value in params.items() if key in names})
        return composition(self.name, **parts)


EXECUTIONS: dict[str, type[Composition]] = {"plain": Composition}
"""The classes that run compositions, by name of the execution; each adds itself."""


def has_executions(
    transform: type[Transform], quantizer: type[Quantizer], compensator: type[Compensator]
) -> bool:
    """Whether a composition of these parts can be run by other code than the plain one."""
    usual = quantizer is Uniform and transform is NoTransform
    return usual and compensator.span is not None


def _own(part: Any) -> list[Field[Any]]:
    """The fields of a part that are parameters; bits that a quantiser fixes are none."""
    return [field for field in fields(part) if field.init]
