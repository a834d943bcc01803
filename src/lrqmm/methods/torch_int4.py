"""Weights in 4 bits by torch: 16 levels from the least to the largest of a group, A in bfloat16.

`torch.ops.aten._weight_int4pack_mm_for_cpu`, which torchao and the compiler call for weights in 4
bits; the grid is torchao's "tinygemm" one: b = (q - 8) s + z with q of 0 to 15. Scales and z are in
the dtype of A. k is filled up with zeros to whole groups and n to a multiple of 16, which the
operator wants.
Source: torch, aten/src/ATen/native/cpu/int4mm_kernel.cpp.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from lrqmm import _checks
from lrqmm.products.peer import Peer

COLUMNS = 16
SMALLEST_SCALE = 2.0**-100


@dataclass(frozen=True)
class TorchInt4(Peer):
    """Torch's product with a weight in 4 bits.

    Parameters
    ----------
    group : rows of B that share a scale: 32, 64, 128 or 256
    compute : 'bfloat16', in which A, the scales and the result are rounded; or 'float32', for which
        torch's kernel is slow
    """

    packages: ClassVar[tuple[str, ...]] = ("torch",)
    route: ClassVar[str] = "none: 4-bit weights unpacked in torch's kernel (cpu)"

    group: int = 32
    compute: str = "bfloat16"

    def __post_init__(self) -> None:
        _checks.choice("group", self.group, (32, 64, 128, 256))
        _checks.choice("compute", self.compute, ("bfloat16", "float32"))

    def pack(self, B: Any) -> Any:
        import torch

        k, n = B.shape
        pad = torch.nn.functional.pad(B.T, (0, -k % self.group, 0, -n % COLUMNS))
        groups = pad.reshape(len(pad), -1, self.group)
        low, high = groups.amin(dim=2, keepdim=True), groups.amax(dim=2, keepdim=True)
        scale = ((high - low) / 15).clamp(min=SMALLEST_SCALE)
        codes = ((groups - low) / scale).round().clamp(0, 15).to(torch.int32).reshape(pad.shape)
        weight = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        scales = torch.cat((scale, low + 8 * scale), dim=2).transpose(0, 1)
        return weight, scales.to(getattr(torch, self.compute)).contiguous(), n

    def multiply(self, A: Any, packed: Any) -> Any:
        import torch

        weight, scales, n = packed
        A = torch.nn.functional.pad(A, (0, -A.shape[1] % self.group)).to(scales.dtype).contiguous()
        C = torch.ops.aten._weight_int4pack_mm_for_cpu(A, weight, self.group, scales)
        return C[:, :n].to(torch.float32, memory_format=torch.contiguous_format)

    def operand_bits(self, m: int, k: int, n: int) -> tuple[int, int]:
        element = 16 if self.compute == "bfloat16" else 32
        return element * m * k, 4 * k * n + 2 * element * -(-k // self.group) * n


METHOD = TorchInt4("torch_int4", title="torch int4 weights", cites=("paszke2019pytorch",))
