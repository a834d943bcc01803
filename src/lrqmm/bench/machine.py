"""What the machine can do at most, and what it did: rates, clock, peak memory."""

import ctypes
import gc
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import array_api_compat as compat
import numpy as np
import psutil
import torch

from lrqmm._checks import Array
from lrqmm.products.backends import backend_of, library_of
from lrqmm.timing import time_products

COPIED_BYTES = {"cpu": 2**28, "cuda": 2**32}  # well beyond the caches
GEMM_SIZE = {"cpu": 2048, "cuda": 8192}
SAMPLES = 5


def ceiling(like: Array) -> dict[str, float]:
    """Measured rates of the device of `like`, once per process: what a product reaches at best.

    Returns
    -------
    copy_bytes_per_second (read and written, beyond the caches), float_operations_per_second of a
    square SGEMM and integer_operations_per_second of the exact int8 product, a multiply-add as two
    operations; the best of several samples each
    """
    if library_of(like) == "numpy":
        like = torch.from_numpy(np.empty(1, np.float32))  # torch has the CPU's int8 product
    key = (library_of(like), str(compat.device(like)))
    if key not in _ceilings:
        _ceilings[key] = _measure(like)
    return _ceilings[key]


_ceilings: dict[tuple[str, str], dict[str, float]] = {}


def _measure(like: Array) -> dict[str, float]:
    xp, device = compat.array_namespace(like), compat.device(like)
    kind = "cuda" if is_cuda(like) else "cpu"
    backend = backend_of(like)
    n = GEMM_SIZE[kind]
    source = xp.ones(COPIED_BYTES[kind] // 4, dtype=xp.float32, device=device)
    target = xp.zeros_like(source)
    numbers = np.random.default_rng(0).integers(-127, 128, (n, n))
    codes = xp.asarray(numbers.astype(np.int8), device=device)
    floats = xp.asarray(numbers.astype(np.float32), device=device)
    out = xp.empty_like(floats)
    # fresh memory is slow on a CPU; CuPy's comes from its pool
    into = {} if library_of(like) == "cupy" else {"out": xp.empty_like(out, dtype=xp.int32)}

    def copy() -> None:
        target[...] = source

    float_product = partial(backend.float_matmul, floats, floats, "float32", out)
    integer_product = partial(backend.integer_matmul, codes, codes.T, **into)
    calls: dict[str, tuple[Callable[[], object], float]] = {
        "copy_bytes_per_second": (copy, 2.0 * COPIED_BYTES[kind]),
        "float_operations_per_second": (float_product, 2.0 * n**3),
        "integer_operations_per_second": (integer_product, 2.0 * n**3),
    }
    products = {name: call for name, (call, _) in calls.items()}
    seconds = time_products(products, SAMPLES, partial(backend.synchronize, like))
    return {name: work / min(seconds[name])[0] for name, (_, work) in calls.items()}


def is_cuda(x: Array) -> bool:
    """Whether an array lives on a GPU."""
    return library_of(x) == "cupy" or "cuda" in str(compat.device(x))


def clock_hz(like: Array) -> float | None:
    """The device's present clock; None where it cannot be read."""
    if library_of(like) == "torch" and is_cuda(like):
        try:
            return 1e6 * float(torch.cuda.clock_rate(like.device))
        except (RuntimeError, ImportError):  # no NVML
            return None
    if is_cuda(like):
        return None
    frequency = psutil.cpu_freq()
    return 1e6 * frequency.current if frequency and frequency.current else None


def peak_bytes(product: Callable[[], object], like: Array) -> float | None:
    """Memory that a call needs beyond what is there: work space, temporaries and result.

    On a GPU torch's allocator counts it; on Linux it is the growth of resident memory, to the page.
    None elsewhere.
    """
    if library_of(like) == "torch" and is_cuda(like):
        held = torch.cuda.memory_allocated(like.device)
        torch.cuda.reset_peak_memory_stats(like.device)
        product()
        return float(torch.cuda.max_memory_allocated(like.device) - held)
    if is_cuda(like) or sys.platform != "linux":
        return None
    gc.collect()
    _give_back()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    except OSError:
        return None
    before = _status("VmRSS")
    keep: Any = product()
    del keep
    return max(0.0, _status("VmHWM") - before)


def _give_back() -> None:
    """Return freed memory to the system, or a product would find it again uncounted."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status(key: str) -> float:
    match = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return 1024.0 * int(match.group(1)) if match else 0.0
