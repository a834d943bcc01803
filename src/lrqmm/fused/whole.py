"""A whole fused product on a CPU in one compiled call; `algorithm.cpp` has its steps.

They are those of `algorithm.py`, which runs where nothing was compiled, on a GPU, and for what the
call does not cover: offsets, oversampled sketches, bases too ill-conditioned for Cholesky QR.
"""

import ctypes
from functools import lru_cache
from typing import Any

import torch
from numpy.typing import NDArray

from lrqmm.fused import gemm, thin
from lrqmm.fused.coded import UNIT, Coded
from lrqmm.fused.kernels import Plan
from lrqmm.fused.native import FLOAT, POINTER, SIZE
from lrqmm.fused.native import library as _library
from lrqmm.fused.passes import FLOAT32, MODES, check
from lrqmm.products import phases
from lrqmm.products.lowrank import LEFT, RIGHT
from lrqmm.products.rsvd import sketch_numbers

_signs = lru_cache(maxsize=16)(thin.signs)

PHASES = ("quantize", "sketch", "factorize", "product", "correct")
INT32 = ctypes.c_int32


class Matrix(ctypes.Structure):
    _fields_ = (("data", POINTER), ("row", SIZE), ("column", SIZE))


class Operand(ctypes.Structure):
    _fields_ = (
        ("rows", SIZE), ("k", SIZE), ("rank", SIZE),
        ("codes", Matrix), ("digits", Matrix), ("thin", Matrix),
        ("scale", POINTER), ("basis", POINTER), ("thin_scale", POINTER), ("panels", POINTER),
    )  # fmt: skip


class Job(ctypes.Structure):
    _fields_ = (
        ("A", POINTER), ("ld_A", SIZE), ("m", SIZE), ("C", POINTER), ("ld_C", SIZE),
        ("codes", POINTER), ("digits", POINTER), ("rank_a", SIZE), ("rank_b", SIZE),
        ("signs", POINTER), ("omega_a", POINTER), ("omega_b", POINTER), ("seconds", POINTER),
        ("top", FLOAT), ("unit", FLOAT), ("mode", INT32), ("aware", INT32), ("full", INT32),
        ("iterations", INT32), ("threads", INT32),
    )  # fmt: skip


def covers(plan: Plan, right: Coded) -> bool:
    """Whether one call does it: packed by this project's kernels, no offsets, no oversampling."""
    return (
        right.packed is not None
        and right.offset is None
        and (plan.options is None or plan.options.oversampling == 0)
    )


def multiply(
    A: torch.Tensor, right: Coded, plan: Plan, C: torch.Tensor, space: torch.Tensor
) -> bool:
    """C = A B corrected, A (m, k) float32 with rows in memory, C (m, n) float32; `space` at least
    2 m k int8. False, and C as it was, where a basis is too ill-conditioned."""
    m, k = A.shape
    check("A", A, FLOAT32, (m, right.packed.k))
    check("C", C, FLOAT32, (m, right.rows))
    check("space", space, torch.int8, (2 * m * k,), at_least=True, contiguous=True)
    left, result = (A.data_ptr(), A.stride(0)), (C.data_ptr(), C.stride(0))
    return run(left, m, right, plan, result, space.data_ptr())


def run(
    left: tuple[int, int],
    m: int,
    right: Coded,
    plan: Plan,
    result: tuple[int, int],
    space: int,
) -> bool:
    """The same by addresses and strides, which the caller has checked."""
    library = _library()
    assert library is not None
    k, n = right.packed.k, right.packed.n
    # the rest of an aware sketch's width depends on both operands
    rank_a = min(plan.rank, n) if plan.aware else plan.rank
    rank_b = min(int(right.room.shape[0]) - n, n, k, m) if plan.aware else 0
    options = plan.options
    keep: list[NDArray[Any]] = []
    if right.operand is None:
        right.operand = operand(right, found_here=plan.aware)
    job = Job(
        *left, m, *result, space, space + m * k if rank_a or rank_b else None, rank_a, rank_b,
        top=2 ** (plan.bits - 1) - 1, unit=UNIT[plan.rounding], mode=MODES.index(plan.rounding),
        threads=torch.get_num_threads(),
    )  # fmt: skip
    if options is not None:
        job.aware, job.full = plan.aware, options.terms == "full"
        job.iterations = options.power_iterations
    if rank_a and not plan.aware:
        keep.append(_signs(k, rank_a, options.sketch, (options.seed, LEFT)))
        job.signs = keep[-1].ctypes.data
    if rank_a and plan.aware:
        keep.append(sketch_numbers(n, rank_a, options.sketch, (options.seed, LEFT)))
        job.omega_a = keep[-1].ctypes.data
    if rank_b:
        keep.append(sketch_numbers(m, rank_b, options.sketch, (options.seed, RIGHT)))
        job.omega_b = keep[-1].ctypes.data
    return _timed(library.whole_product, job, right.operand)


def compensate(right: Coded, rank: int, options: Any, side: int) -> bool:
    """Put the low-rank part of its residual into a coded operand, as `algorithm.compensate` does.
    False, and the operand as it was, where the basis is too ill-conditioned."""
    library = _library()
    assert library is not None
    rows, k = right.rows, int(right.room.shape[1])
    basis = torch.empty((rows, rank), dtype=FLOAT32, device="cpu")
    scale = torch.empty(rank, dtype=FLOAT32, device="cpu")
    signs = _signs(k, rank, options.sketch, (options.seed, side))
    job = Job(
        signs=signs.ctypes.data, iterations=options.power_iterations, unit=right.unit,
        threads=torch.get_num_threads(),
    )  # fmt: skip
    X = Operand(
        rows=rows, k=k, rank=rank, digits=_matrix(right.digits),
        thin=_matrix(right.room[rows : rows + rank, :]), scale=right.scale.data_ptr(),
        basis=basis.data_ptr(), thin_scale=scale.data_ptr(),
    )  # fmt: skip
    if not _timed(library.residual_part, job, X):
        return False
    right.basis, right.thin_scale = basis, scale
    return True


def _timed(function: Any, job: Job, operand: Operand) -> bool:
    """Whether a call succeeded; its phases are charged where somebody asks."""
    seconds = (ctypes.c_double * len(PHASES))()
    if phases.recording():
        job.seconds = ctypes.addressof(seconds)
    done = function(ctypes.byref(job), ctypes.byref(operand)) == 0
    if phases.recording():
        for name, time in zip(PHASES, seconds, strict=True):
            if time > 0:  # a phase that there was
                phases.charge(name, time)
    return bool(done)


def operand(right: Coded, *, found_here: bool) -> Operand:
    """A right operand for compiled code, which finds its low-rank part itself, or is given it; its
    tensors must outlive it."""
    basis = None if found_here else right.basis
    if basis is not None:
        basis = right.basis = basis.contiguous()  # Householder's is not
        check("basis", basis, FLOAT32, (right.rows, right.rank), contiguous=True)
    return Operand(
        rows=right.rows, k=right.packed.k, rank=0 if basis is None else right.rank,
        codes=_matrix(right.codes), digits=_matrix(right.digits), thin=_matrix(right.thin),
        scale=right.scale.data_ptr(), basis=None if basis is None else basis.data_ptr(),
        thin_scale=None if basis is None else right.thin_scale.data_ptr(),
        panels=right.packed.panels.data_ptr(),
    )  # fmt: skip


def _matrix(X: torch.Tensor | None) -> Matrix:
    if X is None:
        return Matrix()
    row, column = gemm.strides(X)
    return Matrix(X.data_ptr(), row, column)
