"""GPTQ: columns of the weight rounded one after another, each making up for those before it.

    H = XᵀX + λ I over a sample X of left operands,  H⁻¹ = UᵀU, U upper triangular;
    for i in order:  q_i = round(w_i),  w_j ← w_j - (w_i - q_i) U_ij / U_ii  for the j still to come

with w_i the i-th row of B: what rounding it does to the product is put into the rows still to come.
Scales are those of the weight before; λ is 1% of the mean of diag(XᵀX). Activations are uniform at
`bits_a`.
Cost: k³ / 3 + k² n once per weight.
Source: Frantar et al., arXiv 2210.17323 (natural order, blocks of 128). The other orders are those
that its libraries have on: the largest diag(H) first, "act-order" (LLM Compressor; the order of the
authors' own code where it is asked for), or that inside whole groups, which come by their largest
("group-aware", GPTQModel). As scales are fixed before, the order is not stored.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from array_api_compat import array_namespace

from lrqmm._checks import Array
from lrqmm._parameters import number, one_of
from lrqmm.products.composition import Preset
from lrqmm.products.decompose import inverse_root
from lrqmm.products.quantize import (
    LEVELS,
    ZERO_POINTS,
    Encoded,
    Uniform,
    WeightOnly,
    blocks,
    clipped,
    shared_axes,
    stored_codes,
)
from lrqmm.products.quantized import Quantized
from lrqmm.products.scaling import near_one

BLOCK = 128
SHARES = tuple(1 - 0.02 * step for step in range(26))
"""Of the largest magnitude, to which weights are cut; the one with the least squared error."""


@dataclass(frozen=True, kw_only=True)
class GPTQ(WeightOnly):
    """Uniform levels, rounded with feedback.

    Parameters
    ----------
    damping : λ in means of the diagonal of XᵀX
    order : of the columns of the weight: 'natural'; 'activation', the largest diag(H) first;
        'groups', whole groups, those with the largest diag(H) first, and inside them likewise
    zero_point : of the weight, as in `Uniform`
    levels : of a weight without a zero point, as in `Uniform`; None is 'signed'
    clip : whether each vector or group is cut where its squared error is least, from all of it to
        half of it

    Raises
    ------
    TypeError, ValueError : a parameter that is not allowed; levels beside a zero point
    """

    calibrated = True

    damping: float = number(0.01, 0.0, 1e3)
    order: str = one_of("activation", "natural", "activation", "groups")
    levels: str | None = one_of(None, None, *LEVELS)
    zero_point: str | None = one_of(None, *ZERO_POINTS)
    clip: bool = one_of(False, False, True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels is not None and self.zero_point is not None:
            raise ValueError(
                f"levels is {self.levels!r}; allowed: None where the weight has a zero point, "
                "and so all 2^b levels"
            )

    @property
    def offsets(self) -> bool:
        return self._uniform.offsets

    def stored_bits(self, rows: int, k: int) -> int:
        return self._uniform.stored_bits(rows, k)

    @property
    def _uniform(self) -> Uniform:
        kind = "odd" if self.zero_point else self.levels or "signed"
        return Uniform(
            bits=self.bits,
            granularity=self.granularity,
            levels=kind,
            zero_point=self.zero_point,
        )

    def quantize(self, X: Array, calibration: Array | None = None) -> Quantized:
        """Quantise X = Bᵀ, (n, k), for left operands such as `calibration`, (s, k); without a
        sample to nearest."""
        xp = array_namespace(X)
        k = X.shape[1]
        scale, offset, group = self._grid(xp, X)

        def by_column(values: Array) -> Array:  # float64, of one for each vector or group
            values = xp.repeat(values, group, axis=1)[:, :k] if values.shape[1] > 1 else values
            return xp.astype(xp.broadcast_to(values, X.shape), xp.float64)

        weights, scales = xp.astype(X, xp.float64, copy=True), by_column(scale)
        if offset is not None:
            weights = weights - by_column(offset)
        U = order = None
        if calibration is not None:
            H = self._second_moments(xp, calibration)
            order = self._order(xp, xp.linalg.diagonal(H), group)
            U = inverse_root(xp.take(xp.take(H, order, axis=0), order, axis=1))
            weights, scales = (xp.take(values, order, axis=1) for values in (weights, scales))
        codes = self._codes(xp, weights, scales, U)
        if order is not None:
            codes = xp.take(codes, xp.argsort(order), axis=1)
        return Quantized(stored_codes(xp, codes, xp.int8), scale, offset, group)

    def _codes(self, xp: ModuleType, weights: Array, scales: Array, U: Array | None) -> Array:
        """Codes of weights (n, k), which are overwritten; without U to nearest."""
        top = 2 ** (self.bits - 1) - 1
        bottom = -top if self._uniform.levels == "odd" and not self.zero_point else -top - 1
        safe = xp.where(scales != 0, scales, xp.full_like(scales, float("inf")))

        def rounded(columns: Any) -> Array:
            return xp.clip(xp.round(weights[:, columns] / safe[:, columns]), bottom, top)

        k = weights.shape[1]
        if U is None:
            return rounded(slice(0, k))
        codes = xp.zeros_like(weights)
        for start in range(0, k, BLOCK):
            stop = min(start + BLOCK, k)
            errors = xp.zeros_like(weights[:, start:stop])
            for i in range(start, stop):
                q = rounded(i)
                error = (weights[:, i] - q * scales[:, i]) / U[i, i]
                weights[:, i:stop] = weights[:, i:stop] - error[:, None] * U[None, i, i:stop]
                codes[:, i], errors[:, i - start] = q, error
            weights[:, stop:] = weights[:, stop:] - errors @ U[start:stop, stop:]
        return codes

    def _grid(self, xp: ModuleType, X: Array) -> tuple[Array, Array | None, int]:
        """Scales, offsets and the length of a group; cut where the squared error is least."""
        power, axes = 1.0, shared_axes(self.granularity)
        if self.clip:
            X, power = near_one(X)
        plain = self._uniform.quantize(X)
        scale, offset, least = plain.scale, plain.offset, xp.full_like(plain.scale, float("inf"))
        for share in SHARES if self.clip else ():
            cut = self._uniform.quantize(clipped(X, share, self.granularity))
            missed = blocks(xp, X - cut.dequantize(), cut.group) ** 2
            error = xp.sum(missed, axis=axes, keepdims=True)[:, :, 0]
            better = error < least
            least, scale = xp.where(better, error, least), xp.where(better, cut.scale, scale)
            offset = None if offset is None else xp.where(better, cut.offset, offset)
        return power * scale, None if offset is None else power * offset, plain.group

    def _second_moments(self, xp: ModuleType, calibration: Array) -> Array:
        """H, float64, of the sample made near 1: only ratios matter."""
        sample, _ = near_one(xp.astype(calibration, xp.float64))
        H = sample.T @ sample
        mean = xp.mean(xp.linalg.diagonal(H))
        mean = xp.where(mean > 0, mean, xp.ones_like(mean))
        eye = xp.eye(H.shape[0], dtype=xp.float64, device=H.device)
        return H + max(self.damping, 1e-6) * mean * eye

    def _order(self, xp: ModuleType, energy: Array, group: int) -> Array:
        """Numbers of columns, in the order in which they are rounded."""
        k = energy.shape[0]
        if self.order == "natural":
            return xp.arange(k, device=energy.device)
        order = xp.argsort(-energy, stable=True)
        if self.order == "activation" or group >= k:
            return order
        # by the rank of a group's first column in that order, then by a column's own
        rank = xp.argsort(order)
        first = xp.min(blocks(xp, rank[None, :], group), axis=2)
        first = xp.repeat(first[0], group)[:k]
        return xp.argsort(first * k + rank, stable=True)

    def encode(self, xp: ModuleType, x: Array, axes: tuple[int, ...]) -> Encoded:
        return self._uniform.encode(xp, x, axes)


METHOD = Preset("gptq", title="GPTQ", quantizer=GPTQ, cites=("frantar2022gptq",))
