"""What every method is: the door that checks what it is given, and the matrices inside.

A method says how it prepares and multiplies two float32 matrices; batches, dtypes, magnitudes,
calibration samples and the state of the libraries are dealt with here, once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

import array_api_compat as compat

from lrqmm._checks import Array
from lrqmm._repr import Shown, call
from lrqmm.products.backends import backend_of
from lrqmm.products.cost import Cost
from lrqmm.products.operands import (
    CheckedOperand,
    broadcast,
    broadcast_pairs,
    check_out,
    check_pair,
    check_range,
    checked_pair,
    shape_of,
    times_power,
)

NOTHING = "nothing beside its operands"
NEEDS = {
    "calibrated": "a sample of left operands",
    "ahead": "weights ahead of time",
    "together": "both operands at every call",
}
"""What a part needs, in words, by the attribute that says so."""


@dataclass(frozen=True)
class Recipe(ABC):
    """What the file of a method defines as `METHOD`: all that is known of it without building it.

    Attributes
    ----------
    name : of the method, and of its file
    title : in figures and tables; without one, the name with spaces for underscores
    short : the title where there is little room; without one, the title
    cites : keys of its sources in docs/references.bib
    usual : whether experiments that name no methods measure it; others are for `methods: all`
    """

    name: str
    _: KW_ONLY
    title: str = ""
    short: str = ""
    cites: tuple[str, ...] = ()
    usual: bool = False

    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions of other libraries that it is a product of; none of the methods of this one."""

    @property
    @abstractmethod
    def defaults(self) -> dict[str, Any]:
        """Parameters and their defaults."""

    @property
    @abstractmethod
    def needs(self) -> str:
        """What it needs beside its operands, or of them, in words."""

    @abstractmethod
    def build(self, **params: Any) -> Method:
        """The method with these parameters; unknown ones raise TypeError."""


def needed(parts: Iterable[type]) -> str:
    """What a method of these classes needs, as text.

    What is calibrated is fitted to the sample once per right operand, so ahead of time too.
    """
    traits = {trait for part in parts for trait in NEEDS if getattr(part, trait, False)}
    if "calibrated" in traits:
        traits.add("ahead")
    return ", ".join(need for trait, need in NEEDS.items() if trait in traits) or NOTHING


@dataclass(frozen=True, eq=False)
class Prepared(Shown):
    """A right operand B made ready once for many products; from `Method.prepare`.

    Attributes
    ----------
    method : what B was prepared for; one with other parameters refuses it
    B : (..., k, n) array, as it was given; it must not change afterwards
    operand : B as it was checked
    states : what the method made of each matrix of B

    Examples
    --------
    >>> import numpy as np, lrqmm
    >>> method = lrqmm.get_method("direct", bits=4)
    >>> method.prepare(np.ones((64, 48), np.float32))
    Prepared(method=get_method('direct', bits=4), B=<64 x 48 float32>)
    """

    method: Method
    B: Array
    operand: CheckedOperand = field(repr=False)
    states: tuple[Any, ...] = field(repr=False)


@dataclass(frozen=True)
class Uncalibrated:
    """A right operand that waits for the left one, which is then the calibration sample too."""

    B: Array


class Method(ABC):
    """A way to multiply matrices; from `get_method`.

    `prepare(B)` does once what depends on B alone, `matmul(A, prepared)` multiplies.

    Attributes
    ----------
    name : of the method, or of parts joined by `+`

    Examples
    --------
    >>> import numpy as np, lrqmm
    >>> rng = np.random.default_rng(0)
    >>> A, B = rng.random((32, 64)), rng.random((64, 48))
    >>> method = lrqmm.get_method("lrqmm", bits=8, rank=4)
    >>> method
    get_method('lrqmm', rank=4)
    >>> C = method.matmul(A, method.prepare(B))
    >>> C.shape
    (32, 48)
    >>> bool(np.linalg.norm(C - A @ B) < 1e-3 * np.linalg.norm(A @ B))
    True
    """

    name: str

    calibrated: ClassVar[bool] = False
    """Whether it looks at left operands when B is prepared; without a sample, at A itself."""
    writes_out: ClassVar[bool] = True
    """Whether `out` saves it anything; elsewhere the result is copied there."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.__repr__ = Method.__repr__  # type: ignore[method-assign]  # else `dataclass` writes one

    def __repr__(self) -> str:
        return call("get_method", self.name, values=self.parameters, defaults=self.usual_parameters)

    @property
    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """All parameters with their values."""

    @property
    @abstractmethod
    def usual_parameters(self) -> dict[str, Any]:
        """All parameters with the values that they have unless others are asked for."""

    @property
    def code_bits(self) -> int | None:
        """Bits of a code; None where nothing is quantised."""
        return None

    @property
    def float32_precision(self) -> str:
        """Torch's precision of float32 products that it runs at: 'ieee' or 'tf32'."""
        return "ieee"

    def emulated(self, like: Array) -> bool:
        """Whether products of arrays like this one are only imitated: their time means nothing."""
        return False

    @abstractmethod
    def check_shape(self, m: int, k: int, n: int) -> None:
        """Raise ValueError where a parameter does not fit an m x k by k x n product."""

    @abstractmethod
    def cost(self, m: int, k: int, n: int) -> Cost:
        """Modelled operations and bytes of an m x k by k x n product, B not prepared."""

    @abstractmethod
    def integer_route(self, like: Array) -> str:
        """How integer products of arrays like this one are computed, in words."""

    @abstractmethod
    def _prepare(self, B: Array, calibration: Array | None, *, scratch: bool) -> Any:
        """What depends on B alone, (k x n) float32, and where the method is calibrated on left
        operands (s x k); with `scratch` it need only last until the next call."""

    @abstractmethod
    def _multiply(self, A: Array, prepared: Any, out: Array | None) -> Array:
        """A (m x k) float32 times what was prepared, (m x n); `out` may be used for it, or not."""

    def _predicted_error(self, A: Array, B: Array) -> float | None:
        """See `predicted_error`; operands are checked."""
        return None

    def predicted_error(self, A: Array, B: Array) -> float | None:
        """Relative error of A (m x k) times B (k x n) before it is multiplied, by O(n²) statistics
        (`lrqmm.products.apriori`); None for methods that it does not cover."""
        left, right = checked_pair(A, B)
        with self._usual_state(left):
            return self._predicted_error(left, right)

    def prepare(
        self, B: Array, *, calibration: Array | None = None, check_finite: bool = True
    ) -> Prepared:
        """Do once what depends on B alone.

        Parameters
        ----------
        B : (..., k, n) array, floating
        calibration : (s, k) array of B's library, a sample of left operands, for methods that
            calibrate; without one they wait for the left operand
        check_finite : look at the magnitudes (one pass over B), as `matmul` says

        Raises
        ------
        TypeError : not an array of plain memory, not floating
        ValueError : fewer than two dimensions, NaN, infinity, values beyond 2^120, none of 2^-119
            or more but zeros; a calibration of a method that takes none, or of another inner
            dimension
        """
        right = CheckedOperand.of("B", B, check_finite)
        with self._usual_state(right.array):
            return Prepared(self, B, right, self._states(right, calibration, scratch=False))

    def matmul(
        self,
        A: Array,
        B: Array | Prepared,
        *,
        out: Array | None = None,
        calibration: Array | None = None,
        check_finite: bool = True,
    ) -> Array:
        """A times B.

        The answer does not depend on torch's state (autocast, precision of float32 products,
        default dtype and device, inference mode), nor on NumPy's handling of float errors.

        Parameters
        ----------
        A : (..., m, k) array, floating
        B : (..., k, n) array of the same library and device, or what `prepare` returned
        out : (m, n) float32 array to write a product of two matrices to, contiguous and apart from
            A and B; saves the allocation of a large result
        calibration, check_finite : as in `prepare`; with `check_finite=False` NaN and infinity
            give an undefined answer, and magnitudes are for the caller to keep near 1 (2^-40 to
            2^40 is near enough)

        Returns
        -------
        (..., m, n) array of the operands' library, device and (promoted) dtype. Sums run in int32
        and float32; float64 operands are computed in float32. Leading dimensions broadcast as in
        `numpy.matmul`, and every matrix of a batch is quantised and compensated by itself.

        Raises
        ------
        TypeError : not arrays of plain memory (masked, sparse, ...), of two libraries, not
            floating; a `Prepared` of another method
        ValueError : fewer than two dimensions, shapes that do not fit, two devices, NaN, infinity,
            values beyond 2^120, operands or a product so small that float32 loses their digits, a
            rank above the limit
        """
        left = CheckedOperand.of("A", A, check_finite)
        if isinstance(B, Prepared):
            if calibration is not None:
                self._refuse(calibration)
                raise ValueError("calibration is given, but B is prepared; allowed: in `prepare`")
            if B.method is not self and B.method != self:
                raise TypeError(f"B was prepared for {B.method!r}; allowed: {self!r}")
            right = B.operand
        else:
            right = CheckedOperand.of("B", B, check_finite)
        check_pair(left, right)
        m, k, n = left.array.shape[-2], left.array.shape[-1], right.array.shape[-1]
        self.check_shape(m, k, n)
        xp = compat.array_namespace(left.array, right.array)
        dtype = xp.result_type(left.array.dtype, right.array.dtype)
        check_range(left, right, dtype)
        batch = broadcast(left.array.shape[:-2], right.array.shape[:-2])
        if out is not None:
            check_out(out, left, right, (*batch, m, n), dtype)
        with self._usual_state(left.array):
            if 0 in (m, k, n) or math.prod(batch) == 0:
                C = xp.zeros((*batch, m, n), dtype=dtype, device=compat.device(left.array))
            else:
                ready = isinstance(B, Prepared)
                states = B.states if ready else self._states(right, calibration, scratch=True)
                C = self._products(left, right, states, batch, out)
                C = times_power(C, left.exponent + right.exponent, dtype)
        return C if out is None else _write(out, C)

    def _products(
        self,
        left: CheckedOperand,
        right: CheckedOperand,
        states: tuple[Any, ...],
        batch: tuple[int, ...],
        out: Array | None,
    ) -> Array:
        """The products of all pairs of a batch, (*batch, m, n) float32."""
        lefts = left.matrices()
        if out is not None:
            return self._product(lefts[0], states[0], out)
        pairs = broadcast_pairs(left.array.shape[:-2], right.array.shape[:-2], batch)
        products = [self._product(lefts[i], states[j], None) for i, j in pairs]
        if not batch:
            return products[0]
        xp = compat.array_namespace(*products)
        return xp.reshape(xp.stack(products), (*batch, *products[0].shape))

    def _usual_state(self, like: Array) -> Any:
        return backend_of(like).usual_state(like, self.float32_precision)

    def _refuse(self, calibration: Array) -> None:
        if not self.calibrated:
            raise ValueError(f"calibration is given, but method {self.name!r} takes none")

    def _states(
        self, B: CheckedOperand, calibration: Array | None, *, scratch: bool
    ) -> tuple[Any, ...]:
        """What the method makes of each matrix; `scratch`: the first product is the only one."""
        matrices = B.matrices()
        sample = None if calibration is None else self._sample(calibration, B)
        scratch = scratch and len(matrices) == 1
        waits = self.calibrated and sample is None
        return tuple(
            None
            if 0 in matrix.shape
            else Uncalibrated(matrix)
            if waits
            else self._prepare(matrix, sample, scratch=scratch)
            for matrix in matrices
        )

    def _product(self, A: Array, state: Any, out: Array | None) -> Array:
        """The product of two matrices; one that waits for its left operand calibrates on it."""
        if isinstance(state, Uncalibrated):
            state = self._prepare(state.B, A, scratch=True)
        return self._multiply(A, state, out)

    def _sample(self, calibration: Array, B: CheckedOperand) -> Array:
        """The calibration sample as a float32 matrix, checked."""
        self._refuse(calibration)
        sample = CheckedOperand.of("calibration", calibration, True)
        check_pair(sample, B, name="calibration")
        if sample.array.ndim != 2 or sample.array.shape[0] == 0:
            raise ValueError(
                f"calibration has shape {shape_of(sample.array)}; allowed: at least one row, two "
                "dimensions"
            )
        return sample.matrices()[0]


def _write(out: Array, C: Array) -> Array:
    """C in `out`, where it may be already."""
    if C.shape != out.shape:
        raise ValueError(f"the result has shape {tuple(C.shape)}, not {tuple(out.shape)}")
    if C is out:
        backend_of(out).written(out)
    else:
        out[...] = C
    return out
