"""Direct SVD, then quantise: the factors of the truncated SVD, each rounded by itself.

    B = U Σ Vᵀ,    L = Q_left(U_r),    R = Q_right(Σ_r V_rᵀ),    C ≈ (A L) R

R is not told how L was rounded; `lplr_svd` is this with R fitted to it.
Cost: one exact SVD, O(k n min(k, n)), a weight; 2mr(k + n) a product.
Source: the baseline of Saha, Srivastava, Pilanci, arXiv 2310.11028.
"""

from lrqmm._checks import Array
from lrqmm.products.compression import Compressed, Factorizer
from lrqmm.products.decompose import svd
from lrqmm.products.parts import Factors
from lrqmm.products.phases import phase


def truncated_svd(B: Array, rank: int) -> Factors:
    """U_r (k x r) and Σ_r V_rᵀ (r x n), exact."""
    with phase("factorize"):
        U, s, Vt = svd(B)
        return U[:, :rank], s[:rank, None] * Vt[:rank, :]


class DirectSVD(Factorizer):
    """L and R of the exact SVD."""

    def compress(self, B: Array, calibration: Array | None) -> Compressed:
        k, n = map(int, B.shape)
        U, R = truncated_svd(B, self.rank_of(k, n))
        return Compressed(((self.left(U), self.right(R)),))


METHOD = DirectSVD("dsvd", title="SVD, then rounded", cites=("saha2023lplr",))
