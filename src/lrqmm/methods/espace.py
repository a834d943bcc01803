"""ESPACE: the inner dimension projected on the activations' principal directions.

    A B ≈ (A P)(Pᵀ B),    P (k x l): the leading eigenvectors of E[x xᵀ]

PᵀB is made once per weight; the product is l/k of the size. A transform as Hadamard's is, but not
an exact one: what A has outside of the span is lost, and no compensator behind it sees that.
Cost: 2mkl operations for the projection; eigenvectors once per weight.
Source: Sakr, Khailany, arXiv 2410.05437: its training-free part, with the plain mean-square
choice of P. Its other five (normalised, weighted by the output's gradient) and the retraining
behind its claims are left out.
"""

from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from lrqmm._checks import Array
from lrqmm._parameters import number
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
class ESPACE(Basis):
    """Projection on the directions of largest second moment.

    Parameters
    ----------
    share : l / k, the fraction of the directions that is kept; at least one is
    """

    calibrated = True

    share: float = number(0.5, 0.0, 1.0)

    def inner(self, k: int) -> int:
        return max(1, round(self.share * k))

    def fit(self, B: Array, quantizer: Quantizer, calibration: Array | None) -> Any:
        """P (k x l)."""
        xp = array_namespace(B)
        with phase("transform"):
            k = int(B.shape[0])
            P = principal_directions(calibration, self.inner(k))
            d = int(P.shape[1])
            if d < self.inner(k):  # the sample says nothing of the rest: random directions
                random = in_float64(sketch_matrix(B, k, self.inner(k) - d, "gaussian", (0,)))
                rest = basis(xp.concat([P, random], axis=1))[:, d:]
                P = xp.concat([P, rest], axis=1)
            return in_float32(P)

    def cost(self, m: int, k: int, n: int) -> Cost:
        l = self.inner(k)  # noqa: E741 - the paper's name
        return Cost(float_operations=2 * m * k * l, bytes=4 * (m * k + m * l))


METHOD = Preset("espace", title="ESPACE", transform=ESPACE, cites=("sakr2024espace",))
