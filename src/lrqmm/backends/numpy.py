"""NumPy: BLAS has no integer GEMM and NumPy's own is a plain loop, so float32 pieces are used."""

from __future__ import annotations

import platform

import numpy as np

from lrqmm._checks import Array, Unsupported
from lrqmm.backends import _float_chunks


def integer_route(x: Array) -> str:
    """How integer products are computed."""
    return "exact float32 pieces (BLAS)"


def integer_matmul(a: Array, b: Array) -> Array:
    """(m, k) int8 by (k, n) int8 -> (m, n) int32, exact."""
    return _float_chunks.integer_matmul(np, a, b)


def float_matmul(A: Array, B: Array, precision: str, out: Array | None = None) -> Array:
    """Float product; NumPy has float32 only."""
    if precision != "float32":
        raise Unsupported(f"NumPy has no {precision} product")
    return np.matmul(A, B, out=out)


def synchronize(x: Array) -> None:
    """NumPy returns when the work is done."""


def flush_cache(x: Array) -> None:
    """A processor's cache is left as the call before it leaves it."""


def device_name(x: Array) -> str:
    """The processor's name."""
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
