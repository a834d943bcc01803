"""oneDNN's int8 product as torch's compiler calls it: weights packed once, scales fused.

Int8 codes with one scale per row of A and one per column of B, those of `direct`; the codes of A
are shifted to uint8, whose product oneDNN has kernels for everywhere (of int8 codes it takes
reference code on processors without AMX, thousands of times slower). The scales of B are applied
inside the product, those of A after it.
Source: torch, aten/src/ATen/native/quantized/cpu/qlinear.cpp, `onednn::qlinear_pointwise`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from lrqmm.products.peer import Peer
from lrqmm.products.quantize import Uniform

EIGHT_BITS = Uniform(bits=8)


@dataclass(frozen=True)
class TorchQlinear(Peer):
    """oneDNN's product of int8 codes with fused scales."""

    packages: ClassVar[tuple[str, ...]] = ("torch",)
    route: ClassVar[str] = "torch.ops.onednn.qlinear_pointwise (cpu)"

    def pack(self, B: Any) -> Any:
        import torch

        found = EIGHT_BITS.quantize(B.T)
        packed = torch.ops.onednn.qlinear_prepack(found.codes.contiguous(), None)
        zeros = torch.zeros(len(found.codes), dtype=torch.int32, device="cpu")
        return packed, found.scale[:, 0].contiguous(), zeros

    def multiply(self, A: Any, packed: Any) -> Any:
        import torch

        weight, scale, zeros = packed
        found = EIGHT_BITS.quantize(A)
        codes = found.codes.view(torch.uint8) ^ 128  # + 128
        C = torch.ops.onednn.qlinear_pointwise(
            codes, 1.0, 128, weight, scale, zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return C.mul_(found.scale)

    def operand_bits(self, m: int, k: int, n: int) -> tuple[int, int]:
        return 8 * m * k + 32 * m, 8 * k * n + 32 * n


METHOD = TorchQlinear(
    "torch_qlinear", title="torch int8, packed", cites=("paszke2019pytorch", "onednn")
)
