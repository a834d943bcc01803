"""CALDERA: a weight as a dense part in few bits and two thin factors in few more, in turns.

    B̂ = Q + L R,    in turns  Q ← round(B - L R),  L, R ← argmin ‖X (B - Q - L R)‖

over a sample X of left operands. Q is rounded with feedback, as by `gptq`. L and R start from the
best of rank r in that metric, S⁻¹ [S (B - Q)]_r with S = E[x xᵀ]^(1/2); then in turns each is
fitted to the other by least squares and rounded. What had the smallest error of all is kept.
Cost: an eigendecomposition k x k, then `gptq` and one SVD per turn, once per weight;
2m(kn + r(k + n)) per product.
Source: Saha et al., arXiv 2405.18886, with a scalar quantiser in the place of its lattice (E8)
and without its Hadamard rotations.
"""

from dataclasses import dataclass

from array_api_compat import array_namespace

from lrqmm import _checks
from lrqmm._checks import Array
from lrqmm._parameters import one_of, whole
from lrqmm.methods.gptq import GPTQ
from lrqmm.methods.qera import QERA
from lrqmm.products.compression import (
    WIDTHS,
    Compressed,
    Compressor,
    affordable_rank,
    kept,
    kept_bits,
    least_squares,
)
from lrqmm.products.parts import Factors
from lrqmm.products.scaling import in_float32, in_float64
from lrqmm.products.weightside import Metric, best_low_rank


@dataclass(frozen=True)
class CALDERA(Compressor):
    """Calibration-aware low-precision decomposition with low-rank adaptation.

    Parameters
    ----------
    bits : of an element on average, 3 to 8
    bits_dense : of an element of Q, 2 to bits; None is bits - 1
    bits_left, bits_right : of an element of L and of R: 1 to 8, 16 or 32
    rank : None is what the budget leaves for L and R, at least 1
    iterations : turns of Q with L R
    inner_iterations : turns of L with R in each
    """

    calibrated = True

    bits: int = whole(4, 3, 8)
    granularity: str = "vector"
    bits_dense: int | None = None
    bits_left: int = one_of(8, *WIDTHS)
    bits_right: int = one_of(8, *WIDTHS)
    rank: int | None = whole(None, 1)
    iterations: int = whole(5, 1)
    inner_iterations: int = whole(3, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits_dense is not None:
            _checks.integer("bits_dense", self.bits_dense, 2, self.bits)

    @property
    def code_bits(self) -> int:
        return int(self.quantizer.code_bits)

    @property
    def quantizer(self) -> GPTQ:
        """Of the dense part."""
        bits = self.bits - 1 if self.bits_dense is None else self.bits_dense
        return GPTQ(bits=bits, granularity=self.granularity, order="natural", levels="odd")

    def rank_of(self, k: int, n: int) -> int:
        """Rank of L and R for a k x n operand."""
        if self.rank is not None:
            return min(self.rank, k, n)
        left = self.bits - self.quantizer.bits
        return affordable_rank(left, k, n, self.bits_left, self.bits_right)

    def compress(self, B: Array, calibration: Array | None) -> Compressed:
        xp = array_namespace(B)
        metric = QERA().fitted_metric(calibration)
        assert metric is not None
        S = metric[0]

        def lost(D: Array, L: Array, R: Array) -> float:
            return float(xp.sum((S @ (B - D - L @ R)) ** 2))

        L, R = B[:, :0], B[:0, :]
        best, least = None, float("inf")
        for _ in range(self.iterations):
            rest = in_float32(B - L @ R)
            coded = self.quantizer.quantize(rest.T, calibration=calibration)
            D = in_float64(coded.dequantize().T)
            pairs = self._in_turns(S, B - D, metric)
            errors = [lost(D, *pair) for pair in pairs]
            error = min(errors)
            L, R = pairs[errors.index(error)]
            if best is None or error < least:
                best, least = Compressed(((L, R),), D), error
        assert best is not None
        return best

    def _in_turns(self, S: Array, T: Array, metric: Metric) -> list[Factors]:
        """Pairs of rounded factors of T (k x n): those of the best of its rank, then each fitted to
        the other."""
        L, R = map(in_float64, best_low_rank(T, self.rank_of(*map(int, T.shape)), metric))
        factors = []
        for turn in range(1 + self.inner_iterations):
            if turn:
                L = least_squares(R.T, T.T).T  # of ‖S (T - L R)‖ over L, whatever S
            L = kept(L.T, self.bits_left, self.granularity).T
            R = kept(least_squares(S @ L, S @ T), self.bits_right, self.granularity)
            factors.append((L, R))
        return factors

    def stored_bits(self, k: int, n: int) -> int:
        r = self.rank_of(k, n)
        thin = kept_bits(r, k, self.bits_left, self.granularity)
        thin += kept_bits(r, n, self.bits_right, self.granularity)
        return self.quantizer.stored_bits(n, k) + thin

    def operations(self, m: int, k: int, n: int) -> int:
        return 2 * m * (k * n + self.rank_of(k, n) * (k + n))


METHOD = CALDERA("caldera", title="CALDERA", cites=("saha2024caldera",))
