"""LPLR: a sketch of the columns, rounded, and the best right factor for it, rounded.

    L = Q_left(B S),    R = Q_right(L⁺ B),    C ≈ (A L) R

S (n x r) has entries N(0, 1/r), or a few ±1 in each row. R makes up for the rounding of L. Power
iterations put B (BᵀB)^q S in the place of B S. `fit` scales and shifts the answer,
α L R + β 1 1ᵀ, by least squares; `iterations` repeats all of it on what is left.
Cost: 4 k n r operations and an SVD of L (k x r) a weight; 2mr(k + n) a product.
Source: Saha, Srivastava, Pilanci, arXiv 2310.11028. There a power iteration is not made
orthonormal in between; here it is, for without it rounding loses all but the largest directions.
"""

from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace, device

from lrqmm._checks import Array
from lrqmm._parameters import one_of, whole
from lrqmm.products.compression import FLOAT_BITS, Compressed, Factorizer, least_squares
from lrqmm.products.decompose import basis
from lrqmm.products.parts import Factors
from lrqmm.products.phases import phase
from lrqmm.products.rsvd import sketch_matrix
from lrqmm.products.scaling import in_float64

NONZEROS = 4
"""In a row of the sparse sketch."""


@dataclass(frozen=True)
class LPLR(Factorizer):
    """A randomised low-precision, low-rank factorisation.

    Parameters
    ----------
    sketch : 'gaussian' or 'sparse' (four entries ±1/2 in each row of S)
    power_iterations : q
    fit : whether to scale and shift L R to B
    iterations : further pairs of factors, of what is left; the budget is shared among all
    seed : of the sketches
    """

    sketch: str = one_of("gaussian", "gaussian", "sparse")
    power_iterations: int = whole(0, 0)
    fit: bool = one_of(False, False, True)
    iterations: int = whole(0, 0)
    seed: int = whole(0, 0)

    @property
    def pairs(self) -> int:
        """One, and one for each iteration."""
        return 1 + self.iterations

    def stored_bits(self, k: int, n: int) -> int:
        return super().stored_bits(k, n) + (2 * FLOAT_BITS if self.fit else 0)

    def compress(self, B: Array, calibration: Array | None) -> Compressed:
        k, n = map(int, B.shape)
        rest, factors = B, []
        for number in range(self.pairs):
            L, R = self.factorize(rest, self.rank_of(k, n), number)
            factors.append((L, R))
            rest = rest - L @ R
        gain, shift = fitted(B, B - rest) if self.fit else (1.0, 0.0)
        return Compressed(tuple(factors), None, gain, shift)

    def factorize(self, X: Array, rank: int, number: int) -> Factors:
        """L (k x r) and R (r x n) of one matrix, as they are kept."""
        with phase("sketch"):
            Y = X @ in_float64(self._sketch(X, int(X.shape[1]), rank, number))
        for _ in range(self.power_iterations):
            with phase("factorize"):
                Y = X @ basis(X.T @ basis(Y))
        L = self.left(Y)
        return L, self.right(least_squares(L, X))

    def _sketch(self, like: Array, n: int, rank: int, number: int) -> Array:
        if self.sketch == "gaussian":
            return sketch_matrix(like, n, rank, "gaussian", (self.seed, number)) / rank**0.5
        chances = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, number))))
        S = np.zeros((n, rank), np.float32)
        count = min(NONZEROS, rank)
        where = np.argsort(chances.random((n, rank)), axis=1)[:, :count]
        signs = chances.integers(0, 2, (n, count)).astype(np.float32) * 2 - 1
        np.put_along_axis(S, where, signs / count**0.5, axis=1)
        return array_namespace(like).asarray(S, device=device(like))


def fitted(B: Array, approx: Array) -> tuple[float, float]:
    """α and β that make ‖B - α B̂ - β 1 1ᵀ‖ least."""
    xp = array_namespace(B)
    x, y = (xp.reshape(X, (-1,)) for X in (B, approx))
    x_mean, y_mean = xp.mean(x), xp.mean(y)
    spread = float(xp.sum((y - y_mean) ** 2))
    gain = float(xp.sum((x - x_mean) * (y - y_mean))) / spread if spread else 1.0
    return gain, float(x_mean) - gain * float(y_mean)


METHOD = LPLR("lplr", title="LPLR", cites=("saha2023lplr",))
