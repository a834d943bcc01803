"""NumPy: BLAS has no integer GEMM and NumPy's own is a plain loop, so float32 pieces are used."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from lrqmm._checks import Array, Unsupported
from lrqmm.products.backends._processor import processor_name
from lrqmm.products.backends.generic import flush_cache as flush_cache
from lrqmm.products.backends.generic import integer_matmul as integer_matmul
from lrqmm.products.backends.generic import synchronize as synchronize
from lrqmm.products.backends.generic import written as written


def plain(name: str, x: Array) -> Array:
    """A `numpy.ndarray` of native byte order whose strides compiled code can follow; copied only
    where `x` is none.

    Raises TypeError, which speaks of `name`, for a masked array.
    """
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; allowed: a plain one, as `.filled(0)` gives")
    x = np.asarray(x)  # of np.matrix, np.memmap and other subclasses
    native = x.astype(x.dtype.newbyteorder("="), copy=False)
    steps = x.strides if x.size and x.itemsize else ()
    if native.flags.aligned and all(step >= 0 and step % x.itemsize == 0 for step in steps):
        return native
    return np.array(native, order="C")


def overlap(x: Array, y: Array) -> bool:
    return np.may_share_memory(x, y)


def integer_route(x: Array) -> str:
    return "exact float32 pieces (BLAS)"


def float_matmul(A: Array, B: Array, precision: str, out: Array | None = None) -> Array:
    if precision != "float32":
        raise Unsupported(f"NumPy has no {precision} product")
    return np.matmul(A, B, out=out)


@contextmanager
def usual_state(x: Array, precision: str) -> Iterator[None]:
    """NumPy's own handling of float errors; and torch's usual state, which fused products need."""
    with np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"):
        if "torch" not in sys.modules:
            yield
            return
        from lrqmm.products.backends import torch as torch_backend

        with torch_backend.usual_state_on("cpu", precision):
            yield


def device_name(x: Array) -> str:
    return processor_name()
