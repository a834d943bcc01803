"""The fused execution of `direct`, `mean_fix`, `lrqmm` and `lrqmm_aware`: int8 passes, one product.

`get_method(name, execution="fused")` gives it; the plain array code is its oracle. It covers what
users run for speed: a scale a row and column, symmetric codes (on a CPU integer zero points of the
left operand too), sketches of ±1, thin factors in int8. `algorithm` has the formulas; the kernels
are in `cpu`, `cuda` (torch) and `cupy`.
"""

from __future__ import annotations

import importlib
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from lrqmm import _checks
from lrqmm._checks import Array, Unsupported
from lrqmm.fused import algorithm
from lrqmm.fused.algorithm import Coded
from lrqmm.methods.lrqmm import LRQMM
from lrqmm.methods.lrqmm_aware import LRQMMAware
from lrqmm.methods.mean_fix import MeanFix
from lrqmm.products.backends import integer_route, library_of
from lrqmm.products.composition import Composition, Cost, NoCompensator
from lrqmm.products.lowrank import DEFAULT_RANK, LEFT, RIGHT, LowRank

LARGEST_K = (2**31 - 1) // (128 * 127)
"""Columns up to which int32 sums cannot overflow."""

COVERED: dict[str, tuple[Any, ...]] = {
    "granularity": ("vector",),
    "zero_point": (None,),
    "zero_point_a": ("same", None, "integer"),
    "terms": ("full", "first"),
    "sketch": ("ones+sign", "sign"),
    "factor_dtype": ("int8",),
}
"""Parameters of which the fused path has some values only."""

COMPENSATORS = (NoCompensator, MeanFix, LRQMM, LRQMMAware)
"""What may follow the uniform quantiser."""


def defaults(compensator: type) -> dict[str, Any]:
    """Defaults of the fused execution where they differ from the plain one's.

    `lrqmm` has its ones column and needs no power iteration; `lrqmm_aware` keeps its one.
    """
    if not issubclass(compensator, LowRank):
        return {}
    own = {"sketch": "ones+sign", "oversampling": 0, "factor_dtype": "int8"}
    return own if compensator is LRQMMAware else {**own, "power_iterations": 0}


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
class Prepared:
    """Bᵀ in int8, with its low-rank part where that depends on B alone."""

    coded: Coded
    lock: Lock = field(default_factory=Lock)


@dataclass(frozen=True)
class Fused(Composition):
    """A composition run by fused passes; its work space lives on, one a thread."""

    _spaces: Spaces = field(default_factory=Spaces, repr=False, compare=False)

    execution = "fused"

    def __post_init__(self) -> None:
        for name, allowed in COVERED.items():
            if name in self.parameters:
                try:
                    _checks.choice(name, self.parameters[name], allowed)
                except ValueError as error:
                    raise ValueError(f"{error} with execution='fused'") from None
        if self.parameters.get("rank") == "auto":
            raise ValueError("rank is 'auto'; allowed: an integer or None with execution='fused'")
        if self._zero_point and self.parameters["rounding"] != "nearest":
            raise ValueError(
                "rounding is 'truncate'; allowed: 'nearest' with zero points and execution='fused'"
            )

    def prepare(
        self, B: Array, *, scratch: bool = False, calibration: Array | None = None
    ) -> Prepared:
        kernels = _kernels(B)
        if (self._zero_point or self._means) and not getattr(kernels, "OFFSETS", False):
            raise Unsupported(
                "no zero points or mean corrections with execution='fused' on this device; "
                "execution='plain' has them"
            )
        _check_k(B.shape[0])
        rank = self._rank(B, "b")
        Bt = _tensor(B).T
        space = self._space("right", kernels, Bt) if scratch else None
        residual = rank > 0 or self._means
        residual |= self._aware and self._rank(B, "a") > 0  # R_A B takes B exactly
        how: Any = self.quantizer
        with _current(B):
            coded = kernels.quantize(
                Bt, how.bits, how.rounding, rank=rank, residual=residual, space=space
            )
            if self._zero_point or self._means:
                algorithm.add_sums(coded, kernels)
            if self._means:
                algorithm.add_means(coded, kernels)
                coded.digits = None
            if rank and not self._aware:
                self._compensate(coded, None, rank, RIGHT, kernels)
                coded.digits = None  # not needed again
        return Prepared(coded)

    def matmul(self, A: Array, prepared: Prepared, out: Array | None = None) -> Array:
        kernels = _kernels(A)
        with _current(A):
            C = self._multiply(_tensor(A), prepared, None if out is None else _tensor(out), kernels)
        if out is not None:
            return out
        return C.numpy() if library_of(A) == "numpy" else C

    def _multiply(self, A: Array, prepared: Prepared, out: Array | None, kernels: Any) -> Array:
        right = prepared.coded
        space = self._space("left", kernels, A)
        rank = self._rank(A, "a")
        how: Any = self.quantizer.left
        with_zero = {"zero_point": True} if self._zero_point else {}
        residual = rank > 0 or self._means
        left = kernels.quantize(
            A, how.bits, how.rounding, rank=rank, residual=residual, space=space, **with_zero
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
        products = getattr(kernels, "PRODUCTS", None) or integer_route(_tensor(like))
        return f"{products}, fused passes in {kernels.PASSES}"

    def cost(self, m: int, k: int, n: int) -> Cost:
        """Thin products are integer products here; every pass over a matrix moves int8."""
        both, ranks = m * k + k * n, [0, 0]
        if isinstance(self.compensator, LowRank):
            sides, rank = self.compensator.sides, self.compensator.fixed_rank or DEFAULT_RANK
            if self.compensator.rank != 0:
                ranks = [
                    min(rank, *shape) if side in sides else 0
                    for side, shape in (("a", (m, k)), ("b", (k, n)))
                ]
        ra, rb = ranks
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

    @property
    def _zero_point(self) -> bool:
        """Whether the left operand has integer zero points."""
        return getattr(self.quantizer.left, "zero_point", None) == "integer"

    @property
    def _means(self) -> bool:
        return isinstance(self.compensator, MeanFix)

    @property
    def _aware(self) -> bool:
        return isinstance(self.compensator, LRQMMAware)

    def _rank(self, X: Array, side: str) -> int:
        """Rank of an operand's compensation, 0 for none."""
        if not isinstance(self.compensator, LowRank) or side not in self.compensator.sides:
            return 0
        rank = self.compensator.fixed_rank
        return int(min(DEFAULT_RANK if rank is None else rank, *X.shape))

    def _compensate(
        self, X: Coded, other: Coded | None, rank: int, side: int, kernels: Any
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

    def _space(self, side: str, kernels: Any, X: Array) -> dict[str, Any]:
        key = f"{side} {kernels.__name__} {X.device}"  # buffers stay with a library and device
        return self._spaces.named.setdefault(key, {})


def _check_k(k: int) -> None:
    if k > LARGEST_K:
        raise Unsupported(
            f"k is {k}; allowed: up to {LARGEST_K} with execution='fused', any with 'plain'"
        )


def _kernels(X: Array) -> Any:
    """The kernels of an array's library and device."""
    library = library_of(X)
    if library == "numpy" or (library == "torch" and X.device.type == "cpu"):
        return importlib.import_module("lrqmm.fused.cpu")
    if library == "cupy":
        return importlib.import_module("lrqmm.fused.cupy")
    if library == "torch" and X.device.type == "cuda":
        try:
            return importlib.import_module("lrqmm.fused.cuda")
        except ModuleNotFoundError as error:
            raise Unsupported(
                f"fused execution on CUDA tensors needs {error.name}, which is not installed; "
                "execution='plain' runs everywhere"
            ) from None
    raise Unsupported(
        f"no fused execution for {library} on this device: NumPy, torch on a CPU or CUDA, and CuPy "
        "have it; execution='plain' runs everywhere"
    )


def _current(X: Array) -> AbstractContextManager[Any]:
    """A context in which kernels are launched on the GPU of X."""
    if library_of(X) == "cupy":
        device: AbstractContextManager[Any] = X.device
        return device
    if library_of(X) == "torch" and X.device.type == "cuda":
        import torch

        return torch.cuda.device(X.device)
    return nullcontext()


def _tensor(X: Array) -> Any:
    """NumPy arrays as tensors of the same memory; others as they are."""
    if library_of(X) != "numpy":
        return X
    import torch  # slow to load, and planning a study needs none of it

    return torch.from_numpy(X if X.flags.writeable else np.asarray(_Unlocked(X)))


class _Unlocked:
    """The memory of a read-only array, which torch warns of although nothing writes to it."""

    def __init__(self, X: Array) -> None:
        self.X = X
        self.__array_interface__ = {**X.__array_interface__, "data": (X.ctypes.data, False)}
