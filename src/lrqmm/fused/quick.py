"""The short way in for what is multiplied most: a float32 matrix on the CPU by prepared weights.

The door of every method (`products.method`) looks at all that can be wrong, in some hundred
microseconds. What is taken here needs no more than these tests; whatever else, wrong or not, goes
through the door, and the first product of each height with it.
"""

from typing import Any

import numpy as np
import torch

from lrqmm._checks import Array
from lrqmm.fused import cpu, groups, whole
from lrqmm.fused.coded import Coded, PreparedGroups
from lrqmm.fused.kernels import Buffers, Plan
from lrqmm.fused.native import library as _library
from lrqmm.products.backends import numpy as numpy_backend
from lrqmm.products.backends import torch as torch_backend
from lrqmm.products.operands import USUAL

SMALLEST, LARGEST = 2.0**-USUAL, 2.0**USUAL
FLOAT32 = np.dtype(np.float32)


def product(
    A: Array,
    B: Array,
    right: Coded | PreparedGroups,
    plan: Plan,
    out: Array | None,
    space: Buffers,
    *,
    check_finite: bool,
) -> Array | None:
    """A (m, k) times B as it was prepared, (m, n); None where the door must look.

    The answer is the door's: the same compiled call on the same numbers.
    """
    memory = _rows(A)
    if memory is None or type(A) is not type(B) or A.shape[1] != B.shape[0]:
        return None
    (m, k), n = A.shape, int(B.shape[1])
    if out is not None and not _writable(out, (m, n), A, B):
        return None
    if check_finite:
        library = _library()
        assert library is not None
        largest = library.largest(memory[0], m, k, memory[1], torch.get_num_threads())
        if not SMALLEST <= largest <= LARGEST:
            return None
    C: Any = np.empty((m, n), np.float32) if out is None else out
    result = (C.ctypes.data if isinstance(C, np.ndarray) else C.data_ptr(), n)
    if isinstance(right, Coded):
        work = cpu.take(space, "work", (2 * m * k,), torch.int8).data_ptr()
        done = whole.run(memory, m, right, plan, result, work)
    else:
        work = cpu.take(space, "work", (right.work(m),), torch.int8).data_ptr()
        done = groups.run(memory, m, right, plan, result, work)
    if not done:
        return None
    if not isinstance(A, torch.Tensor):
        return C
    if out is None:
        return torch.from_numpy(C)
    torch_backend.written(out)
    return out


def _rows(X: Any) -> tuple[int, int] | None:
    """Address and stride of a plain float32 matrix with rows in memory; None for all else."""
    if type(X) is torch.Tensor:
        if not _plain(X) or X.dim() != 2 or X.stride(1) != 1 or X.is_neg():
            return None
        return X.data_ptr(), X.stride(0)
    if type(X) is np.ndarray:
        if X.dtype != FLOAT32 or X.ndim != 2 or not X.flags.aligned:
            return None
        row, column = X.strides
        if column != 4 or row < 0 or row % 4:
            return None
        return X.ctypes.data, row // 4
    return None


def _plain(X: torch.Tensor) -> bool:
    return (
        X.dtype is torch.float32
        and X.is_cpu
        and X.layout is torch.strided
        and not X.is_nested
        and not X._is_zerotensor()
        and not torch._C._functorch.is_functorch_wrapped_tensor(X)
        and not torch.is_inference_mode_enabled()
    )


def _writable(out: Any, shape: tuple[int, int], A: Array, B: Array) -> bool:
    """Whether a result can be written to `out`, of A's library, apart from A and B."""
    if type(out) is not type(A) or tuple(out.shape) != shape:
        return False
    if type(out) is torch.Tensor:
        return (
            _plain(out)
            and out.is_contiguous()
            and not out.requires_grad
            and not out.is_neg()
            and not torch_backend.overlap(out, A)
            and not torch_backend.overlap(out, B)
        )
    return (
        out.dtype == FLOAT32
        and out.flags.carray  # contiguous, aligned, writeable
        and not numpy_backend.overlap(out, A)
        and not numpy_backend.overlap(out, B)
    )
