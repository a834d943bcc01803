"""The public face of a method: checks at the door, then 2-D float32 matrices inside."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Any

import array_api_compat as compat
import numpy as np

from lrqmm import _checks, methods
from lrqmm._checks import Array
from lrqmm._repr import Shown, call
from lrqmm.backends import is_array, library_of
from lrqmm.composition import Cost


@dataclass(frozen=True)
class Prepared(Shown):
    """A right operand B made ready once for many products; from `Method.prepare`.

    Attributes
    ----------
    method : what B was prepared for; another one refuses it
    B : (..., k, n) array, as it was given
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

    def check_shape(self, m: int, k: int, n: int) -> None:
        """Raise ValueError where a parameter does not fit an m x k by k x n product."""
        self._implementation.check_shape(m, k, n)

    def cost(self, m: int, k: int, n: int) -> Cost:
        """Modelled operations and bytes of an m x k by k x n product, B not prepared."""
        cost: Cost = self._implementation.cost(m, k, n)
        return cost

    def predicted_error(self, A: Array, B: Array) -> float | None:
        """Relative error of A (m x k) times B (k x n) before it is multiplied, by O(n²) statistics
        (`lrqmm.apriori`); None for methods that it does not cover."""
        from lrqmm import apriori  # which is made of methods

        return apriori.prediction(self._implementation, A, B)

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
        check_finite : look for NaN and infinity (one pass over B)

        Raises
        ------
        TypeError : not an array, not floating
        ValueError : fewer than two dimensions, NaN, infinity or values beyond 2^120; a calibration
            of a method that takes none, or of another inner dimension
        """
        _check_matrix("B", B, check_finite)
        sample = self._sample(calibration, B)
        states = tuple(self._prepare(matrix, sample) for matrix in _matrices(B))
        return Prepared(self, B, states)

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

        Parameters
        ----------
        A : (..., m, k) array, floating
        B : (..., k, n) array of the same library and device, or what `prepare` returned
        out : (m, n) float32 array to write a product of two matrices to, contiguous; saves the
            allocation of a large result
        calibration, check_finite : as in `prepare`; with `check_finite=False` NaN and infinity
            give an undefined answer

        Returns
        -------
        (..., m, n) array of the operands' library, device and (promoted) dtype. Sums run in int32
        and float32; float64 operands are computed in float32. Leading dimensions broadcast as in
        `numpy.matmul`, and every matrix of a batch is quantised and compensated by itself.

        Raises
        ------
        TypeError : not arrays, of two libraries, not floating; a `Prepared` of another method
        ValueError : fewer than two dimensions, shapes that do not fit, two devices, NaN, infinity
            or values beyond 2^120, a rank above the limit
        """
        _check_matrix("A", A, check_finite)
        if isinstance(B, Prepared) and calibration is not None:
            self._refuse(calibration)
            raise ValueError("calibration is given, but B is prepared; allowed: in `prepare`")
        if isinstance(B, Prepared):
            if B.method is not self:
                raise TypeError(f"B was prepared for {B.method!r}; allowed: {self!r}")
            right, states = B.B, B.states
        else:
            right, states = B, None
            _check_matrix("B", B, check_finite)
        _check_pair(A, right)
        m, k, n = A.shape[-2], A.shape[-1], right.shape[-1]
        self.check_shape(m, k, n)
        xp = compat.array_namespace(A, right)
        dtype = xp.result_type(A.dtype, right.dtype)
        batch = _broadcast(A.shape[:-2], right.shape[:-2])
        if out is not None:
            _check_out(out, A, (*batch, m, n), dtype)
        if 0 in (m, k, n) or math.prod(batch) == 0:
            C = xp.zeros((*batch, m, n), dtype=dtype, device=compat.device(A))
            return C if out is None else _write(out, C)
        if states is None:
            rights = _matrices(right)
            scratch = len(rights) == 1  # so it need not outlive this product
            sample = self._sample(calibration, right)
            states = tuple(self._prepare(matrix, sample, scratch=scratch) for matrix in rights)
        lefts = _matrices(A)
        if out is not None:
            return _write(out, self._implementation.matmul(lefts[0], states[0], out))
        pairs = zip(
            _broadcast_index(A.shape[:-2], batch),
            _broadcast_index(right.shape[:-2], batch),
            strict=True,
        )
        products = [self._implementation.matmul(lefts[i], states[j]) for i, j in pairs]
        C = products[0] if not batch else xp.reshape(xp.stack(products), (*batch, m, n))
        return xp.astype(C, dtype, copy=False)

    def _refuse(self, calibration: Array) -> None:
        if not self.calibrated:
            raise ValueError(f"calibration is given, but method {self.name!r} takes none")

    def _sample(self, calibration: Array | None, B: Array) -> Array | None:
        """The calibration sample as a float32 matrix, checked."""
        if calibration is None:
            return None
        self._refuse(calibration)
        _check_matrix("calibration", calibration, True)
        _check_pair(calibration, B, name="calibration")
        if calibration.ndim != 2 or calibration.shape[0] == 0:
            raise ValueError(
                f"calibration has shape {_shape(calibration)}; allowed: at least one row, two "
                "dimensions"
            )
        return _matrices(calibration)[0]

    def _prepare(self, B: Array, sample: Array | None, *, scratch: bool = False) -> Any:
        if 0 in B.shape:
            return None
        given = {} if sample is None else {"calibration": sample}
        return self._implementation.prepare(B, scratch=scratch, **given)


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

    Matrices on disk (np.memmap, a path of a .npy file, a Dask array), and any where `memory_limit`
    is given, are multiplied tile by tile within `memory_limit` bytes (1 GiB unless given), into
    `out`, the path of a .npy file, where that is given; see `lrqmm.tiled.matmul`.

    Parameters
    ----------
    A : (..., m, k) array, floating; or a matrix on disk
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
    if memory_limit is not None or _on_disk(A) or _on_disk(B):
        from lrqmm import tiled

        limit: dict[str, Any] = {} if memory_limit is None else {"memory_limit": memory_limit}
        found: Array = tiled.matmul(A, B, method, out=out, **limit, **params)
        return found
    return get_method(method, **params).matmul(A, B, out=out, calibration=calibration)


def _on_disk(X: Any) -> bool:
    named = type(X).__module__.split(".")[0]
    return isinstance(X, str | os.PathLike | np.memmap) or named == "dask"


def _check_matrix(name: str, X: Array, check_finite: bool) -> None:
    if not is_array(X):
        raise TypeError(
            f"{name} is a {type(X).__name__}; allowed: a NumPy, torch or CuPy array of floats"
        )
    if X.ndim < 2:
        raise ValueError(f"{name} has shape {_shape(X)}; allowed: at least two dimensions")
    xp = compat.array_namespace(X)
    if str(X.dtype).rsplit(".", 1)[-1] not in ("float16", "bfloat16", "float32", "float64"):
        raise TypeError(f"{name} has dtype {X.dtype}; allowed: float16, bfloat16, float32, float64")
    if not check_finite:
        return
    X = X.detach() if hasattr(X, "detach") else X
    with np.errstate(over="ignore"):  # float64 beyond float32 is found here
        usable = xp.abs(xp.astype(X, xp.float32, copy=False)) <= _checks.LARGEST  # False for NaN
    if not bool(xp.all(usable)):
        wrong = tuple(int(i[0]) for i in xp.nonzero(~usable))
        raise ValueError(
            f"{name} holds {float(X[wrong])} at {wrong}; allowed: finite values up to "
            f"{_checks.LARGEST:.2g} in magnitude (sums beyond it overflow float32)"
        )


def _check_pair(A: Array, B: Array, name: str = "A") -> None:
    if library_of(A) != library_of(B):
        raise TypeError(
            f"{name} is of {library_of(A)} and B of {library_of(B)}; allowed: both of the same "
            "library"
        )
    if compat.device(A) != compat.device(B):
        raise ValueError(
            f"{name} is on {compat.device(A)} and B on {compat.device(B)}; allowed: the same device"
        )
    if A.shape[-1] != B.shape[-2]:
        raise ValueError(
            f"{name} has shape {_shape(A)} and B {_shape(B)}; allowed: as many columns in {name} "
            "as rows in B"
        )
    _broadcast(A.shape[:-2], B.shape[:-2])


def _check_out(out: Array, A: Array, shape: tuple[int, ...], dtype: Any) -> None:
    xp = compat.array_namespace(A)
    if not is_array(out) or library_of(out) != library_of(A):
        raise TypeError(f"out is a {type(out).__name__}; allowed: an array of {library_of(A)}")
    if tuple(out.shape) != shape or len(shape) != 2:
        raise ValueError(
            f"out has shape {_shape(out)}; allowed: {' x '.join(map(str, shape))}, the product's, "
            "and two dimensions only"
        )
    if out.dtype != xp.float32 or dtype != xp.float32:
        raise TypeError(f"out has dtype {out.dtype} for a {dtype} product; allowed: float32 both")
    if compat.device(out) != compat.device(A):
        raise ValueError(f"out is on {compat.device(out)}; allowed: {compat.device(A)}")
    contiguous = out.is_contiguous() if hasattr(out, "is_contiguous") else out.flags.c_contiguous
    if not contiguous:
        raise ValueError("out has strides of its own; allowed: a contiguous array")


def _write(out: Array, C: Array) -> Array:
    """C in `out`, where it may be already."""
    if C.shape != out.shape:
        raise ValueError(f"the result has shape {tuple(C.shape)}, not {tuple(out.shape)}")
    if C is not out:
        out[...] = C
    return out


def _matrices(X: Array) -> list[Array]:
    """The matrices of a batch, in order, float32 and without gradient."""
    xp = compat.array_namespace(X)
    X = X.detach() if hasattr(X, "detach") else X
    X = xp.astype(X, xp.float32, copy=False)
    if X.ndim == 2:
        return [X]
    flat = xp.reshape(X, (math.prod(X.shape[:-2]), *X.shape[-2:]))
    return [flat[i, :, :] for i in range(flat.shape[0])]


def _broadcast(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    """Broadcast batch shapes, or raise ValueError."""
    size = max(len(left), len(right))
    padded = [(1,) * (size - len(shape)) + tuple(shape) for shape in (left, right)]
    shape = []
    for a, b in zip(*padded, strict=True):
        if a != b and 1 not in (a, b):
            raise ValueError(
                f"batch dimensions {tuple(left)} of A and {tuple(right)} of B do not broadcast"
            )
        shape.append(b if a == 1 else a)
    return tuple(shape)


def _broadcast_index(shape: tuple[int, ...], batch: tuple[int, ...]) -> list[int]:
    """For each matrix of the broadcast batch, its index in a batch of `shape`."""
    own = np.arange(math.prod(shape)).reshape(shape)
    return [int(i) for i in np.broadcast_to(own, batch).ravel()]


def _shape(X: Array) -> str:
    return " x ".join(str(size) for size in X.shape) or "()"
