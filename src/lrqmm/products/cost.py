"""What a product takes, as modelled."""

from __future__ import annotations

from dataclasses import dataclass

from lrqmm._repr import Shown


@dataclass(frozen=True)
class Cost(Shown):
    """What a product takes, as modelled; QR and SVD of thin matrices are left out, and so is what
    methods that calibrate do once per weight.

    Attributes
    ----------
    integer_operations, float_operations : of matrix products, a multiply-add as two
    bytes : moved at the least; each operand, code and result once per pass, as a fused
        implementation would move them
    operand_bits : that hold both operands: codes, scales, zero points, factors
    """

    integer_operations: int = 0
    float_operations: int = 0
    bytes: int = 0
    operand_bits: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.integer_operations + other.integer_operations,
            self.float_operations + other.float_operations,
            self.bytes + other.bytes,
            self.operand_bits + other.operand_bits,
        )
