"""The public face of a method: checks at the door, then 2-D float32 matrices inside."""

from __future__ import annotations

import math
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import array_api_compat as compat

from lrqmm import methods
from lrqmm._checks import Array
from lrqmm._operands import (
    Operand,
    broadcast,
    broadcast_index,
    check_out,
    check_pair,
    check_range,
    checked_pair,
    shape_of,
    times_power,
)
from lrqmm._repr import Shown, call
from lrqmm.products.backends import backend_of
from lrqmm.products.composition import Cost


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
    operand: Operand = field(repr=False)
    states: tuple[Any, ...] = field(repr=False)


class Method:
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

    def __init__(self, name: str, implementation: Any) -> None:
        self.name = name
        self._implementation = implementation

    @property
    def parameters(self) -> dict[str, Any]:
        """All parameters with their values."""
        return dict(self._implementation.parameters)

    @property
    def code_bits(self) -> int | None:
        """Bits of a code; None where nothing is quantised."""
        quantizer = getattr(self._implementation, "quantizer", None)
        return None if quantizer is None else int(quantizer.code_bits)

    @property
    def calibrated(self) -> bool:
        """Whether it looks at left operands when B is prepared; without a sample, at A itself."""
        return bool(getattr(self._implementation, "calibrated", False))

    def emulated(self, like: Array) -> bool:
        """Whether products of arrays like this one are only imitated: their time means nothing."""
        found = getattr(self._implementation, "emulated", None)
        return found is not None and bool(found(like))

    def __repr__(self) -> str:
        given = self.parameters
        execution = {"execution": given["execution"]} if "execution" in given else {}
        usual = methods.preset(self.name).build(**execution).parameters
        return call("get_method", self.name, given=given, defaults={**usual, "execution": "plain"})

    def __eq__(self, other: object) -> bool:
        """Methods of one name with the same parameters are the same."""
        if not isinstance(other, Method):
            return NotImplemented
        return self.name == other.name and self.parameters == other.parameters

    def __hash__(self) -> int:
        return hash((self.name, tuple(sorted(self.parameters.items(), key=lambda item: item[0]))))

    def check_shape(self, m: int, k: int, n: int) -> None:
        """Raise ValueError where a parameter does not fit an m x k by k x n product."""
        self._implementation.check_shape(m, k, n)

    def cost(self, m: int, k: int, n: int) -> Cost:
        """Modelled operations and bytes of an m x k by k x n product, B not prepared."""
        cost: Cost = self._implementation.cost(m, k, n)
        return cost

    def predicted_error(self, A: Array, B: Array) -> float | None:
        """Relative error of A (m x k) times B (k x n) before it is multiplied, by O(n²) statistics
        (`lrqmm.products.apriori`); None for methods that it does not cover."""
        from lrqmm.products import apriori  # which is made of methods

        left, right = checked_pair(A, B)
        with self._usual_state(left):
            return apriori.prediction(self._implementation, left, right)

    def integer_route(self, like: Array) -> str:
        """How integer products of arrays like this one are computed, in words."""
        return str(self._implementation.integer_route(like))

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
        right = Operand.checked("B", B, check_finite)
        with self._usual_state(right.array):
            return Prepared(self, B, right, self._prepare(right, calibration))

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
        left = Operand.checked("A", A, check_finite)
        if isinstance(B, Prepared):
            if calibration is not None:
                self._refuse(calibration)
                raise ValueError("calibration is given, but B is prepared; allowed: in `prepare`")
            if B.method is not self and B.method != self:
                raise TypeError(f"B was prepared for {B.method!r}; allowed: {self!r}")
            right = B.operand
        else:
            right = Operand.checked("B", B, check_finite)
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
                known = isinstance(B, Prepared)
                states = B.states if known else self._prepare(right, calibration, scratch=True)
                C = self._products(left, right, states, batch, out)
                C = times_power(C, left.exponent + right.exponent, dtype)
        return C if out is None else _write(out, C)

    def _products(
        self,
        left: Operand,
        right: Operand,
        states: tuple[Any, ...],
        batch: tuple[int, ...],
        out: Array | None,
    ) -> Array:
        """The products of all pairs of a batch, (*batch, m, n) float32."""
        lefts = left.matrices()
        if out is not None:
            return self._implementation.matmul(lefts[0], states[0], out)
        pairs = zip(
            broadcast_index(left.array.shape[:-2], batch),
            broadcast_index(right.array.shape[:-2], batch),
            strict=True,
        )
        products = [self._implementation.matmul(lefts[i], states[j]) for i, j in pairs]
        if not batch:
            return products[0]
        xp = compat.array_namespace(*products)
        return xp.reshape(xp.stack(products), (*batch, *products[0].shape))

    def _usual_state(self, like: Array) -> AbstractContextManager[None]:
        precision = getattr(self._implementation, "float32_precision", "ieee")
        state: AbstractContextManager[None] = backend_of(like).usual_state(like, precision)
        return state

    def _refuse(self, calibration: Array) -> None:
        if not self.calibrated:
            raise ValueError(f"calibration is given, but method {self.name!r} takes none")

    def _prepare(
        self, B: Operand, calibration: Array | None, *, scratch: bool = False
    ) -> tuple[Any, ...]:
        """What the method makes of each matrix; `scratch`: the first product is the only one."""
        matrices = B.matrices()
        sample = {} if calibration is None else {"calibration": self._sample(calibration, B)}
        scratch = scratch and len(matrices) == 1
        return tuple(
            None
            if 0 in matrix.shape
            else self._implementation.prepare(matrix, scratch=scratch, **sample)
            for matrix in matrices
        )

    def _sample(self, calibration: Array, B: Operand) -> Array:
        """The calibration sample as a float32 matrix, checked."""
        self._refuse(calibration)
        sample = Operand.checked("calibration", calibration, True)
        check_pair(sample, B, name="calibration")
        if sample.array.ndim != 2 or sample.array.shape[0] == 0:
            raise ValueError(
                f"calibration has shape {shape_of(sample.array)}; allowed: at least one row, two "
                "dimensions"
            )
        return sample.matrices()[0]


def get_method(name: str, **params: Any) -> Method:
    """The named method with these parameters (`list_methods()` has the names).

    Names of parts joined by `+` are a method too: "hadamard+octav+lrqmm" is that transform,
    quantiser and compensator; `list_components()` has the names.

    Parameters
    ----------
    name : of a method, or of parts joined by `+`
    **params : of the method; `lrqmm methods NAME` lists them with their defaults

    Raises
    ------
    ValueError : unknown name, or a parameter's value is not allowed
    TypeError : a parameter that the method does not have, or of the wrong type

    Examples
    --------
    >>> import lrqmm
    >>> lrqmm.get_method("lrqmm", bits=4, rank=8)
    get_method('lrqmm', bits=4, rank=8)
    >>> lrqmm.get_method("hadamard+octav+lrqmm", bits=4).parameters["bits"]
    4
    """
    return Method(name, methods.preset(name).build(**params))


def matmul(
    A: Any,
    B: Any,
    method: str = "lrqmm",
    *,
    out: Any = None,
    memory_limit: int | None = None,
    calibration: Array | None = None,
    **params: Any,
) -> Array:
    """A (..., m, k) times B (..., k, n) by a named method; see `Method.matmul` and `get_method`.

    Paths of .npy files and Dask arrays, and any operands where `memory_limit` is given, are
    multiplied tile by tile within `memory_limit` bytes (1 GiB unless given), into `out`, the path
    of a .npy file, where that is given; see `lrqmm.tiled.matmul`. A memory map is an array as
    others are: say `memory_limit` to have it multiplied in tiles.

    Parameters
    ----------
    A : (..., m, k) array, floating; or a matrix on disk, see above
    B : (..., k, n) likewise; `W.T` for a weight stored as (out, in)
    method : its name, as for `get_method`; each method's file names its source
    out : (m, n) float32 array, or the path of a .npy file, to write the product to
    memory_limit : bytes of all buffers together
    calibration : (s, k) array, a sample of left operands, for methods that calibrate
    **params : of the method

    Returns
    -------
    (..., m, n) array of the operands' library, device and (promoted) dtype

    Raises
    ------
    TypeError, ValueError : as `get_method` and `Method.matmul`
    Unsupported : a method that this device or library cannot run

    Examples
    --------
    >>> import numpy as np, lrqmm
    >>> A, B = np.random.default_rng(0).random((2, 64, 64), dtype=np.float32)
    >>> C = lrqmm.matmul(A, B, method="lrqmm", bits=8, rank=4)
    >>> bool(np.linalg.norm(C - A @ B) < 1e-3 * np.linalg.norm(A @ B))
    True
    """
    if memory_limit is not None or _in_tiles(A) or _in_tiles(B):
        from lrqmm import tiled

        limit: dict[str, Any] = {} if memory_limit is None else {"memory_limit": memory_limit}
        found: Array = tiled.matmul(A, B, method, out=out, **limit, **params)
        return found
    return get_method(method, **params).matmul(A, B, out=out, calibration=calibration)


def _in_tiles(X: Any) -> bool:
    return isinstance(X, str | os.PathLike) or type(X).__module__.split(".")[0] == "dask"


def _write(out: Array, C: Array) -> Array:
    """C in `out`, where it may be already."""
    if C.shape != out.shape:
        raise ValueError(f"the result has shape {tuple(C.shape)}, not {tuple(out.shape)}")
    if C is out:
        backend_of(out).written(out)
    else:
        out[...] = C
    return out
