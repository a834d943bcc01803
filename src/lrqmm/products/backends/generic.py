"""Any other array-API library (array-api-strict in the tests): correct, not fast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from array_api_compat import array_namespace

from lrqmm._checks import Array, Unsupported
from lrqmm.products.backends import _float_chunks


def plain(name: str, x: Array) -> Array:
    """The array itself."""
    return x


def overlap(x: Array, y: Array) -> bool:
    """Whether two arrays may share memory."""
    return x is y


def written(x: Array) -> None:
    """Nothing keeps count of changes."""


def integer_route(x: Array) -> str:
    """How integer products are computed."""
    return "exact float32 pieces"


def integer_matmul(a: Array, b: Array) -> Array:
    """(m, k) int8 by (k, n) int8 -> (m, n) int32, exact."""
    return _float_chunks.integer_matmul(array_namespace(a), a, b)


def float_matmul(A: Array, B: Array, precision: str, out: Array | None = None) -> Array:
    """Float product in float32."""
    if precision != "float32":
        raise Unsupported(f"{array_namespace(A).__name__} has no {precision} product")
    return A @ B


def usual_state(x: Array, precision: str) -> AbstractContextManager[None]:
    """No setting of the library changes what a product is."""
    return nullcontext()


def synchronize(x: Array) -> None:
    """Nothing to wait for: calls return when the work is done."""


def flush_cache(x: Array) -> None:
    """A processor's cache is left as the call before it leaves it."""


def device_name(x: Array) -> str:
    """The library's own word for the device."""
    return str(x.device)
