"""GPTQ: columns of the weight rounded one after another, each making up for those before it.

    H = XᵀX + λ I over a sample X of left operands,  H⁻¹ = UᵀU, U upper triangular;
    for i = 1, ..., k:  q_i = round(w_i),  w_j ← w_j - (w_i - q_i) U_ij / U_ii  for j > i

with w_i the i-th row of B: what rounding it does to the product is put into the rows still to come.
Scales are those of the weight before; λ is 1% of the mean of diag(XᵀX). Activations are uniform at
`bits_a`.
Cost: k³ / 3 + k² n once per weight.
Source: Frantar et al., arXiv 2210.17323 (natural order of the columns, blocks of 128).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

from array_api_compat import array_namespace

from lrqmm import _checks
from lrqmm._checks import Array
from lrqmm.products.composition import Preset
from lrqmm.products.decompose import inverse_root
from lrqmm.products.quantize import Encoded, Uniform, WeightOnly, stored_codes
from lrqmm.products.quantized import Quantized
from lrqmm.products.scaling import near_one

BLOCK = 128


@dataclass(frozen=True, kw_only=True)
class GPTQ(WeightOnly):
    """Symmetric levels, rounded with feedback.

    Parameters
    ----------
    damping : λ in means of the diagonal of XᵀX
    """

    calibrated: ClassVar[bool] = True

    damping: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.real("damping", self.damping, 0.0, 1e3)

    def quantize(self, X: Array, calibration: Array | None = None) -> Quantized:
        """Quantise X = Bᵀ, (n, k), for left operands such as `calibration`, (s, k)."""
        xp = array_namespace(X)
        plain = Uniform(bits=self.bits, granularity=self.granularity).quantize(X)
        if calibration is None:
            return plain
        U = self._factor(xp, calibration)
        top = 2 ** (self.bits - 1) - 1
        weights = xp.astype(X, xp.float64, copy=True)
        codes = xp.zeros_like(weights)
        k = X.shape[1]
        scales = plain.scale
        if scales.shape[1] > 1:
            scales = xp.repeat(scales, plain.group, axis=1)[:, :k]
        scales = xp.astype(scales, xp.float64)
        for start in range(0, k, BLOCK):
            stop = min(start + BLOCK, k)
            errors = xp.zeros_like(weights[:, start:stop])
            for i in range(start, stop):
                scale = scales[:, i if scales.shape[1] > 1 else 0]
                safe = xp.where(scale > 0, scale, xp.ones_like(scale))
                q = xp.clip(xp.round(weights[:, i] / safe), -top, top)
                q = xp.where(scale > 0, q, xp.zeros_like(q))
                error = (weights[:, i] - q * scale) / U[i, i]
                weights[:, i:stop] = weights[:, i:stop] - error[:, None] * U[None, i, i:stop]
                codes[:, i], errors[:, i - start] = q, error
            weights[:, stop:] = weights[:, stop:] - errors @ U[start:stop, stop:]
        return Quantized(stored_codes(xp, codes, xp.int8), plain.scale, None, plain.group)

    def _factor(self, xp: ModuleType, calibration: Array) -> Array:
        """U upper triangular with UᵀU = H⁻¹, float64, of the sample made near 1: ratios matter."""
        sample, _ = near_one(xp.astype(calibration, xp.float64))
        H = sample.T @ sample
        diagonal = xp.linalg.diagonal(H)
        mean = xp.mean(diagonal)
        mean = xp.where(mean > 0, mean, xp.ones_like(mean))
        eye = xp.eye(H.shape[0], dtype=xp.float64, device=H.device)
        H = H + max(self.damping, 1e-6) * mean * eye
        return inverse_root(H)

    def encode(self, xp: ModuleType, x: Array, axes: tuple[int, ...]) -> Encoded:
        return Uniform(bits=self.bits, granularity=self.granularity).encode(xp, x, axes)


METHOD = Preset("gptq", title="GPTQ", quantizer=GPTQ, cites=("frantar2022gptq",))
