"""CuPy: its arrays go through torch, in place, by DLPack; `int8 @ int8` of its own is no use.

DLPack makes the current stream of the one library wait for that of the other. Never run on a GPU.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import cupy
import torch

from lrqmm._checks import Array, Unsupported
from lrqmm.products.backends import torch as torch_backend
from lrqmm.products.backends.generic import plain as plain
from lrqmm.products.backends.generic import written as written


def overlap(x: Array, y: Array) -> bool:
    return bool(cupy.may_share_memory(x, y))


def as_tensor(x: Array) -> torch.Tensor:
    """A tensor of the same memory; Unsupported where torch has no CUDA."""
    if torch.version.cuda is None:
        raise Unsupported("CuPy arrays need a torch with CUDA; this one has none")
    return torch.utils.dlpack.from_dlpack(x)


def of_tensor(x: torch.Tensor) -> Array:
    """A CuPy array of the same memory."""
    return cupy.from_dlpack(x)


def integer_route(x: Array) -> str:
    return "torch._int_mm (cuda)"


def integer_matmul(a: Array, b: Array) -> Array:
    return of_tensor(torch_backend.integer_matmul(as_tensor(a), as_tensor(b)))


def float_matmul(A: Array, B: Array, precision: str, out: Array | None = None) -> Array:
    into = None if out is None else as_tensor(out)
    C = torch_backend.float_matmul(as_tensor(A), as_tensor(B), precision, into)
    return of_tensor(C) if out is None else out


def usual_state(x: Array, precision: str) -> AbstractContextManager[None]:
    return torch_backend.usual_state_on("cuda", precision)


def synchronize(x: Array) -> None:
    cupy.cuda.get_current_stream().synchronize()


def flush_cache(x: Array) -> None:
    cupy.zeros(2 * x.device.attributes["L2CacheSize"], dtype=cupy.int8)


def device_name(x: Array) -> str:
    properties: dict[str, Any] = cupy.cuda.runtime.getDeviceProperties(x.device.id)
    return str(properties["name"].decode())
