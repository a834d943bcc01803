"""Methods by name, and `matmul`, which multiplies by one."""

import os
from typing import Any

from lrqmm import methods
from lrqmm._checks import Array
from lrqmm.products.method import Method, Prepared

__all__ = ["Method", "Prepared", "get_method", "matmul"]


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
    return methods.preset(name).build(**params)


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

        if calibration is not None:
            raise ValueError(
                "calibration is given with operands that are multiplied in tiles; allowed: "
                "operands in memory without memory_limit"
            )
        limit: dict[str, Any] = {} if memory_limit is None else {"memory_limit": memory_limit}
        return tiled.matmul(A, B, method, out=out, **limit, **params)
    return get_method(method, **params).matmul(A, B, out=out, calibration=calibration)


def _in_tiles(X: Any) -> bool:
    return isinstance(X, str | os.PathLike) or type(X).__module__.split(".")[0] == "dask"
