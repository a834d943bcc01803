"""Low-rank correction of the right operand alone: what LQER and its successors share.

    C ≈ Ã B̃ + A L,    L = S⁻¹ [S R_B]_r

R_B = B - B̃ is known before any A is, so L is found once, offline, by an exact SVD in float64; the
metric S says which errors of B matter, from a sample X of left operands. R_A is left as it is.
`A L` runs on the float A, as in these papers, whose activations stay in high precision there.
"""

from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from lrqmm import _checks
from lrqmm._checks import Array
from lrqmm._parameters import one_of, whole
from lrqmm.products.cost import Cost
from lrqmm.products.decompose import eigh, svd
from lrqmm.products.lowrank import DEFAULT_RANK
from lrqmm.products.parts import Compensator, Factors, Operand, stored
from lrqmm.products.phases import phase
from lrqmm.products.scaling import in_float32, in_float64, near_one

Metric = tuple[Array, Array] | None
"""S and S⁻¹ (k x k), or their diagonals (k,), float64; None is the identity."""


@dataclass(frozen=True, kw_only=True)
class WeightSide(Compensator):
    """Thin factors of the weight's residual in a metric; subclasses choose it.

    Parameters
    ----------
    rank : 0 to min(k, n); None is min(16, that limit)
    factor_dtype : 'float32', or 'int8' (each factor column rounded to 8 bits)
    """

    calibrated = True
    ahead = True

    rank: int | None = whole(None, 0)
    factor_dtype: str = one_of("float32", "float32", "int8")

    def check_shape(self, m: int, k: int, n: int) -> None:
        _checks.rank(self.rank, m, k, n)

    def metric(self, sample: Array) -> Metric:
        """S and its inverse from left operands, (s, k) float64, whose largest magnitude is near 1:
        only ratios of S matter. The identity unless a subclass chooses another."""
        return None

    def rank_of(self, k: int, n: int) -> int:
        """The rank at which an operand (k x n) is compensated."""
        return min(DEFAULT_RANK if self.rank is None else self.rank, k, n)

    def prepare(self, B: Operand, calibration: Array | None) -> Factors | None:
        rank = self.rank_of(*B.shape)
        if rank == 0:
            return None
        return self.stored(best_low_rank(B.residual, rank, self.fitted_metric(calibration)))

    def fitted_metric(self, calibration: Array | None) -> Metric:
        """The metric of a calibration sample (s, k) float32; the identity where none is needed."""
        if calibration is None:
            return None
        with phase("factorize"):
            return self.metric(near_one(in_float64(calibration))[0])

    def stored(self, factors: Factors) -> Factors:
        """The factors as they are kept."""
        return stored(factors, self.factor_dtype)

    def correct(self, A: Operand, B: Operand, prepared: Any) -> Array | None:
        if prepared is None:
            return None
        U, V = prepared
        with phase("correct"):
            return (A.exact @ U) @ V

    def cost(self, m: int, k: int, n: int) -> Cost:
        r = self.rank_of(k, n)
        each, scale = (32, 0) if self.factor_dtype == "float32" else (8, 32)
        return Cost(
            float_operations=2 * m * r * (k + n),
            bytes=4 * m * k + 8 * m * n,
            operand_bits=each * r * (k + n) + scale * 2 * r,
        )


def best_low_rank(T: Array, rank: int, metric: Metric) -> Factors:
    """U (k x r), V (r x n) float32: the L of rank r with the smallest ‖S (T - L)‖, T (k x n)."""
    with phase("factorize"):
        T = in_float64(T)
        W, s, Vt = svd(apply_metric(metric[0], T) if metric else T)
        U = W[:, :rank] * s[:rank]
        U = apply_metric(metric[1], U) if metric else U
        return in_float32(U), in_float32(Vt[:rank, :])


def apply_metric(S: Array, X: Array) -> Array:
    return S[:, None] * X if S.ndim == 1 else S @ X


def principal_directions(sample: Array, most: int) -> Array:
    """Eigenvectors of E[x xᵀ] over the rows x of a sample (s x k), (k x d) float64.

    The largest first, at most `most`, and only those in which the sample has something: the others'
    choice would be the library's, and differ with its number of threads.
    """
    xp = array_namespace(sample)
    values, U = second_moment(in_float64(sample))
    d = min(most, int(xp.sum(xp.astype(values > xp.min(values), xp.int64))))
    return xp.flip(U, axis=1)[:, :d]


def second_moment(sample: Array) -> tuple[Array, Array]:
    """Eigenvalues, made positive, and eigenvectors of E[x xᵀ] over the rows x of a sample, which is
    made near 1 first."""
    xp = array_namespace(sample)
    sample, _ = near_one(sample)
    values, vectors = eigh(sample.T @ sample / sample.shape[0])
    floor = xp.clip(xp.max(values) * 1e-10, min=1e-30)  # a short sample leaves zeros
    return xp.clip(values, min=floor), vectors
