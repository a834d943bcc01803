"""The fused execution of `direct`, `mean_fix`, `lrqmm` and `lrqmm_aware`: int8 passes, one product.

`get_method(name, execution="fused")` gives it; the plain array code is its oracle. It covers what
users run for speed: one scale per row of A and per column of B, symmetric codes (on a CPU integer
zero points of the left operand too), sketches of ±1, thin factors in int8. `algorithm` has the
formulas; the kernels are in `cpu` and `cuda`. NumPy's and CuPy's arrays go through torch without a
copy.
"""

from __future__ import annotations

import importlib
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, cast

import numpy as np

from lrqmm._checks import Array, Unsupported
from lrqmm.fused import algorithm
from lrqmm.fused.coded import Coded, PreparedGroups
from lrqmm.fused.covered import check
from lrqmm.fused.kernels import Kernels, Plan
from lrqmm.products.backends import integer_route, library_of
from lrqmm.products.composition import Composition
from lrqmm.products.cost import Cost
from lrqmm.products.lowrank import LEFT, RIGHT, LowRank
from lrqmm.products.method import Prepared
from lrqmm.products.parts import Compensator
from lrqmm.products.quantize import group_length

LARGEST_K = (2**31 - 1) // (128 * 128)
"""Products up to which int32 sums of them cannot overflow."""

MOST_HEIGHTS = 64
"""Heights of left operands that a prepared one remembers."""


class Lock:
    """A lock of which a copy is another one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[Lock], tuple[()]]:
        return Lock, ()


class Spaces(threading.local):
    """Work space by name, one of each a thread; a copy starts with none."""

    def __init__(self) -> None:
        self.named: dict[str, dict[str, Any]] = {}

    def __reduce__(self) -> tuple[type[Spaces], tuple[()]]:
        return Spaces, ()


@dataclass(frozen=True)
class PreparedCodes:
    """Bᵀ in int8, with its low-rank part where that depends on B alone."""

    coded: Coded
    lock: Lock = field(default_factory=Lock)
    plans: dict[int, Plan] = field(default_factory=dict)
    """What products with so many rows have run by, in one compiled call."""


@dataclass(frozen=True)
class Fused(Composition):
    """A composition run by fused passes; its work space lives on, one per thread."""

    _spaces: Spaces = field(default_factory=Spaces, repr=False, compare=False)

    execution: ClassVar[str] = "fused"

    @classmethod
    def changed_defaults(cls, compensator: type[Compensator]) -> dict[str, Any]:
        """`lrqmm` has its ones column and needs no power iteration; `lrqmm_aware` keeps its one."""
        if not issubclass(compensator, LowRank):
            return {}
        usual = {"sketch": "ones+sign", "oversampling": 0, "factor_dtype": "int8"}
        return usual if compensator.span == "product" else {**usual, "power_iterations": 0}

    def __post_init__(self) -> None:
        check(self)

    def _prepare(
        self, B: Array, calibration: Array | None, *, scratch: bool
    ) -> PreparedCodes | PreparedGroups:
        if self._grouped:
            from lrqmm.fused import groups  # loads torch, and planning a study needs none of it

            _check_sums("k", group_length(self.quantizer.granularity, B.shape[0]))
            return groups.prepare(_tensor(B), self.quantizer, self.compensator)
        kernels = _kernels(B)
        if (self._zero_point or self._means) and not kernels.OFFSETS:
            raise Unsupported(
                "no zero points or mean corrections with execution='fused' on this device; "
                "execution='plain' has them"
            )
        _check_sums("k", B.shape[0])
        rank = self._rank(B, "b")
        if rank:
            _check_sums("n", B.shape[1])
        Bt = _tensor(B).T
        space = self._space("right", kernels, Bt) if scratch else None
        residual = rank > 0 or self._means
        residual |= self._aware and self._rank(B, "a") > 0  # R_A B takes B exactly
        quantizer: Any = self.quantizer
        with _current(Bt):
            coded = kernels.quantize(
                Bt, quantizer.bits, _rounding(quantizer), rank=rank, residual=residual, space=space
            )
            if self._zero_point or self._means:
                algorithm.add_sums(coded, kernels)
            if self._means:
                algorithm.add_means(coded, kernels)
                coded.digits = None
            if rank and not self._aware:
                if not kernels.compensate(coded, rank, self.compensator, RIGHT):
                    self._compensate(coded, None, rank, RIGHT, kernels)
                coded.digits = None  # not needed again
            kernels.pack(coded, space)
        return PreparedCodes(coded)

    def matmul(
        self,
        A: Array,
        B: Array | Prepared,
        *,
        out: Array | None = None,
        calibration: Array | None = None,
        check_finite: bool = True,
    ) -> Array:
        if isinstance(B, Prepared) and B.method is self and calibration is None:
            C = self._quick(A, B, out, check_finite)
            if C is not None:
                return C
        return super().matmul(A, B, out=out, calibration=calibration, check_finite=check_finite)

    matmul.__doc__ = Composition.matmul.__doc__

    def _quick(self, A: Array, B: Prepared, out: Array | None, check_finite: bool) -> Array | None:
        """The product by the short way in, None where it is not open."""
        state = B.states[0] if len(B.states) == 1 else None
        if not isinstance(state, PreparedCodes | PreparedGroups) or B.operand.exponent:
            return None
        shape: tuple[int, ...] = tuple(getattr(A, "shape", ()))
        plan = state.plans.get(shape[0]) if len(shape) == 2 else None
        if plan is None or B.operand.array.ndim != 2:
            return None
        from lrqmm.fused import quick

        space = self._spaces.named.setdefault("quick", {})
        right = state.coded if isinstance(state, PreparedCodes) else state
        return quick.product(A, B.operand.array, right, plan, out, space, check_finite=check_finite)

    def _multiply(
        self, A: Array, prepared: PreparedCodes | PreparedGroups, out: Array | None
    ) -> Array:
        kernels = _kernels(A)
        left, into = _tensor(A), None if out is None else _tensor(out)
        if isinstance(prepared, PreparedGroups):
            from lrqmm.fused import groups

            plan = self._plan(0)
            C = groups.multiply(left, prepared, plan, into, self._space("left", kernels, left))
            _remember(prepared.plans, left, plan)
            return _as(A, C) if out is None else out
        with _current(left):
            C = self._multiplied(left, prepared, into, kernels)
        return _as(A, C) if out is None else out

    def _multiplied(
        self, A: Array, prepared: PreparedCodes, out: Array | None, kernels: Kernels
    ) -> Array:
        right = prepared.coded
        space = self._space("left", kernels, A)
        rank = self._rank(A, "a")
        if rank or self._aware:
            _check_sums("m", A.shape[0])
        if rank and self._aware:
            _check_sums("n", right.rows)
        quantizer: Any = self.quantizer.left
        if not self._zero_point and not self._means:
            plan = self._plan(rank)
            C = kernels.whole(A, right, plan, out, space)
            if C is not None:
                _remember(prepared.plans, A, plan)
                return C
        residual = rank > 0 or self._means
        left = kernels.quantize(
            A,
            quantizer.bits,
            _rounding(quantizer),
            rank=rank,
            residual=residual,
            space=space,
            zero_point=self._zero_point,
        )
        if self._means:
            algorithm.add_sums(left, kernels)
            algorithm.add_means(left, kernels)
        terms = getattr(self.compensator, "terms", "full")
        with prepared.lock:  # the product-aware factors of B belong to one product
            if rank:
                self._compensate(left, right, rank, LEFT, kernels)
            spare = int(right.room.shape[0]) - right.rows
            if self._aware and spare:
                self._compensate(right, left, spare, RIGHT, kernels)
            update = partial(algorithm.update, left, right, terms)
            return kernels.multiply(left, right, update, out, space)

    def integer_route(self, like: Array) -> str:
        kernels = _kernels(like)
        products = kernels.PRODUCTS or integer_route(_tensor(like))
        return f"{products}, fused passes in {kernels.PASSES}"

    def cost(self, m: int, k: int, n: int) -> Cost:
        """Thin products are integer products here; every pass over a matrix moves int8."""
        both = m * k + k * n
        ra = rb = 0
        if isinstance(self.compensator, LowRank):
            ra, rb = self.compensator.ranks(m, k, n)
        direct = Cost(
            integer_operations=2 * (m + ra) * k * (n + rb),
            bytes=5 * both + both + 4 * m * n + 8 * m * n,  # quantise, multiply, scale
            operand_bits=self._operand_bits(m, k, n),
        )
        if self._means:  # digits are written and summed, codes summed; a rank-two update
            return direct + Cost(4 * both, 4 * m * n, 3 * both, 32 * (m + n))
        if not ra + rb:
            return direct
        options: Any = self.compensator
        q, wide = options.power_iterations, 1 + (options.oversampling > 0)
        sketches = (1 + 2 * q) + wide  # passes over the digits; two digits in but for the signs
        operations = 2 * (2 * sketches - 1) * (m * k * ra + k * n * rb)
        moved = (1 + sketches) * both  # digits written once, then read
        if self._aware:  # as many products with the other operand, B twice: codes and digits
            other = 1 + 2 * q + (options.oversampling > 0)
            operations += 2 * (m * k * ra + k * n * rb) + 4 * other * (2 * k * n * ra + m * k * rb)
            moved += other * (2 * k * n + m * k)
        update = 2 * m * n * (ra + rb) + 2 * m * ra * rb
        bases = 32 * (m * ra + n * rb)  # Q of each side in float32, v in int8, a in float32
        factors = bases + 8 * k * (ra + rb) + 32 * (ra + rb)
        return direct + Cost(operations, update, moved, factors)

    def _plan(self, rank: int) -> Plan:
        quantizer: Any = self.quantizer.left
        options = self.compensator if isinstance(self.compensator, LowRank) else None
        return Plan(quantizer.bits, _rounding(quantizer), rank, self._aware, options)

    @property
    def _grouped(self) -> bool:
        return self.quantizer.granularity.startswith("group")

    @property
    def _zero_point(self) -> bool:
        """Whether the left operand has integer zero points."""
        return getattr(self.quantizer.left, "zero_point", None) == "integer"

    @property
    def _means(self) -> bool:
        return self.compensator.span == "means"

    @property
    def _aware(self) -> bool:
        return self.compensator.span == "product"

    def _rank(self, X: Array, side: str) -> int:
        """Rank of an operand's compensation, 0 for none."""
        if not isinstance(self.compensator, LowRank) or side not in self.compensator.sides:
            return 0
        return self.compensator.rank_of(*map(int, X.shape))

    def _compensate(
        self, X: Coded, other: Coded | None, rank: int, side: int, kernels: Kernels
    ) -> None:
        options: Any = self.compensator
        limits = [X.rows, int(X.room.shape[1])]
        if other is None or not self._aware:
            width = min(rank + options.oversampling, *limits)
            Q = algorithm.residual_basis(X, width, rank, side, options, kernels)
        else:
            width = min(rank + options.oversampling, *limits, other.rows)
            Q = algorithm.product_basis(X, other, width, rank, side, options, kernels)
        algorithm.compensate(X, Q, kernels)

    def _space(self, side: str, kernels: Kernels, X: Array) -> dict[str, Any]:
        key = f"{side} {kernels.__name__} {X.device}"  # buffers stay with a library and device
        return self._spaces.named.setdefault(key, {})


def _remember(plans: dict[int, Plan], A: Array, plan: Plan) -> None:
    """That products with as many rows as A run in one compiled call."""
    if len(plans) > MOST_HEIGHTS:
        plans.clear()
    plans[int(A.shape[0])] = plan


def _rounding(quantizer: Any) -> str:
    """What kernels call it: of the signed levels 'signed'."""
    return "signed" if quantizer.levels == "signed" else str(quantizer.rounding)


def _check_sums(name: str, terms: int) -> None:
    """Raise Unsupported where int32 sums of so many products could overflow: along k, and of
    low-rank parts along the rows and columns of the result."""
    if terms > LARGEST_K:
        raise Unsupported(
            f"{name} is {terms}; allowed: up to {LARGEST_K} with execution='fused', any with "
            "'plain'"
        )


def _kernels(X: Array) -> Kernels:
    """The kernels of an array's library and device."""
    library = library_of(X)
    if library == "numpy" or (library == "torch" and X.device.type == "cpu"):
        return cast("Kernels", importlib.import_module("lrqmm.fused.cpu"))
    if library == "cupy" or (library == "torch" and X.device.type == "cuda"):
        try:
            return cast("Kernels", importlib.import_module("lrqmm.fused.cuda"))
        except ModuleNotFoundError as error:
            raise Unsupported(
                f"fused execution on a GPU needs {error.name}, which is not installed; "
                "execution='plain' runs everywhere"
            ) from None
    raise Unsupported(
        f"no fused execution for {library} on this device: NumPy, torch on a CPU or CUDA, and CuPy "
        "have it; execution='plain' runs everywhere"
    )


def _current(X: Array) -> AbstractContextManager[Any]:
    """A context in which kernels are launched on the GPU of a tensor."""
    if X.device.type == "cuda":
        import torch

        return torch.cuda.device(X.device)
    return nullcontext()


def _tensor(X: Array) -> Any:
    """NumPy's and CuPy's arrays as tensors of the same memory; tensors as they are."""
    if library_of(X) == "cupy":
        from lrqmm.products.backends import cupy as cupy_backend

        return cupy_backend.as_tensor(X)
    if library_of(X) != "numpy":
        return X
    import torch  # slow to load, and planning a study needs none of it

    return torch.from_numpy(X if X.flags.writeable else np.asarray(_Unlocked(X)))


def _as(like: Array, C: Any) -> Array:
    """A tensor as an array of the library of `like`."""
    if library_of(like) == "numpy":
        return C.numpy()
    if library_of(like) == "cupy":
        from lrqmm.products.backends import cupy as cupy_backend

        return cupy_backend.of_tensor(C)
    return C


class _Unlocked:
    """The memory of a read-only array, which torch warns of although nothing writes to it."""

    def __init__(self, X: Array) -> None:
        self.X = X
        self.__array_interface__ = {**X.__array_interface__, "data": (X.ctypes.data, False)}
