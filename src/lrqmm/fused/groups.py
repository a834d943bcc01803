"""Fused products with one scale per group of inner indices, on a CPU: weights of up to 4 bits lie
two codes a byte, and a low-rank correction of the weights is added in the same call (`groups.cpp`).

The left operand is quantised in the same groups, at `bits_a`; the plain code prepares weights.
"""

import ctypes
from typing import Any

import torch

from lrqmm._checks import Unsupported
from lrqmm.fused import cpu
from lrqmm.fused.coded import PreparedGroups
from lrqmm.fused.covered import STEP
from lrqmm.fused.kernels import Buffers, Plan
from lrqmm.fused.native import library as _library
from lrqmm.fused.passes import FLOAT32, MODES, check
from lrqmm.products.lowrank import LowRank
from lrqmm.products.parts import Compensator, Operand, stored
from lrqmm.products.phases import phase
from lrqmm.products.quantize import Quantizer, group_length


def prepare(B: torch.Tensor, quantizer: Quantizer, compensator: Compensator) -> PreparedGroups:
    """B (k, n) float32 quantised by the plain code and packed."""
    library = _library()
    if library is None or not B.is_cpu:
        where = "on this device" if library is not None else "where nothing was compiled"
        raise Unsupported(
            f"no scales by group with execution='fused' {where}; execution='plain' has them"
        )
    operand, prepared = compensator.quantize_right(B, quantizer, None)
    k, n = operand.shape
    found = operand.quantized
    group, half = group_length(quantizer.granularity, k), quantizer.bits <= 4
    group += -group % STEP  # of a group that is longer than k
    codes, scale = found.codes.contiguous(), found.scale.contiguous()
    size = library.packed_groups_size(k, n, group, half)
    panels = torch.empty(size, dtype=torch.int8, device="cpu")
    per_group = size * (2 if half and library.packs_halves() else 1) // group
    scales = torch.empty(per_group, dtype=FLOAT32, device="cpu")
    check("codes", codes, torch.int8, (n, k), contiguous=True)
    check("scale", scale, FLOAT32, (n, -(-k // group)), contiguous=True)
    with phase("quantize"):
        library.pack_groups(
            codes.data_ptr(), codes.stride(0), scale.data_ptr(), k, n, group, half,
            panels.data_ptr(), scales.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
    U, V, rank = _factors(operand, compensator, prepared, library)
    return PreparedGroups(panels, scales, U, V, k, n, rank, group, half)


def _factors(
    operand: Operand, compensator: Compensator, prepared: Any, library: ctypes.CDLL
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Packed U (k, q) and V (n, q) of the correction, and q."""
    k, n = operand.shape
    U = V = torch.empty((0, 0), device="cpu", dtype=FLOAT32)
    if isinstance(compensator, LowRank) and compensator.rank != 0:
        factors = compensator.right_factors(operand, operand, prepared)
        U, V = stored(factors, compensator.factor_dtype)
        U, V = U.to(FLOAT32).contiguous(), V.T.to(FLOAT32).contiguous()
    rank = int(U.shape[1])
    sizes = library.packed_left_size(k, rank), library.packed_right_size(n, rank)
    packed = [torch.empty(size, dtype=FLOAT32, device="cpu") for size in sizes]
    library.pack_factors(
        U.data_ptr(), V.data_ptr(), k, n, rank, packed[0].data_ptr(), packed[1].data_ptr()
    )
    return packed[0], packed[1], rank


def multiply(
    A: torch.Tensor, right: PreparedGroups, plan: Plan, out: torch.Tensor | None, space: Buffers
) -> torch.Tensor:
    """C = A B, A (m, k) float32, C (m, n) float32."""
    A = A if A.stride(1) == 1 else A.contiguous()
    m = int(A.shape[0])
    C = cpu.empty((m, right.n), FLOAT32) if out is None else out
    check("A", A, FLOAT32, (m, right.k))
    check("C", C, FLOAT32, (m, right.n))
    codes = cpu.take(space, "groups", (right.work(m),), torch.int8)
    left, result = (A.data_ptr(), A.stride(0)), (C.data_ptr(), C.stride(0))
    with phase("product"):
        run(left, m, right, plan, result, codes.data_ptr())
    return C


def run(
    left: tuple[int, int],
    m: int,
    right: PreparedGroups,
    plan: Plan,
    result: tuple[int, int],
    space: int,
) -> bool:
    """C = A B, by addresses and strides, which the caller has checked; `space` is of `work(m)`
    bytes."""
    library = _library()
    assert library is not None
    library.multiply_groups(
        *left, m, right.k, right.n, 2 ** (plan.bits - 1) - 1, MODES.index(plan.rounding),
        right.group, right.half, space, right.panels.data_ptr(), right.scales.data_ptr(),
        right.U.data_ptr(), right.V.data_ptr(), right.rank, *result,
        torch.get_num_threads(),
    )  # fmt: skip
    return True
