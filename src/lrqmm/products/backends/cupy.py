"""CuPy: `gemmEx` with int8 operands and int32 sums (`int8 @ int8` misses the tensor cores)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import cupy
import numpy as np
from cupy_backends.cuda.libs import cublas

from lrqmm._checks import Array, Unsupported

CUDA_R_8I, CUDA_R_32I = 3, 10  # cudaDataType, which CuPy's cuBLAS module does not name


def plain(name: str, x: Array) -> Array:
    """The array itself."""
    return x


def overlap(x: Array, y: Array) -> bool:
    """Whether two arrays may share memory."""
    return bool(cupy.may_share_memory(x, y))


def written(x: Array) -> None:
    """Nothing keeps count of changes."""


def integer_route(x: Array) -> str:
    """How integer products are computed."""
    return "cublasGemmEx (int8, int32 sums)"


def integer_matmul(a: Array, b: Array) -> Array:
    """(m, k) int8 by (k, n) int8 -> (m, n) int32, exact; padded to multiples of 4 for cuBLAS."""
    (m, k), n = a.shape, b.shape[1]
    m4, k4, n4 = (-(-size // 4) * 4 for size in (m, k, n))
    left = cupy.zeros((m4, k4), dtype=cupy.int8)  # row-major: cuBLAS sees its transpose
    left[:m, :k] = a
    right = cupy.zeros((n4, k4), dtype=cupy.int8)
    right[:n, :k] = b.T
    out = cupy.empty((m4, n4), dtype=cupy.int32)
    one, zero = np.array(1, np.int32), np.array(0, np.int32)
    # column-major C^T (n4 x m4) = right (n4 x k4) @ left^T (k4 x m4)
    cublas.gemmEx(
        cupy.cuda.device.get_cublas_handle(),
        cublas.CUBLAS_OP_T,
        cublas.CUBLAS_OP_N,
        n4,
        m4,
        k4,
        one.ctypes.data,
        right.data.ptr,
        CUDA_R_8I,
        k4,
        left.data.ptr,
        CUDA_R_8I,
        k4,
        zero.ctypes.data,
        out.data.ptr,
        CUDA_R_32I,
        n4,
        cublas.CUBLAS_COMPUTE_32I,
        cublas.CUBLAS_GEMM_DEFAULT,
    )
    return out[:m, :n]


def float_matmul(A: Array, B: Array, precision: str, out: Array | None = None) -> Array:
    """A @ B of float32 arrays in float32."""
    if precision != "float32":
        raise Unsupported(f"{precision} products on CUDA are measured with torch, not CuPy")
    return cupy.matmul(A, B, out=out)


def usual_state(x: Array, precision: str) -> AbstractContextManager[None]:
    """No setting of the library changes what a product is."""
    return nullcontext()


def synchronize(x: Array) -> None:
    """Wait for the device's queue."""
    cupy.cuda.get_current_stream().synchronize()


def flush_cache(x: Array) -> None:
    """Overwrite the L2 cache, or a product would find its operands there."""
    cupy.zeros(2 * x.device.attributes["L2CacheSize"], dtype=cupy.int8)


def device_name(x: Array) -> str:
    """The GPU's name."""
    properties: dict[str, Any] = cupy.cuda.runtime.getDeviceProperties(x.device.id)
    return str(properties["name"].decode())
