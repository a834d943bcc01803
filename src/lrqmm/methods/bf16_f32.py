"""Operands rounded to bfloat16, their product summed and kept in float32.

    C = bf16(A) bf16(B)

`bf16` rounds the result too, which on one-sided data is most of its error. On a CPU this is torch's
setting `torch.backends.mkldnn.matmul.fp32_precision = "bf16"`, which oneDNN honours where it has
kernels for it (with AMX). That is tried once per process; elsewhere rounded operands are multiplied
in float32: the error is the same there, and times are refused. On CUDA it is `torch.mm` with a
float32 `out_dtype`; this has never been run on a GPU. Small products torch may leave in float32.
Source: the format is described by Kalamkar et al., arXiv 1905.12322; the product is torch's.
"""

from functools import cache
from typing import Any

from lrqmm._checks import Array, Unsupported
from lrqmm.products.backends import library_of
from lrqmm.products.floatproduct import FloatProduct
from lrqmm.products.phases import phase


@cache
def cpu_rounds() -> bool:
    """Whether torch's setting changes products on this CPU; to be asked where it is set."""
    import torch  # slow to load, and planning a study needs none of it

    A = torch.full((64, 256), 1 + 2.0**-12, dtype=torch.float32, device="cpu")
    return bool((A @ A.T == 256).all())


class BFloat16Operands(FloatProduct):
    """C = A B with operands in bfloat16."""

    @property
    def float32_precision(self) -> str:
        return "bf16"

    def _multiply(self, A: Array, prepared: Array, out: Array | None) -> Array:
        import torch

        if library_of(A) != "torch":
            raise Unsupported(f"{library_of(A)} has no bfloat16; torch has it")
        with phase("product"):
            if A.device.type == "cuda":
                C = torch.mm(A.bfloat16(), prepared.bfloat16(), out_dtype=torch.float32)
                return C if out is None else out.copy_(C)
            if not self.emulated(A):
                return torch.mm(A, prepared, out=out)
            return torch.mm(A.bfloat16().float(), prepared.bfloat16().float(), out=out)

    def emulated(self, like: Any) -> bool:
        from lrqmm.products.backends.torch import exact_float32

        if library_of(like) != "torch" or like.device.type == "cuda":
            return False
        with exact_float32("bf16"):
            return not cpu_rounds()


METHOD = BFloat16Operands(
    "bf16_f32",
    "bfloat16",
    title="bfloat16, float32 result",
    needs="torch arrays",
    cites=("kalamkar2019bfloat16",),
    usual=True,
)
