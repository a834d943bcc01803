"""Any other array-API library (array-api-strict in the tests): correct, not fast.

A float32 product of integers is exact while every partial sum stays within 2^24, so the inner
dimension is cut into pieces short enough for that: 1024 columns at 8 bits, over 300,000 at 4 bits.

What these functions do is said here; those of the other backends do the same.
"""

from contextlib import AbstractContextManager, nullcontext
from types import ModuleType

from array_api_compat import array_namespace

from lrqmm._checks import Array, Unsupported

EXACT = 2**24


def plain(name: str, x: Array) -> Array:
    """A plain array of the library with the values of x, whose memory compiled code may walk over;
    a copy only where needed. TypeError, which speaks of `name`, where there is none."""
    return x


def overlap(x: Array, y: Array) -> bool:
    """Whether two arrays may share memory."""
    return x is y


def written(x: Array) -> None:
    """Tell the library that compiled code has changed an array in place; here nothing counts."""


def integer_route(x: Array) -> str:
    """How integer products are computed."""
    return "exact float32 pieces"


def integer_matmul(a: Array, b: Array) -> Array:
    """(m, k) int8 by (k, n) int8 -> (m, n) int32, exact."""
    xp, k = array_namespace(a), a.shape[1]
    step = EXACT // max(_largest(xp, a) * _largest(xp, b), 1)
    total = None
    for start in range(0, k, step):
        piece = slice(start, min(start + step, k))
        left, right = xp.astype(a[:, piece], xp.float32), xp.astype(b[piece, :], xp.float32)
        part = xp.astype(left @ right, xp.int32)
        total = part if total is None else total + part
    return total


def _largest(xp: ModuleType, x: Array) -> int:
    return max(int(xp.max(x)), -int(xp.min(x)))


def float_matmul(A: Array, B: Array, precision: str, out: Array | None = None) -> Array:
    """A @ B of float32 arrays in 'float32', 'tf32' or 'bfloat16', float32; Unsupported where the
    library or device has no such product."""
    if precision != "float32":
        raise Unsupported(f"{array_namespace(A).__name__} has no {precision} product")
    return A @ B


def usual_state(x: Array, precision: str) -> AbstractContextManager[None]:
    """A context in which no setting of the user's changes a product of arrays like x; float32
    products run in `precision`, 'ieee' or 'tf32'. This library has no such setting."""
    return nullcontext()


def synchronize(x: Array) -> None:
    """Wait for the device's queue; here calls return when the work is done."""


def flush_cache(x: Array) -> None:
    """Overwrite a GPU's cache, or a product would find its operands there; no CPU's."""


def device_name(x: Array) -> str:
    """The GPU's or processor's name; here the library's own word for the device."""
    return str(x.device)
