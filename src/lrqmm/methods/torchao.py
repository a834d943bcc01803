"""Dynamic int8 of torchao: a scale per column of B and per row of A, both symmetric.

`quantize_(layer, Int8DynamicActivationInt8WeightConfig())` of a linear layer; 256 levels, scale
max / 127.5. With mode "compiled" the layer goes through `torch.compile`, as torchao advises; it
needs a C++ compiler, and the first product of a shape takes up to a minute. Small activations lose
digits to its least scale: they are multiplied by a power of two first. A column of zeros is added
where k is 1, which it refuses.
Source: pytorch/ao, torchao.quantization.
"""

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

from lrqmm import _checks
from lrqmm.products.peer import Peer


@dataclass(frozen=True)
class TorchAo(Peer):
    """Torchao's dynamic int8 product.

    Parameters
    ----------
    mode : 'eager', or 'compiled' by torch.compile
    """

    packages: ClassVar[tuple[str, ...]] = ("torchao", "torch")
    modules: ClassVar[tuple[str, ...]] = ("torchao",)
    route: ClassVar[str] = "torchao Int8Tensor, torch._int_mm (cpu)"
    range: ClassVar[tuple[float, float]] = (0.5, 2.0**40)

    mode: str = "eager"

    def __post_init__(self) -> None:
        _checks.choice("mode", self.mode, ("eager", "compiled"))

    def pack(self, B: Any) -> Any:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

            weight = torch.nn.functional.pad(B.T, (0, B.shape[0] == 1)).contiguous()
            n, k = weight.shape
            layer = torch.nn.Linear(k, n, bias=False, device="meta", dtype=torch.float32)
            layer.weight = torch.nn.Parameter(weight, requires_grad=False)
            quantize_(layer, Int8DynamicActivationInt8WeightConfig())
            return torch.compile(layer, dynamic=True) if self.mode == "compiled" else layer

    def multiply(self, A: Any, packed: Any) -> Any:
        import torch

        with torch.no_grad():
            return packed(torch.nn.functional.pad(A, (0, 1)) if A.shape[1] == 1 else A)

    def operand_bits(self, m: int, k: int, n: int) -> tuple[int, int]:
        return 8 * m * k + 32 * m, 8 * k * n + 32 * n


METHOD = TorchAo("torchao", title="torchao int8", cites=("torchao",))
