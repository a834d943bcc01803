"""What differs between array libraries: integer products, float precisions, synchronisation.

Everything else in `lrqmm` is array-API code, written once. A backend is a module here with the
functions of `generic`; `backend_of` finds the one that an array belongs to.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

import array_api_compat as compat
import numpy as np
from numpy.typing import NDArray

from lrqmm._checks import Array

LIBRARIES = {"numpy": "ndarray", "torch": "Tensor", "cupy": "ndarray"}
INT32_LIMIT = 2**31 - 1


def is_array(x: Any) -> bool:
    """Whether `x` is an array of a library that follows the array API, subclasses included."""
    return isinstance(x, np.ndarray) or bool(compat.is_array_api_obj(x))


def library_of(x: Array) -> str:
    """Name of the library of an array: 'numpy', 'torch', 'cupy' or another array-API library."""
    for library, array in LIBRARIES.items():  # quicker than array_api_compat, called often
        module = sys.modules.get(library)
        if module is not None and isinstance(x, getattr(module, array)):
            return library
    return str(compat.array_namespace(x).__name__)


def backend_of(x: Array) -> Any:
    """The backend of an array's library."""
    library = library_of(x)
    name = library if library in LIBRARIES else "generic"
    return importlib.import_module(f"{__name__}.{name}")  # imports the library only if used


def from_numpy(x: NDArray[np.float32], library: str, device: str = "auto") -> Array:
    """An array of 'numpy', 'torch' or 'cupy'; device 'auto' (a GPU where torch sees one), 'cpu',
    'cuda' or 'cuda:1'. ValueError for CuPy on a CPU."""
    if library == "numpy":
        return x
    if library == "torch":
        import torch

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.from_numpy(x).to(device)
    import cupy

    if device == "cpu":
        raise ValueError("device is 'cpu' with library 'cupy'; allowed: 'auto', 'cuda'")
    with cupy.cuda.Device(int(device.partition(":")[2] or cupy.cuda.Device().id)):
        return cupy.asarray(x)


def to_numpy(x: Array) -> NDArray[Any]:
    """A copy on the host, or the array itself where it is NumPy's.

    bfloat16, which NumPy lacks, as float32, which holds the same values.
    """
    if isinstance(x, np.ndarray):
        return x
    if hasattr(x, "get"):  # CuPy
        return np.asarray(x.get())
    x = x.detach().cpu()
    return np.asarray((x.float() if str(x.dtype) == "torch.bfloat16" else x).numpy())


def integer_route(x: Array) -> str:
    """How integer products of arrays like `x` are computed, in words; in every result row.

    Parameters
    ----------
    x : an array of the library and on the device in question, of any shape

    Examples
    --------
    >>> import numpy as np, lrqmm
    >>> lrqmm.integer_route(np.zeros((2, 2), np.int8))
    'exact float32 pieces (BLAS)'
    """
    return str(backend_of(x).integer_route(x))


def integer_matmul(a: Array, b: Array) -> Array:
    """Exact product of integer codes.

    Parameters
    ----------
    a, b : arrays of int8, or int16 with magnitudes up to 255; shapes (m, k) and (k, n), any layout.

    Returns
    -------
    (m, n) array of int32, or of int64 where k is so large that int32 could overflow.

    Raises
    ------
    TypeError : another dtype
    ValueError : not two dimensions, shapes that do not fit, int16 codes beyond 255

    Examples
    --------
    >>> import numpy as np, lrqmm
    >>> a, b = np.array([[127, -128]], np.int8), np.array([[127], [-128]], np.int8)
    >>> lrqmm.integer_matmul(a, b).tolist()
    [[32513]]
    """
    xp = compat.array_namespace(a, b)
    _check_codes(xp, "a", a)
    _check_codes(xp, "b", b)
    if a.shape[1] != b.shape[0]:
        raise ValueError(
            f"a has shape {tuple(a.shape)} and b {tuple(b.shape)}; "
            "allowed: as many columns in a as rows in b"
        )
    return _integer_matmul(xp, a, b)


def _check_codes(xp: ModuleType, name: str, x: Array) -> None:
    if x.ndim != 2:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; allowed: two dimensions")
    if x.dtype == xp.int8:
        return
    if x.dtype != xp.int16:
        raise TypeError(f"{name} has dtype {x.dtype}; allowed: int8, int16")
    if 0 not in x.shape and bool(xp.any((x > 255) | (x < -255))):
        raise ValueError(f"{name} holds int16 codes beyond -255 to 255, which is what is allowed")


def _integer_matmul(xp: ModuleType, a: Array, b: Array) -> Array:
    (m, k), n = a.shape, b.shape[1]
    if 0 in (m, k, n):
        return xp.zeros((m, n), dtype=xp.int32, device=compat.device(a))
    if a.dtype == xp.int16:  # 9-bit codes x = 2 (x >> 1) + (x & 1), both halves int8
        high, low = _halves(xp, a)
        return 2 * _integer_matmul(xp, high, b) + _integer_matmul(xp, low, b)
    if b.dtype == xp.int16:
        high, low = _halves(xp, b)
        return 2 * _integer_matmul(xp, a, high) + _integer_matmul(xp, a, low)
    product = backend_of(a).integer_matmul
    safe_k = INT32_LIMIT // (4 * 128 * 128)  # 4 leaves room for the halves of int16 codes
    if k <= safe_k:
        return product(a, b)
    total = xp.zeros((m, n), dtype=xp.int64, device=compat.device(a))
    for start in range(0, k, safe_k):
        piece = slice(start, min(start + safe_k, k))
        part = product(a[:, piece], b[piece, :])
        total = total + xp.astype(part, xp.int64)
    return total


def _halves(xp: ModuleType, x: Array) -> tuple[Array, Array]:
    one = xp.asarray(1, dtype=x.dtype, device=compat.device(x))
    return (
        xp.astype(xp.bitwise_right_shift(x, one), xp.int8),
        xp.astype(xp.bitwise_and(x, one), xp.int8),
    )
