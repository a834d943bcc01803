"""LRAMM: both operands approximated at low rank, their product three small quantised ones.

    A ≈ L_A R_A,  B ≈ L_B R_B  (randomised SVD),    C ≈ Q₀(L_A) [Q₁(R_A) Q₂(L_B)] Q₃(R_B)

with L_A = U_A, R_A = Σ_A V_Aᵀ, L_B = U_B Σ_B, R_B = V_Bᵀ (so that scales hold Σ,
one per singular direction), integer products, and each result in between quantised again at
`bits_between`. LRQMM keeps A and B and approximates what quantisation threw away; this throws away
all but the leading directions, and so pays where the spectrum falls fast.
Cost: 2r(mr + kr + mn) operations in integers, 4 (q + 1)(mk + kn)(r + p) in float64 for the factors.
Source: Gu, arXiv 2405.16917, of which the three products and four widths d0 to d3 are known
to us. Unverified: which factor has which width, where Σ goes, and how the middle is rounded.
"""

from dataclasses import dataclass, replace

from lrqmm._checks import Array
from lrqmm._parameters import one_of, whole
from lrqmm.products.cost import Cost
from lrqmm.products.lowrank import DEFAULT_RANK, LEFT, RIGHT
from lrqmm.products.phases import phase
from lrqmm.products.quantize import Uniform
from lrqmm.products.quantized import Quantized, product
from lrqmm.products.rsvd import SKETCHES, rsvd
from lrqmm.products.scaling import in_float32, in_float64, near_one
from lrqmm.products.wholeproduct import WholeProduct


@dataclass(frozen=True)
class LRAMM(WholeProduct):
    """The product of two low-rank approximations.

    Parameters
    ----------
    bits : of every factor that has no width of its own, 2 to 8
    d0, d1, d2, d3 : of L_A, R_A, L_B and R_B
    bits_between : of the two results in between
    granularity : of all scales
    rank : 1 to max(min(m, k), min(k, n)); None is min(16, that limit)
    oversampling, power_iterations, sketch, seed : of the randomised SVD
    """

    bits: int = 8
    d0: int | None = whole(None, 2, 8)
    d1: int | None = whole(None, 2, 8)
    d2: int | None = whole(None, 2, 8)
    d3: int | None = whole(None, 2, 8)
    bits_between: int = whole(8, 2, 8)
    granularity: str = "vector"
    rank: int | None = whole(None, 1)
    oversampling: int = whole(8, 0)
    power_iterations: int = whole(1, 0)
    sketch: str = one_of("ones+gaussian", *SKETCHES)
    seed: int = whole(0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        Uniform(bits=self.bits, granularity=self.granularity)

    def _prepare(
        self, B: Array, calibration: Array | None, *, scratch: bool
    ) -> tuple[Quantized, Quantized]:
        """Q₂(L_B) and Q₃(R_B), each laid along the dimension that a product sums over; the size of
        B is in the scale of R_B, so that the results in between stay near 1."""
        U, s, Vt = self._svd(B, RIGHT)
        s, power = near_one(s[None, :])
        with phase("quantize"):
            L_B = self._uniform(self.d2).quantize((U * s).T)
            R_B = self._uniform(self.d3).quantize(Vt.T)
            return L_B, replace(R_B, scale=R_B.scale * power)

    def _multiply(
        self, A: Array, prepared: tuple[Quantized, Quantized], out: Array | None
    ) -> Array:
        L_B, R_B = prepared
        U, s, Vt = self._svd(A, LEFT)
        s, power = near_one(s[None, :])
        with phase("quantize"):
            L_A = self._uniform(self.d0).quantize(U)
            R_A = self._uniform(self.d1).quantize(s.T * Vt)
        between = self._uniform(self.bits_between)
        with phase("product"):
            middle = product(R_A, L_B)  # (r, r)
            left = product(L_A, between.quantize(middle.T))  # (m, r)
            return product(between.quantize(left * power), R_B)

    def _svd(self, X: Array, side: int) -> tuple[Array, Array, Array]:
        """In float64, since the factors are quantised; rounded to float32."""
        U, s, Vt = rsvd(
            in_float64(X),
            DEFAULT_RANK if self.rank is None else self.rank,
            oversampling=self.oversampling,
            power_iterations=self.power_iterations,
            sketch=self.sketch,
            seed=(self.seed, side),
        )
        return in_float32(U), in_float32(s), in_float32(Vt)

    def _uniform(self, bits: int | None) -> Uniform:
        return Uniform(bits=self.bits if bits is None else bits, granularity=self.granularity)

    def cost(self, m: int, k: int, n: int) -> Cost:
        rank = DEFAULT_RANK if self.rank is None else self.rank
        a, b = min(rank, m, k), min(rank, k, n)
        wide = [min(r + self.oversampling, *side) for r, side in ((a, (m, k)), (b, (k, n)))]
        sketching = 4 * (1 + self.power_iterations) * (m * k * wide[0] + k * n * wide[1])
        stored = (
            self._uniform(self.d0).stored_bits(m, a)
            + self._uniform(self.d1).stored_bits(a, k)
            + self._uniform(self.d2).stored_bits(b, k)
            + self._uniform(self.d3).stored_bits(n, b)
        )
        return Cost(
            integer_operations=2 * (a * k * b + m * a * b + m * b * n),
            float_operations=sketching,
            bytes=4 * (2 + 2 * self.power_iterations) * (m * k + k * n) + 8 * m * n,
            operand_bits=stored,
        )


METHOD = LRAMM("lramm", title="LRAMM", cites=("gu2024lramm",))
