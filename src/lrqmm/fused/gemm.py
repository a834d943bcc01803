"""Integer products of the fused CPU path by compiled kernels of this project; see `gemm.cpp`.

The right operand is packed once, the result scaled and corrected before it is written. What
compiled code is given is checked here. They are not used on a processor
with AMX, whose tiles `torch._int_mm` uses and these kernels do not.
"""

import ctypes
import warnings
from dataclasses import dataclass
from functools import cache

import torch

from lrqmm.fused.native import level
from lrqmm.fused.native import library as _library
from lrqmm.fused.passes import FLOAT32, INT8, INT32, check, check_vector
from lrqmm.products.backends._processor import instruction_sets

FEW = 256
"""Rows up to which a left operand stays in cache while the right one is packed panel by panel."""


@dataclass(frozen=True)
class Packed:
    """B (k, n) int8 in the layout of the kernels: panels, flat int8."""

    panels: torch.Tensor
    k: int
    n: int


@cache
def usable() -> bool:
    """Whether products run on these kernels: compiled, right in a trial, and not beside AMX."""
    library = _library()
    if library is None or "AMX-INT8" in instruction_sets():
        return False
    if exact(library):
        return True
    warnings.warn("the compiled products give wrong sums here; torch's are used", stacklevel=2)
    return False


def described() -> str:
    """What products of the fused path run on, and why, in words."""
    if usable():
        return f"C++ ({level()})"
    reason = "nothing compiled" if _library() is None else "AMX"
    return f"torch._int_mm ({reason})"


def exact(library: ctypes.CDLL) -> bool:
    """Whether sums of extreme and of mixed codes are right, beyond whole blocks and panels."""
    m, k, n = 14, 131, 133
    mixed = torch.arange(max(m * k, k * n), dtype=torch.int64) * 7919 % 256 - 128
    for codes in (mixed, torch.full_like(mixed, -128)):
        A, B = codes[: m * k].view(m, k), codes[: k * n].view(k, n)
        sums = product(A.to(INT8), pack(B.to(INT8), library=library), library=library)
        if not torch.equal(sums.to(torch.int64), A @ B):
            return False
    return True


def size(B: torch.Tensor) -> tuple[int]:
    """The shape of packed B (k, n)."""
    library = _library()
    assert library is not None
    return (library.packed_size(*B.shape),)


def pack(
    B: torch.Tensor, panels: torch.Tensor | None = None, library: ctypes.CDLL | None = None
) -> Packed:
    """B (k, n) int8, one of its strides 1, packed; into `panels` where those are large enough."""
    library = library or _library()
    assert library is not None
    k, n = B.shape
    row, column = strides(B)
    size = library.packed_size(k, n)
    if panels is None:
        panels = torch.empty(size, dtype=INT8, device="cpu")
    check("panels", panels, INT8, (size,), at_least=True, contiguous=True)
    library.pack(B.data_ptr(), row, column, k, n, panels.data_ptr(), torch.get_num_threads())
    return Packed(panels, k, n)


def product(
    A: torch.Tensor, B: torch.Tensor | Packed, library: ctypes.CDLL | None = None
) -> torch.Tensor:
    """A (m, k) int8, its rows contiguous, times B (k, n): (m, n) int32, exact up to k = 131,071."""
    library = library or _library()
    assert library is not None
    m, k = A.shape
    n = B.n if isinstance(B, Packed) else int(B.shape[1])
    _check_left(A, B.k if isinstance(B, Packed) else int(B.shape[0]))
    sums = torch.empty((m, n), dtype=INT32, device="cpu")
    threads = torch.get_num_threads()
    if isinstance(B, torch.Tensor):
        row, column = strides(B)
        if m <= FEW:
            library.multiply_thin(
                A.data_ptr(), A.stride(0), B.data_ptr(), row, column, m, k, n, sums.data_ptr(),
                threads,
            )  # fmt: skip
            return sums
        B = pack(B, library=library)
    library.multiply(
        A.data_ptr(), A.stride(0), B.panels.data_ptr(), m, k, n, sums.data_ptr(), None, n, None,
        None, None, None, 0, threads,
    )  # fmt: skip
    return sums


def scaled_product(
    A: torch.Tensor,
    B: Packed,
    s: torch.Tensor,
    t: torch.Tensor,
    X: torch.Tensor,
    Y: torch.Tensor,
    C: torch.Tensor,
) -> None:
    """C = s_i t_j (A B)_ij + (X Yᵀ)_ij, A (m, k) int8, B (k, n), X (m, q) and Y (n, q) contiguous;
    q = 0 for no update. Sums in int32, the rest in float32."""
    library = _library()
    assert library is not None
    m, q = X.shape
    _check_left(A, B.k)
    check("C", C, FLOAT32, (A.shape[0], B.n))
    check_vector("s", s, A.shape[0])
    check_vector("t", t, B.n)
    check("X", X, FLOAT32, (A.shape[0], q), contiguous=True)
    check("Y", Y, FLOAT32, (B.n, q), contiguous=True)
    library.multiply(
        A.data_ptr(), A.stride(0), B.panels.data_ptr(), m, B.k, B.n, None, C.data_ptr(),
        C.stride(0), s.data_ptr(), t.data_ptr(), X.data_ptr(), Y.data_ptr(), q,
        torch.get_num_threads(),
    )  # fmt: skip


def _check_left(A: torch.Tensor, k: int) -> None:
    check("A", A, INT8, (int(A.shape[0]), k))


def strides(B: torch.Tensor) -> tuple[int, int]:
    """The strides of B, one of them 1: rows or columns of memory."""
    (k, n), (row, column) = B.shape, B.stride()
    if column == 1 or n == 1:
        check("B", B, INT8, (k, n))
        return row, 1
    check("B", B.T, INT8, (n, k))
    return 1, column
