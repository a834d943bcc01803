"""ResQ: the activations' principal subspace at 8 bits, the rest at few.

    E[x xᵀ] = U Λ Uᵀ,    A B = (A U₁)(U₁ᵀ B) + (A U₂)(U₂ᵀ B)

U₁ holds the k/8 directions of largest variance over the sample; their product runs at 8 bits, the
other at the quantiser's. A random rotation inside each part spreads what is left of outliers.
Cost: 2mk² operations for the change of basis; eigenvectors once a weight.
Source: Saxena et al., arXiv 2412.14363.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from array_api_compat import array_namespace

from lrqmm import _checks
from lrqmm._checks import Array
from lrqmm.composition import Basis, Cost, Preset
from lrqmm.phases import phase
from lrqmm.quantize import Quantizer
from lrqmm.rsvd import sketch_matrix
from lrqmm.weightside import second_moment


@dataclass(frozen=True, kw_only=True)
class ResQ(Basis):
    """Change of basis to principal directions, the first of them kept at 8 bits.

    Parameters
    ----------
    principal : fraction of the directions that is multiplied at 8 bits
    seed : of the rotations
    """

    calibrated: ClassVar[bool] = True

    principal: float = 0.125
    seed: int = 0

    def __post_init__(self) -> None:
        _checks.real("principal", self.principal, 0.0, 1.0)
        _checks.integer("seed", self.seed, 0)

    def kept(self, k: int) -> int:
        return round(self.principal * k)

    def fit(self, B: Array, quantizer: Quantizer, calibration: Array | None) -> Any:
        """U (k x k), the principal directions first."""
        xp = array_namespace(B)
        k = B.shape[0]
        with phase("transform"):
            _, U = second_moment(xp.astype(calibration, xp.float64))
            U = xp.flip(xp.astype(U, xp.float32), axis=1)
            first_row = U[:1, :]  # eigenvectors have no sign of their own
            U = U * xp.where(first_row < 0, -xp.ones_like(first_row), xp.ones_like(first_row))
            first = self.kept(k)
            parts = [
                part @ self._rotation(part, number)
                for number, part in enumerate((U[:, :first], U[:, first:]))
                if part.shape[1]
            ]
            return xp.concat(parts, axis=1)

    def _rotation(self, like: Array, number: int) -> Array:
        size = like.shape[1]
        G = sketch_matrix(like, size, size, "gaussian", (self.seed, number))
        return array_namespace(like).linalg.qr(G)[0]

    def cost(self, m: int, k: int, n: int) -> Cost:
        more = 4 * self.kept(k) * (m + n)  # a scale a vector for each part; bits beyond the rest's
        return Cost(float_operations=2 * m * k * k, bytes=8 * m * k, operand_bits=more)


METHOD = Preset("resq", transform=ResQ, cites=("saxena2024resq",), usual=False)
