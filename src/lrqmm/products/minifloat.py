"""Narrow floating-point formats as quantisers: their levels exactly, their products in float32.

A format with m mantissa bits, smallest exponent `low` and largest value `most` has the levels
±f 2^e, f in [1, 2) in steps of 2^-m, e ≥ low, and below 2^low the same steps down to zero. Products
of codes are imitated in float32: their error means something, and their time is refused.

Source: OCP Microscaling Formats (MX) v1.0 for the formats below 8 bits and the block scales;
Micikevicius et al. (arXiv 2209.05433) for E4M3 and E5M2.
"""

import math
from dataclasses import dataclass, field
from types import ModuleType
from typing import ClassVar, NamedTuple

from lrqmm._checks import Array
from lrqmm._parameters import one_of
from lrqmm.products.quantize import Encoded, Quantizer, usable_scale
from lrqmm.products.scaling import near_one, power_of_two


class Format(NamedTuple):
    """Mantissa bits, exponent of the smallest normal number, the largest number, bits in all."""

    mantissa: int
    low: int
    most: float
    bits: int


E2M1 = Format(1, 0, 6.0, 4)
E2M3 = Format(3, 0, 7.5, 6)
E3M2 = Format(2, -2, 28.0, 6)
E4M3 = Format(3, -6, 448.0, 8)
E5M2 = Format(2, -14, 57344.0, 8)

SMALLEST_SHARED = 2.0**-127
"""The smallest power of two that a block's eight bits hold."""


def to_format(xp: ModuleType, x: Array, kind: Format) -> Array:
    """The nearest numbers of a format, ties to even; beyond the largest, the largest."""
    size = xp.clip(xp.astype(xp.abs(x), xp.float64), min=2.0**kind.low)
    step = power_of_two(size) * 2.0**-kind.mantissa
    return xp.astype(xp.clip(xp.round(x / step) * step, -kind.most, kind.most), x.dtype)


@dataclass(frozen=True, kw_only=True)
class Minifloat(Quantizer):
    """Numbers of a narrow float format, times a float32 scale: max|x| becomes the largest."""

    integer = False
    FORMAT: ClassVar[Format]

    bits: int = field(default=8, init=False)
    bits_a: int | None = field(default=None, init=False)

    def encode(self, xp: ModuleType, x: Array, axes: tuple[int, ...]) -> Encoded:
        x, power = near_one(x, axes)  # the largest level is far above 1, so scales are far below
        largest = xp.max(xp.abs(x), axis=axes, keepdims=True)
        scale, divisor = usable_scale(xp, largest / self.FORMAT.most)
        return to_format(xp, x / divisor, self.FORMAT), power * scale, None


@dataclass(frozen=True, kw_only=True)
class Microscaling(Minifloat):
    """Blocks of 32 along k that share a power of two as their scale.

    Parameters
    ----------
    scale_rule : 'ceil', the smallest power of two that saturates no element, which users get from
        torchao (RCEIL) and NNCF; 'floor', the standard's 2^(⌊log2 max|x|⌋ - e) with e the format's
        largest exponent, which saturates many blocks; 'best', of both the one with the smaller
        squared error, block by block
    """

    scale_bits = 8

    granularity: str = "group:32"
    scale_rule: str = one_of("ceil", "ceil", "floor", "best")

    def encode(self, xp: ModuleType, x: Array, axes: tuple[int, ...]) -> Encoded:
        largest = xp.astype(xp.max(xp.abs(x), axis=axes, keepdims=True), xp.float64)
        most = self.FORMAT.most
        floor = power_of_two(largest) / 2.0 ** (math.frexp(most)[1] - 1)
        ceil = xp.where(largest > most * floor, 2 * floor, floor)
        if self.scale_rule != "best":
            scale = floor if self.scale_rule == "floor" else ceil
        else:
            errors = []
            for s in (floor, ceil):
                scaled = x / xp.where(s > 0, s, xp.ones_like(s))
                missed = scaled - to_format(xp, scaled, self.FORMAT)
                errors.append(s**2 * xp.sum(missed**2, axis=axes, keepdims=True))
            scale = xp.where(errors[0] <= errors[1], floor, ceil)
        scale = xp.where(scale >= SMALLEST_SHARED, scale, xp.zeros_like(scale))
        scaled = x / xp.where(scale > 0, scale, xp.full_like(scale, float("inf")))
        codes = xp.astype(to_format(xp, scaled, self.FORMAT), x.dtype)
        return codes, xp.astype(scale, x.dtype), None
