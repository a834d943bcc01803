"""FLRQ: rank-1 parts taken out of the weight while they pay for themselves, the rest clipped.

    u = (B Bᵀ)^q B s / ‖·‖,  v = uᵀ B,  B ← B - u v      as long as
    1 + f r (k + n) / (d k n)  ≤  min(1 + x, 1 + log2(amax_0 / amax_r) / d)

with d bits a code and f bits a factor's element: rank r costs no more bits than the smaller range
saves, nor more than a share x of the weight's own.
Then in turns L ← rank r of B - Q̃, Q ← clipped rounding of B - L; the pair with the smallest
‖X (B - L - Q̃)‖ on the sample X is kept. Before it, the scaling of `awq`.
Cost: 2 (2q + 2) r k n a turn, and a product with the sample for each clipping tried.
Source: Gu et al., arXiv 2601.05684, from its description. Unverified: amax is the whole weight's;
its further threshold on amax's slope is not known to us and left out; clippings are of our grid.
"""

from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace, device

from lrqmm._checks import Array
from lrqmm._parameters import number, whole
from lrqmm.methods.awq import AWQ
from lrqmm.methods.lowrank_first import LowRankFirst
from lrqmm.products.composition import Preset
from lrqmm.products.cost import Cost
from lrqmm.products.lowrank import DEFAULT_RANK
from lrqmm.products.parts import Factors, Operand
from lrqmm.products.phases import phase
from lrqmm.products.quantize import Quantizer
from lrqmm.products.scaling import energy, near_one
from lrqmm.products.weightside import WeightSide

CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)
"""Largest magnitudes that are kept, of a vector's (group's) own; tried in the first turn."""


@dataclass(frozen=True, kw_only=True)
class FLRQ(WeightSide):
    """B = L + Q̃ + what is lost, the rank of L found from B; `rank` is the most that it may be.

    Parameters
    ----------
    bits : d; the quantiser's, where that has them as a parameter
    growth : x, the most that factors may add to the weight's bits
    power_iterations : q of the rank-1 sketch
    iterations : turns after the first
    seed : of the sketches
    """

    bits: int = whole(8, 1, 16)
    growth: float = number(0.2, 0.0, 1e3)
    power_iterations: int = whole(2, 0)
    iterations: int = whole(20, 0)
    seed: int = whole(0, 0)

    def sketch(self, X: Array, rank: int) -> Factors:
        """Rank-1 parts of X (k x n), one after another: U (k x rank), V (rank x n)."""
        xp = array_namespace(X)
        X, power = near_one(X)
        chances = np.random.Generator(np.random.Philox(self.seed))
        S = chances.standard_normal((rank, X.shape[1]), dtype=np.float32)
        U, V = [X[:, :0]], [X[:0, :]]
        with phase("factorize"):
            for s in S:
                u = X @ xp.asarray(s, device=device(X))
                for _ in range(self.power_iterations):
                    u = X @ (X.T @ _unit(u))
                u = _unit(u)
                v = u @ X
                X = X - u[:, None] * v[None, :]
                U.append(u[:, None])
                V.append(v[None, :])
            return xp.concat(U, axis=1), power * xp.concat(V, axis=0)

    def most(self, k: int, n: int) -> int:
        """The largest rank that `growth` and `rank` leave for a k x n weight."""
        rank = DEFAULT_RANK if self.rank is None else self.rank
        return min(rank, k, n, int(self.growth / self._share(k, n)))

    def _share(self, k: int, n: int) -> float:
        """Bits of one rank's factors over the weight's own."""
        each = 32 if self.factor_dtype == "float32" else 8
        return each * (k + n) / (self.bits * k * n)

    def rank_that_pays(self, B: Array) -> int:
        """r by the rule above."""
        xp = array_namespace(B)
        B, _ = near_one(B)
        k, n = (int(size) for size in B.shape)
        U, V = self.sketch(B, self.most(k, n))
        largest = float(xp.max(xp.abs(B)))
        rest = B
        for r in range(1, U.shape[1] + 1):
            rest = rest - U[:, r - 1 : r] @ V[r - 1 : r, :]
            left = max(float(xp.max(xp.abs(rest))), 1e-30)
            won = float(np.log2(largest / left)) / self.bits if largest else 0.0
            if r * self._share(k, n) > won:
                return r - 1
        return int(U.shape[1])

    def quantize_right(
        self, B: Array, quantizer: Quantizer, calibration: Array | None
    ) -> tuple[Operand, Factors | None]:
        xp = array_namespace(B)
        rank = self.rank_that_pays(B)
        X, _ = near_one(calibration)
        X = xp.linalg.qr(X)[1] if X.shape[0] > B.shape[0] else X
        best, least, target = None, float("inf"), B
        clips: tuple[float, ...] = CLIPS
        for _ in range(1 + self.iterations):
            factors = self.stored(self.sketch(target, rank))
            turn, smallest = None, float("inf")
            for clip in clips:
                operand = Operand.quantize(
                    B, quantizer, right=True, calibration=calibration, taken=factors, clip=clip
                )
                error = energy(X @ operand.residual)
                if turn is None or error < smallest:
                    turn, smallest, clips_next = operand, error, (clip,)
            assert turn is not None
            clips = clips_next
            if best is None or smallest < least:
                best, least = turn, smallest
            target = B - turn.approx
        assert best is not None
        return best, best.taken if rank else None

    def cost(self, m: int, k: int, n: int) -> Cost:
        """That of the largest rank that the rule allows; it may find a smaller one."""
        return LowRankFirst(rank=self.most(k, n), factor_dtype=self.factor_dtype).cost(m, k, n)


def _unit(u: Array) -> Array:
    norm = array_namespace(u).linalg.vector_norm(u)
    return u / norm if float(norm) > 0 else u


METHOD = Preset("flrq", title="FLRQ", compensator=FLRQ, transform=AWQ, cites=("gu2026flrq",))
