"""Weights in blocks of 4 or 8 bits by ONNX Runtime's operator MatMulNBits.

Its own quantiser (`MatMulNBitsQuantizer`): blocks of one column share a scale and, unless they are
symmetric, a zero point; symmetric ones have all 16 or 256 levels, the extreme value on the lowest.
At accuracy level 4 A is rounded to int8 by block inside the kernel; at 0 it is left in float32.
Source: ONNX Runtime, contrib operators, com.microsoft.MatMulNBits.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lrqmm import _checks
from lrqmm.methods.onnxruntime import model, session
from lrqmm.products.peer import Peer


@dataclass(frozen=True)
class OnnxRuntimeNBits(Peer):
    """ONNX Runtime's product with a weight in blocks.

    Parameters
    ----------
    bits : of a weight: 4 or 8
    group : rows of B that share a scale: 16, 32, 64, 128 or 256
    zero_point : of a block: None or 'integer'
    accuracy_level : 4: A in int8; 0: A in float32
    """

    packages: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx")
    modules: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx", "onnx_ir")
    speaks: ClassVar[str] = "numpy"
    route: ClassVar[str] = "onnxruntime MatMulNBits (cpu)"

    bits: int = 4
    group: int = 32
    zero_point: str | None = None
    accuracy_level: int = 4

    def __post_init__(self) -> None:
        _checks.choice("bits", self.bits, (4, 8))
        _checks.choice("group", self.group, (16, 32, 64, 128, 256))
        _checks.choice("zero_point", self.zero_point, (None, "integer"))
        _checks.choice("accuracy_level", self.accuracy_level, (0, 4))

    def pack(self, B: Any) -> Any:
        from onnxruntime.quantization import matmul_nbits_quantizer as nbits

        how = nbits.DefaultWeightOnlyQuantConfig(
            block_size=self.group,
            is_symmetric=self.zero_point is None,
            accuracy_level=self.accuracy_level,
            bits=self.bits,
        )
        quantizer = nbits.MatMulNBitsQuantizer(model(B), algo_config=how)
        quantizer.process()
        return session(quantizer.model.model)

    def multiply(self, A: Any, packed: Any) -> Any:
        return packed.run(None, {"A": np.ascontiguousarray(A)})[0]

    def operand_bits(self, m: int, k: int, n: int) -> tuple[int, int]:
        groups = -(-k // self.group)
        left = 8 * m * k + 32 * groups * m if self.accuracy_level else 32 * m * k
        zeros = self.bits if self.zero_point else 0
        return left, self.bits * groups * self.group * n + (32 + zeros) * groups * n


METHOD = OnnxRuntimeNBits(
    "onnxruntime_nbits", title="ONNX Runtime MatMulNBits", short="ORT n bits",
    cites=("onnxruntime",),
)  # fmt: skip
