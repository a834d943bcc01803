"""Block float formats of both operands by torchao: MXFP4, MXFP6, MXFP8, NVFP4.

Its quantisers (`MXTensor.to_mx` with the scale rule of its inference configuration, RCEIL, and
`NVFP4Tensor.to_nvfp4` with a second scale per tensor); products are in float32, as its emulation's.
A CPU has no such arithmetic: the error is torchao's, the time means nothing. k is filled up with
zeros to whole blocks, which torchao refuses.
Source: pytorch/ao, torchao.prototype.mx_formats.
"""

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

from lrqmm import _checks
from lrqmm.products.peer import Peer

BITS = {"mxfp4": 4, "mxfp6": 6, "mxfp8": 8, "nvfp4": 4}


@dataclass(frozen=True)
class TorchAoFormats(Peer):
    """A float32 product of operands that torchao has rounded.

    Parameters
    ----------
    format : 'mxfp4', 'mxfp6' (e2m3), 'mxfp8' (e4m3) or 'nvfp4'
    """

    packages: ClassVar[tuple[str, ...]] = ("torchao", "torch")
    modules: ClassVar[tuple[str, ...]] = ("torchao",)
    route: ClassVar[str] = "none: blocks taken to float32"
    imitated: ClassVar[bool] = True
    range: ClassVar[tuple[float, float]] = (1.0, 2.0)

    format: str = "mxfp4"

    def __post_init__(self) -> None:
        _checks.choice("format", self.format, tuple(BITS))

    def pack(self, B: Any) -> Any:
        return rounded(B.T, self.format)

    def multiply(self, A: Any, packed: Any) -> Any:
        return rounded(A, self.format) @ packed.T

    def operand_bits(self, m: int, k: int, n: int) -> tuple[int, int]:
        block = 16 if self.format == "nvfp4" else 32
        whole = -(-k // block) * (block * BITS[self.format] + 8)
        return whole * m, whole * n


def rounded(X: Any, format: str) -> Any:
    """X (rows, k) float32 through a format along k and back."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchao.prototype.mx_formats.config import ScaleCalculationMode
        from torchao.prototype.mx_formats.mx_tensor import MXTensor
        from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale

    k = X.shape[1]
    whole = torch.nn.functional.pad(X, (0, -k % 32)).contiguous()
    if format == "nvfp4":
        scale = per_tensor_amax_to_scale(whole.abs().max()) if whole.any() else None
        found = NVFP4Tensor.to_nvfp4(whole, per_tensor_scale=scale)
    else:
        kinds = {
            "mxfp4": torch.float4_e2m1fn_x2, "mxfp6": "fp6_e2m3", "mxfp8": torch.float8_e4m3fn,
        }  # fmt: skip
        found = MXTensor.to_mx(whole, kinds[format], 32, ScaleCalculationMode.RCEIL)
    return found.dequantize(torch.float32)[:, :k]


METHOD = TorchAoFormats("torchao_formats", title="torchao MXFP and NVFP4", cites=("torchao",))
