"""ResQ: the activations' principal subspace at 8 bits, the rest at few.

    E[x xᵀ] = U Λ Uᵀ,    A B = (A U₁)(U₁ᵀ B) + (A U₂)(U₂ᵀ B)

U₁ spans the k/8 directions of largest variance over the sample; their product runs at 8 bits, the
other at the quantiser's. Each part's basis is a random one of its span, which spreads what is left
of outliers. It depends on the span alone, and not on how the eigenvectors of equal eigenvalues
were chosen.
Cost: 2mk² operations in float64 for the change of basis; eigenvectors once per weight.
Source: Saxena et al., arXiv 2412.14363.
"""

from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from lrqmm._checks import Array
from lrqmm._parameters import number, whole
from lrqmm.products.composition import Preset
from lrqmm.products.cost import Cost
from lrqmm.products.decompose import basis
from lrqmm.products.parts import Basis
from lrqmm.products.phases import phase
from lrqmm.products.quantize import Quantizer
from lrqmm.products.rsvd import sketch_matrix
from lrqmm.products.scaling import in_float32, in_float64
from lrqmm.products.weightside import principal_directions


@dataclass(frozen=True, kw_only=True)
class ResQ(Basis):
    """Change of basis to principal directions, the first of them kept at 8 bits.

    Parameters
    ----------
    principal : fraction of the directions that is multiplied at 8 bits
    seed : of the rotations
    """

    calibrated = True

    principal: float = number(0.125, 0.0, 1.0)
    seed: int = whole(0, 0)

    def kept(self, k: int) -> int:
        return round(self.principal * k)

    def fit(self, B: Array, quantizer: Quantizer, calibration: Array | None) -> Any:
        """U (k x k), the principal directions first."""
        xp = array_namespace(B)
        k = int(B.shape[0])
        with phase("transform"):
            principal = principal_directions(calibration, self.kept(k))
            random = in_float64(sketch_matrix(B, k, k, "gaussian", (self.seed,)))
            d = int(principal.shape[1])
            inside = principal @ (principal.T @ random[:, :d])
            return in_float32(basis(xp.concat([inside, random[:, d:]], axis=1)))

    def cost(self, m: int, k: int, n: int) -> Cost:
        more = 4 * self.kept(k) * (m + n)  # one more scale per vector; bits beyond the rest's
        return Cost(float_operations=2 * m * k * k, bytes=8 * m * k, operand_bits=more)


METHOD = Preset("resq", title="ResQ", transform=ResQ, cites=("saxena2024resq",))
