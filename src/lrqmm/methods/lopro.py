"""LoPRo: a low-rank part taken out, what is left permuted, partly rotated, rounded with feedback.

    L = [diag(α) B]_r brought back by diag(1/α),    R = B - L,    α_i = sqrt(E[x_i²])
    C ≈ Q(A T) Q(T⁻¹ R) + A L,    T = P diag(I, H)

P sorts the inner dimension by E[x_i²] / mean|R_i:|, largest first: the first part of it meets large
activations with small weights and is left alone, blocks of the rest are rotated by Hadamard
matrices. T⁻¹R is rounded as in `gptq` on the sample in the same basis; U and V are kept as float8,
one scale per column.
Cost: those of `hadamard` and `qera`; an SVD and `gptq` once per weight.
Source: arXiv 2601.19675, from its description. Unverified: the size of the part left alone (an
eighth here), of the blocks, and α.
"""

from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from lrqmm._checks import Array
from lrqmm._parameters import number, whole
from lrqmm.methods.e4m3 import E4M3
from lrqmm.methods.gptq import GPTQ
from lrqmm.methods.hadamard import Hadamard, factors
from lrqmm.methods.qera import QERA
from lrqmm.products.composition import Composition
from lrqmm.products.cost import Cost
from lrqmm.products.lowrank import DEFAULT_RANK
from lrqmm.products.parts import Factors, NoCompensator, stored
from lrqmm.products.phases import phase
from lrqmm.products.quantized import Quantized, product
from lrqmm.products.scaling import near_one
from lrqmm.products.weightside import best_low_rank
from lrqmm.products.wholeproduct import WholeProduct


@dataclass(frozen=True)
class LoPRo(WholeProduct):
    """The product by that recipe.

    Parameters
    ----------
    bits, bits_a, zero_point_a, granularity, damping : of `gptq`
    rank : 0 to min(k, n); None is min(16, that limit)
    alone : fraction of the inner dimension that is not rotated
    block, seed : of `hadamard`
    """

    calibrated = True

    bits: int = 8
    bits_a: int | None = None
    zero_point_a: str | None = None
    granularity: str = "vector"
    damping: float = 0.01
    rank: int | None = whole(None, 0)
    alone: float = number(0.125, 0.0, 1.0)
    block: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.quantizer.bits  # they check theirs
        assert self.rotation.seed >= 0

    @property
    def quantizer(self) -> GPTQ:
        """Of the rest of B."""
        return GPTQ(
            bits=self.bits,
            bits_a=self.bits_a,
            zero_point_a=self.zero_point_a,
            granularity=self.granularity,
            damping=self.damping,
            order="natural",
            levels="odd",
        )

    @property
    def rotation(self) -> Hadamard:
        """Of the columns that are not left alone."""
        return Hadamard(block=self.block, seed=self.seed)

    @property
    def code_bits(self) -> int:
        return int(self.quantizer.code_bits)

    def _prepare(self, B: Array, calibration: Array | None, *, scratch: bool) -> Any:
        xp = array_namespace(B)
        rank = min(DEFAULT_RANK if self.rank is None else self.rank, *map(int, B.shape))
        metric = QERA(moments="diagonal").fitted_metric(calibration)
        U, V = in_float8(best_low_rank(B, rank, metric))
        with phase("residual"):
            R = B - U @ V
        second = xp.mean(near_one(calibration)[0] ** 2, axis=0)
        size = xp.mean(xp.abs(near_one(R)[0]), axis=1)
        order = xp.argsort(-second / xp.clip(size, min=1e-30), stable=True)
        with phase("transform"):
            signs = self.rotation.fit(R, self.quantizer, None)
            basis = (order, signs)
            right, sample = self.turned(R.T, basis), self.turned(calibration, basis)
        with phase("quantize"):
            codes = self.quantizer.quantize(right, calibration=sample)
        return basis, codes, (U, V)

    def _multiply(self, A: Array, prepared: Any, out: Array | None) -> Array:
        basis, right, (U, V) = prepared
        with phase("transform"):
            turned = self.turned(A, basis)
        with phase("quantize"):
            left: Quantized = self.quantizer.left.quantize(turned)
        with phase("product"):
            C = product(left, right)
        with phase("correct"):
            return C + (A @ U) @ V if U.shape[1] else C

    def turned(self, X: Array, basis: tuple[Array, Array]) -> Array:
        """X T (rows x k): the columns in order, all but the first rotated."""
        order, signs = basis
        xp = array_namespace(X)
        X = xp.take(X, order, axis=1)
        first = round(self.alone * X.shape[1])
        if first == X.shape[1]:
            return X
        return xp.concat([X[:, :first], self.rotation.left(X[:, first:], signs[first:])], axis=1)

    def cost(self, m: int, k: int, n: int) -> Cost:
        rank = min(DEFAULT_RANK if self.rank is None else self.rank, k, n)
        turned = k - round(self.alone * k)
        block = turned if self.block is None else min(self.block, turned)
        turning = 2 * m * turned * sum(factors(block)) if turned else 0
        beside = Cost(
            float_operations=turning + 2 * m * rank * (k + n),
            bytes=4 * m * k + 8 * m * n,
            operand_bits=8 * rank * (k + n) + 64 * rank + 32 * k,  # the order too
        )
        direct = Composition("direct", self.quantizer, NoCompensator()).cost(m, k, n)
        return direct + beside


def in_float8(low_rank: Factors) -> Factors:
    """The columns of U and the rows of V, each in E4M3 with a scale."""
    return stored(low_rank, E4M3())


METHOD = LoPRo("lopro", title="LoPRo", cites=("gu2026lopro",))
