"""torch on CPU and CUDA: `torch._int_mm`, and float products in float32, TF32 and bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import array_api_compat.torch as xp
import torch

from lrqmm._checks import Array, Unsupported
from lrqmm.backends import _float_chunks
from lrqmm.backends import numpy as numpy_backend


@cache
def _cpu_has_int8_dot() -> bool:
    # Without VNNI the CPU kernels go through saturating 16-bit sums: slow or wrong, never used.
    probe = getattr(torch.cpu, "_is_vnni_supported", None)
    return bool(probe and probe())


def integer_route(x: Array) -> str:
    """How integer products are computed."""
    if x.device.type == "cuda" or (x.device.type == "cpu" and _cpu_has_int8_dot()):
        return f"torch._int_mm ({x.device.type})"
    return f"exact float32 pieces ({x.device.type}, no int8 dot product)"


def integer_matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """(m, k) int8 by (k, n) int8 -> (m, n) int32, exact; into `out` where that is given."""
    if a.device.type == "cpu" and _cpu_has_int8_dot():
        column_major = b.stride() == (1, b.shape[0]) and 1 not in b.shape
        if not column_major and b.stride()[0] == 1 and 1 not in b.shape:
            b, column_major = _plain(b.T).T, True  # a slice of Bᵀ: quicker than turning it over
        a, b = _plain(a), b if column_major else _plain(b)
        if out is not None and 1 not in out.shape:
            return torch._int_mm(a, b, out=out)
        product = torch._int_mm(a, b)
    elif a.device.type == "cuda":
        product = _cuda_int_mm(a, b)
    else:
        with exact_float32():
            product = _float_chunks.integer_matmul(xp, a, b)
    return product if out is None else out.copy_(product)


def _plain(x: torch.Tensor) -> torch.Tensor:
    """Row-major with the strides to show for it.

    `contiguous()` leaves the stride of a dimension of size 1 as it is, and `_int_mm` on CPU then
    reads the wrong elements without a word.
    """
    if x.stride() == (x.shape[1], 1):
        return x
    return x.clone(memory_format=torch.contiguous_format)


def _cuda_int_mm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """`torch._int_mm` on CUDA wants m > 16, k and n multiples of 8, and is fast for K-major b."""
    (m, k), n = a.shape, b.shape[1]
    pad_m, pad_k, pad_n = max(32 - m, -m % 8), -k % 8, -n % 8
    a = _plain(torch.nn.functional.pad(a, (0, pad_k, 0, pad_m)))
    bt = _plain(torch.nn.functional.pad(b.mT, (0, pad_k, 0, pad_n)))
    return torch._int_mm(a, bt.mT)[:m, :n]


@contextmanager
def exact_float32(precision: str = "ieee") -> Iterator[None]:
    """Float32 products in 'ieee' or 'tf32' inside the block, whatever the user's setting."""
    settings = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in settings]
    settings[0].fp32_precision, settings[1].fp32_precision = precision, "ieee"
    try:
        yield
    finally:
        for setting, old in zip(settings, before, strict=True):
            setting.fp32_precision = old


def float_matmul(A: Array, B: Array, precision: str, out: Array | None = None) -> Array:
    """A @ B of float32 tensors in 'float32', 'tf32' or 'bfloat16'; the answer is float32."""
    if precision == "bfloat16":
        C = A.bfloat16() @ B.bfloat16()
        return C.float() if out is None else out.copy_(C)
    if precision == "tf32":
        if A.device.type != "cuda" or torch.cuda.get_device_capability(A.device) < (8, 0):
            raise Unsupported("TF32 needs a CUDA device of compute capability 8.0 or higher")
        with exact_float32("tf32"):
            return torch.matmul(A, B, out=out)
    with exact_float32():
        return torch.matmul(A, B, out=out)


def synchronize(x: Array) -> None:
    """Wait for the device's queue."""
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)


def flush_cache(x: Array) -> None:
    """Overwrite a GPU's L2 cache, or a product would find its operands there; no CPU's."""
    if x.device.type == "cuda":
        size = torch.cuda.get_device_properties(x.device).L2_cache_size
        torch.empty(2 * size, dtype=torch.int8, device=x.device).zero_()


def device_name(x: Array) -> str:
    """The GPU's or processor's name."""
    if x.device.type == "cuda":
        return str(torch.cuda.get_device_name(x.device))
    return numpy_backend.device_name(x)
