"""LPLR-SVD: the truncated SVD's left factor, rounded, and the best right factor for it, rounded.

    B = U Σ Vᵀ,    L = Q_left(U_r Σ_r S),    R = Q_right(L⁺ B),    C ≈ (A L) R

S (r x r), N(0, 1/r), spreads the singular directions over the columns of L, so that one scale
serves all; without it (`sketch: none`) each column needs a scale of its own.
Cost: one exact SVD per weight; 2mr(k + n) a product.
Source: Saha, Srivastava, Pilanci, arXiv 2310.11028.
"""

from dataclasses import dataclass

from array_api_compat import array_namespace

from lrqmm._checks import Array
from lrqmm._parameters import one_of, whole
from lrqmm.methods.dsvd import truncated_svd
from lrqmm.products.compression import Compressed, Factorizer, least_squares
from lrqmm.products.rsvd import sketch_matrix
from lrqmm.products.scaling import in_float64


@dataclass(frozen=True)
class LPLRSVD(Factorizer):
    """L of the exact SVD, R fitted to L as it is kept.

    Parameters
    ----------
    sketch : 'gaussian' or 'none'
    seed : of S
    """

    sketch: str = one_of("gaussian", "gaussian", "none")
    seed: int = whole(0, 0)

    def compress(self, B: Array, calibration: Array | None) -> Compressed:
        k, n = map(int, B.shape)
        rank = self.rank_of(k, n)
        U, R = truncated_svd(B, rank)
        Z = U * array_namespace(B).linalg.vector_norm(R, axis=1)  # U Σ: R is Σ Vᵀ
        if self.sketch == "gaussian":
            S = in_float64(sketch_matrix(B, rank, rank, "gaussian", (self.seed, 0)))
            Z = Z @ S / rank**0.5
        L = self.left(Z)
        return Compressed(((L, self.right(least_squares(L, B))),))


METHOD = LPLRSVD("lplr_svd", title="LPLR-SVD", cites=("saha2023lplr",))
