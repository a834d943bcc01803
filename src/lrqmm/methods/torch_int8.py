"""Dynamic int8 of torch: int8 weights, one scale per column; uint8 activations, one scale in all.

The weight is quantised as `torch.ao.quantization` does it for dynamic linear layers, a scale per
channel: 256 levels, scale max / 127.5. `torch.ops.quantized.linear_dynamic` finds scale and zero
point of all of A at every call. Its least scale is 6.1e-5 (`SMALL_SCALE_THRESHOLD` of its source),
below which it loses digits without a word: operands are multiplied by a power of two first.
Source: torch, aten/src/ATen/native/quantized/cpu/qlinear_dynamic.cpp; `oneDNN` or FBGEMM by engine.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from lrqmm import _checks
from lrqmm._checks import Unsupported
from lrqmm.products.peer import Peer

SMALLEST_SCALE = 2.0**-100
_engine = threading.Lock()
"""Held while the process-wide engine is another than the user's."""


@contextmanager
def engine_of_torch(name: str) -> Iterator[None]:
    """Torch's engine of quantised operators inside the block, for which a weight is packed; a
    packed weight remembers it. Threads wait for each other."""
    import torch

    engines = torch.backends.quantized
    if name not in engines.supported_engines:
        raise Unsupported(
            f"torch has no engine {name!r} here; it has {', '.join(engines.supported_engines)}"
        )
    with _engine:
        before = engines.engine
        try:
            if before != name:
                engines.engine = name
            yield
        finally:
            if engines.engine != before:
                engines.engine = before


@dataclass(frozen=True)
class TorchInt8(Peer):
    """Torch's dynamic int8 product.

    Parameters
    ----------
    engine : 'x86', torch's default, which takes FBGEMM or oneDNN; or 'onednn'
    """

    packages: ClassVar[tuple[str, ...]] = ("torch",)
    route: ClassVar[str] = "torch.ops.quantized.linear_dynamic (cpu)"
    range: ClassVar[tuple[float, float]] = (2.0**-4, 2.0**40)

    engine: str = "x86"

    def __post_init__(self) -> None:
        _checks.choice("engine", self.engine, ("x86", "onednn"))

    def pack(self, B: Any) -> Any:
        import torch

        weight = B.T.contiguous()
        scale = (weight.abs().amax(dim=1) / 127.5).clamp(min=SMALLEST_SCALE)
        zeros = torch.zeros(len(scale), dtype=torch.int64, device="cpu")
        with engine_of_torch(self.engine), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # quantised tensors are deprecated, these are not
            quantized = torch.quantize_per_channel(weight, scale, zeros, 0, torch.qint8)
            return torch.ops.quantized.linear_prepack(quantized, None)

    def multiply(self, A: Any, packed: Any) -> Any:
        import torch

        return torch.ops.quantized.linear_dynamic(A, packed, False)

    def operand_bits(self, m: int, k: int, n: int) -> tuple[int, int]:
        return 8 * m * k + 40, 8 * k * n + 32 * n


METHOD = TorchInt8("torch_int8", title="torch dynamic int8", cites=("paszke2019pytorch",))
