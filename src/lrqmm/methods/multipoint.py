"""Multipoint quantisation: a weight is a sum of several low-bit ones, each with its own scale.

    b ≈ a₁ q₁ + ... + a_n q_n,    C ≈ Σ_i Ã q_i a_i

q₁ to q_(n-1) are plain quantisations of what is left, with the scale of its maximum; the last one
is the clipped one of a grid of scales that leaves least, a_n = <r, q_n> / ‖q_n‖². (Searching every
point greedily, as printed, loses to plain slices.) Columns whose relative error is within
`tolerance` before a point get none from there on; their products still run, on zeros.
A is quantised once: its residual stays. Cost: n integer products.
Source: Liu, Ye, Zhou, Liu, arXiv 2002.09049; the error there is that of the output on a sample.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from lrqmm._checks import Array
from lrqmm._parameters import number, whole
from lrqmm.products.composition import Preset
from lrqmm.products.cost import Cost
from lrqmm.products.parts import Compensator, Operand
from lrqmm.products.phases import phase
from lrqmm.products.quantize import stored_codes, usable_scale
from lrqmm.products.quantized import Quantized, product
from lrqmm.products.scaling import near_one

CLIPPINGS = tuple(float(c) for c in np.linspace(0.3, 1.0, 36))
"""Fractions of the maximum at which the last point may clip."""


@dataclass(frozen=True, kw_only=True)
class Multipoint(Compensator):
    """Further points for the right operand.

    Parameters
    ----------
    points : 1 (the direct product) to 8
    tolerance : relative error of a column at which it gets no further point
    """

    ahead = True

    points: int = whole(2, 1, 8)
    tolerance: float = number(0.0, 0.0, 1.0)

    @property
    def right_slices(self) -> int:
        return self.points

    def prepare(self, B: Operand, calibration: Array | None) -> list[Quantized]:
        xp = array_namespace(B.exact)
        top = 2 ** (B.quantizer.bits - 1) - 1
        exact, power = near_one(B.exact.T, 1)  # a column of B, so that its squares stay in range
        rest, norms = B.residual.T / power, xp.linalg.vector_norm(exact, axis=1)
        points, groups = [], B.quantized.scale.shape[1]
        with phase("quantize"):
            for number in range(1, self.points):
                wanted = xp.linalg.vector_norm(rest, axis=1) > self.tolerance * norms
                rest = xp.where(wanted[:, None], rest, xp.zeros_like(rest))
                fractions = CLIPPINGS if number == self.points - 1 else (1.0,)
                codes, scale = _best_point(xp, rest, top, fractions)
                rest = rest - scale * codes
                scales = xp.broadcast_to(power * scale, (scale.shape[0], groups))
                codes = stored_codes(xp, codes, xp.int8)
                points.append(Quantized(codes, scales, None, B.quantized.group))
        return points

    def correct(self, A: Operand, B: Operand, prepared: list[Quantized]) -> Array | None:
        total: Any = None
        with phase("product"):
            for point in prepared:
                C = product(A.quantized, point)
                total = C if total is None else total + C
        return total

    def cost(self, m: int, k: int, n: int) -> Cost:
        more = self.points - 1
        gemm = m * k + k * n + 4 * m * n + 16 * m * n
        return Cost(integer_operations=more * 2 * m * k * n, bytes=more * gemm)


def _best_point(
    xp: ModuleType, rest: Array, top: int, fractions: tuple[float, ...]
) -> tuple[Array, Array]:
    """Codes and scale (rows, 1) of the clipping at which least is left of each row."""
    largest = xp.max(xp.abs(rest), axis=1, keepdims=True)
    best = xp.zeros_like(rest), xp.zeros_like(largest)
    most = -xp.ones_like(largest)
    for fraction in fractions:
        _, divisor = usable_scale(xp, fraction * largest / top)
        q = xp.clip(xp.round(rest / divisor), -top, top)
        along = xp.sum(rest * q, axis=1, keepdims=True)
        norm = xp.clip(xp.sum(q * q, axis=1, keepdims=True), min=1.0)
        gain = along**2 / norm  # ‖r‖² - ‖r - a q‖²
        better = gain > most
        best = xp.where(better, q, best[0]), xp.where(better, along / norm, best[1])
        most = xp.where(better, gain, most)
    return best


METHOD = Preset("multipoint", compensator=Multipoint, cites=("liu2020multipoint",))
