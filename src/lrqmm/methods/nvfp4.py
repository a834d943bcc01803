"""NVFP4: four-bit floats (E2M1) in blocks of 16 with a float8 scale, and a float32 one for all.

    s = max|X| / (6 · 448) for the matrix,    s_block = E4M3(max|x| / (6 s)),    x ≈ s s_block f

A block whose scale would round to zero takes the smallest float8 instead.
Source: NVIDIA's description of the format (Blackwell); arXiv 2509.25149.
"""

from dataclasses import dataclass
from types import ModuleType

from lrqmm._checks import Array
from lrqmm.products.composition import Preset
from lrqmm.products.minifloat import E2M1, E4M3, Minifloat, to_format
from lrqmm.products.quantize import SCALE_BITS, Encoded, usable_scale
from lrqmm.products.scaling import near_one

SMALLEST = 2.0**-9
"""The smallest positive number of E4M3."""


@dataclass(frozen=True, kw_only=True)
class NVFP4(Minifloat):
    """E2M1 with scales on two levels."""

    FORMAT = E2M1
    scale_bits = 8
    bits = 4

    granularity: str = "group:16"

    def stored_bits(self, rows: int, k: int) -> int:
        """With one float32 scale for the matrix."""
        return super().stored_bits(rows, k) + SCALE_BITS

    def encode(self, xp: ModuleType, x: Array, axes: tuple[int, ...]) -> Encoded:
        x, power = near_one(x)
        largest = xp.max(xp.abs(x), axis=axes, keepdims=True)
        outer, divisor = usable_scale(xp, xp.max(largest) / (E2M1.most * E4M3.most))
        block = to_format(xp, largest / (E2M1.most * divisor), E4M3)
        block = xp.where(largest > 0, xp.clip(block, min=SMALLEST), xp.zeros_like(block))
        scale, divisor = usable_scale(xp, outer * block)
        return to_format(xp, x / divisor, E2M1), power * scale, None


METHOD = Preset("nvfp4", title="NVFP4", quantizer=NVFP4, cites=("nvidia2025nvfp4",))
