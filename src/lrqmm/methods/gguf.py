"""Weights in the block formats of GGUF, llama.cpp's file format, by its own quantisers.

Q4_0 (16 levels, the extreme value of a block of 32 on level -8), Q4_1 (with the least value), Q5_0,
Q8_0, MXFP4. The package has no products: blocks are taken to float32 and multiplied there, so the
error is llama.cpp's and the time means nothing. On a CPU llama.cpp rounds A to Q8_0 too:
`left="Q8_0"`. k is filled up with zeros to whole blocks, which llama.cpp refuses; scales are
float16, so an operand is multiplied by a power of two to be near 1.
Source: llama.cpp, gguf-py/gguf/quants.py.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lrqmm import _checks
from lrqmm.products.peer import Peer

BLOCK = 32
BYTES = {"Q4_0": 18, "Q4_1": 20, "Q5_0": 22, "Q8_0": 34, "MXFP4": 17}
"""Of a block, its scale included."""


@dataclass(frozen=True)
class Gguf(Peer):
    """A float32 product of operands that GGUF's quantisers have rounded.

    Parameters
    ----------
    format : of B: 'Q4_0', 'Q4_1', 'Q5_0', 'Q8_0' or 'MXFP4'
    left : of A: 'float32' or 'Q8_0'
    """

    packages: ClassVar[tuple[str, ...]] = ("gguf",)
    modules: ClassVar[tuple[str, ...]] = ("gguf",)
    extra: ClassVar[str] = "bench"
    speaks: ClassVar[str] = "numpy"
    route: ClassVar[str] = "none: blocks taken to float32"
    range: ClassVar[tuple[float, float]] = (1.0, 2.0)
    imitated: ClassVar[bool] = True

    format: str = "Q4_0"
    left: str = "float32"

    def __post_init__(self) -> None:
        _checks.choice("format", self.format, tuple(BYTES))
        _checks.choice("left", self.left, ("float32", "Q8_0"))

    def pack(self, B: Any) -> Any:
        return rounded(B.T, self.format)

    def multiply(self, A: Any, packed: Any) -> Any:
        return (A if self.left == "float32" else rounded(A, self.left)) @ packed.T

    def operand_bits(self, m: int, k: int, n: int) -> tuple[int, int]:
        blocks = 8 * -(-k // BLOCK)
        left = 32 * m * k if self.left == "float32" else blocks * BYTES[self.left] * m
        return left, blocks * BYTES[self.format] * n


def rounded(X: Any, format: str) -> Any:
    """X (rows, k) float32 through a block format along k and back."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    k = X.shape[1]
    kind = GGMLQuantizationType[format]
    whole = np.ascontiguousarray(np.pad(X, ((0, 0), (0, -k % BLOCK))))
    return dequantize(quantize(whole, kind), kind)[:, :k]


METHOD = Gguf("gguf", title="GGUF", cites=("gguf",))
