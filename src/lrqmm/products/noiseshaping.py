"""Quantisation along the inner dimension, each element making up for those before it.

An alphabet of 2^b odd levels, ±{1, 3, ..., 2^b - 1} / (2^b - 1) times the scale, has no zero, so
one bit is a sign. With the state u of what was lost so far,

    q_i = nearest(z_i + β u_{i-1}),    u_i = z_i + β u_{i-1} - q_i

β = 0 is memoryless, β = 1 sigma-delta of order 1: the error of a sum of neighbours is then that of
its two ends, so it is small against operands that are smooth along the inner dimension.

Condensing is for an inner dimension whose elements are independent samples, as random features are:
of each block of λ elements only one number is kept, v = (β^-1, ..., β^-λ) times the block, and

    Σ_i a_i b_i  ≈  Σ_blocks (λ / ‖v‖²) ⟨v, a⟩ ⟨v, b⟩

Source: Zhang, Kannan, Cloninger, Saab, arXiv 2106.02614 (sigma-delta and distributed noise shaping
for random features); Shao et al., arXiv 1903.03319 (one-bit precoding). Scales: this project.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from lrqmm._checks import Array
from lrqmm._parameters import one_of, whole
from lrqmm.products.backends import backend_of, integer_matmul
from lrqmm.products.cost import Cost
from lrqmm.products.phases import phase
from lrqmm.products.quantize import usable_scale
from lrqmm.products.rsvd import sketch_matrix
from lrqmm.products.scaling import energy
from lrqmm.products.wholeproduct import WholeProduct

PROBES = 8
"""Columns on which a gain is fitted."""

Side = tuple[Array, Array | None]
"""An operand laid along k: codes (rows, blocks) and scale (rows, 1); or itself, and None."""


@dataclass(frozen=True)
class NoiseShaped(WholeProduct):
    """A product of two operands, or one, on that alphabet.

    Parameters
    ----------
    bits : 1 to 8
    sides : 'ab', or 'a' or 'b' to quantise one operand only
    granularity : scales shared by a 'vector' (row of A, column of B) or the 'tensor'
    gain : 'unit', or 'fitted': one number for the whole product, by least squares against A (B X)
        for 8 random columns X
    seed : of those
    """

    bits: int = whole(1, 1, 8)
    sides: str = one_of("ab", "ab", "a", "b")
    granularity: str = one_of("vector", "vector", "tensor")
    gain: str = one_of("fitted", "unit", "fitted")
    seed: int = whole(0, 0)

    @property
    @abstractmethod
    def feedback(self) -> float:
        """β."""

    @property
    def block(self) -> int:
        """λ; 1 is no condensing."""
        return 1

    @property
    def levels(self) -> int:
        """The largest code, 2^b - 1."""
        return int(2**self.bits - 1)

    def _prepare(self, B: Array, calibration: Array | None, *, scratch: bool) -> tuple[Array, Side]:
        return B, self._side(B.T, "b")

    def _multiply(self, A: Array, prepared: tuple[Array, Side], out: Array | None) -> Array:
        B, right = prepared
        left = self._side(A, "a")
        with phase("product"):
            C = self._integer_product(left, right)
        if self.gain == "unit":
            return C
        with phase("correct"):
            return C * self._fitted_gain(A, B, C)

    def _side(self, X: Array, side: str) -> Side:
        if side not in self.sides:
            return X, None
        with phase("quantize"):
            codes, scale = self.quantize(X)
            return (codes if self.block == 1 else self.condensed(codes)), scale

    def quantize(self, X: Array) -> tuple[Array, Array]:
        """Odd codes (rows, k), float32, and scales, (rows, 1) or (1, 1), with X ≈ scale · codes."""
        xp = array_namespace(X)
        axes = (0, 1) if self.granularity == "tensor" else (1,)
        largest = xp.max(xp.abs(X), axis=axes, keepdims=True)
        # the largest |x| in units of the scale for which |u| stays below 1: |x| + β ≤ 2^b
        headroom = min(float(self.levels), 2.0**self.bits - self.feedback)
        scale, divisor = usable_scale(xp, largest / headroom)
        columns = (X / divisor).T  # (k, rows): one element of every vector is contiguous
        codes = xp.empty_like(columns)
        u = xp.zeros_like(columns[0, :])
        for i in range(columns.shape[0]):
            if self.block > 1 and i % self.block == 0 and self.feedback != 1.0:
                u = xp.zeros_like(u)
            v = columns[i, :] + self.feedback * u
            q = xp.clip(2 * xp.floor(v / 2) + 1, -self.levels, self.levels)
            codes[i, :] = q
            u = v - q
        return codes.T, scale

    def weights(self, length: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """v · sqrt(λ) / ‖v‖ of a block of this length; ones where β = 1."""
        if self.feedback in (0.0, 1.0):
            return np.ones(length, np.float32)
        v = self.feedback ** -np.arange(1.0, length + 1)
        return np.asarray(v * (length**0.5 / np.linalg.norm(v)), np.float32)

    def condensed(self, codes: Array) -> Array:
        """One number a block, (rows, ⌈k / λ⌉)."""
        xp = array_namespace(codes)
        k = codes.shape[1]
        sums = []
        for start in range(0, k, self.block):
            stop = min(start + self.block, k)
            v = xp.asarray(self.weights(stop - start), device=device(codes))
            sums.append((codes[:, start:stop] @ v)[:, None])
        return xp.concat(sums, axis=1)

    def _integer_product(self, left: Side, right: Side) -> Array:
        xp = array_namespace(left[0])
        (x, s), (y, t) = left, right
        if s is not None and t is not None and self._whole_codes:
            narrow = xp.int8 if self.levels * self.block <= 127 else xp.int16
            C = integer_matmul(xp.astype(x, narrow), xp.astype(y.T, narrow))
            return xp.astype(C, xp.float32) * (s * t.T)
        x, y = (codes if scale is None else codes * scale for codes, scale in (left, right))
        return backend_of(x).float_matmul(x, y.T, "float32", None)

    @property
    def _whole_codes(self) -> bool:
        """Whether what is multiplied are integers that `integer_matmul` takes."""
        return self.block * self.levels <= 255 and (self.block == 1 or self.feedback == 1.0)

    def _fitted_gain(self, A: Array, B: Array, C: Array) -> float:
        xp = array_namespace(A)
        n = int(B.shape[1])
        X = sketch_matrix(A, n, PROBES, "gaussian", (self.seed, 3)) * 2.0 ** -n.bit_length()
        exact, approx = (xp.astype(Y, xp.float64) for Y in (A @ (B @ X), C @ X))
        size = energy(approx)
        return float(xp.sum(exact * approx)) / size if size else 1.0

    def integer_route(self, like: Array) -> str:
        if len(self.sides) == 2 and self._whole_codes:
            return super().integer_route(like)
        return "none: one operand, or what is condensed, is float32"

    def cost(self, m: int, k: int, n: int) -> Cost:
        inner = -(-k // self.block)
        halves = 1 if self.block * self.levels <= 127 else 4  # codes wider than int8 are two
        operations = 2 * m * inner * n
        scales = {"vector": (m, n), "tensor": (1, 1)}[self.granularity]
        bits = sum(
            self.bits * rows * k + 32 * scale_count if side in self.sides else 32 * rows * k
            for side, rows, scale_count in zip("ab", (m, n), scales, strict=True)
        )
        integer = len(self.sides) == 2 and self._whole_codes
        fitting = 2 * PROBES * (m * k + k * n + m * n) if self.gain == "fitted" else 0
        return Cost(
            integer_operations=halves * operations if integer else 0,
            float_operations=fitting + (0 if integer else operations),
            bytes=5 * (m * k + k * n) + (m + n) * inner + 12 * m * n,
            operand_bits=bits,
        )
