"""Hadamard rotation: both operands in a basis in which no column of A stands out.

    A B = (A D H) (Hᵀ D B),    H orthogonal with entries of about k^-1/2, D = diag(±1)

H is the Kronecker product of Hadamard matrices and, for the odd factor of k, of the orthonormal
cosine transform, so that any k will do without padding. It spreads outliers; data that has none,
such as uniform(0, 1), it makes worse.
Cost: 2 (m + n) k Σ f operations for the factors f of k (at most 16 among the powers of two).
Source: QuaRot (Ashkboos et al., arXiv 2404.00456); cosine transform for odd sizes: this project.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device
from numpy.typing import NDArray

from lrqmm._checks import Array
from lrqmm._parameters import whole
from lrqmm.products.composition import Preset
from lrqmm.products.cost import Cost
from lrqmm.products.parts import Transform
from lrqmm.products.phases import phase
from lrqmm.products.quantize import Quantizer
from lrqmm.products.rsvd import sketch_matrix
from lrqmm.products.scaling import summed_in_float64

LARGEST = 16
"""Largest power of two that is multiplied as one matrix."""


def factors(k: int) -> list[int]:
    """k as a product: powers of two up to `LARGEST`, and an odd number."""
    power = k & -k
    sizes = [k // power] if k > power else []
    while power > 1:
        sizes.append(min(LARGEST, power))
        power //= sizes[-1]
    return sizes


@lru_cache
def orthogonal(size: int) -> NDArray[np.float32]:
    """(size, size): Hadamard's for a power of two, else the cosine transform (DCT-II)."""
    if size & (size - 1) == 0:
        H = np.ones((1, 1))
        while len(H) < size:
            H = np.block([[H, H], [H, -H]])
        return np.asarray(H / np.sqrt(size), np.float32)
    row, column = np.arange(size)[:, None], np.arange(size)
    H = np.cos(np.pi * row * (2 * column + 1) / (2 * size)) * np.sqrt(2 / size)
    H[0] /= np.sqrt(2)
    return np.asarray(H, np.float32)


def rotate(X: Array) -> Array:
    """X Hᵀ for X (rows, k): a factor of k at a time, along the axis that is then first."""
    xp = array_namespace(X)
    rows, k = X.shape
    for size in factors(k):
        H = xp.asarray(orthogonal(size), device=device(X), copy=True)
        split = xp.reshape(X, (rows, size, k // size))
        parts = xp.matrix_transpose(split)
        turned = parts @ H.T if size <= LARGEST else summed_in_float64(parts, H.T)
        X = xp.reshape(turned, (rows, k))
    return X


@dataclass(frozen=True, kw_only=True)
class Hadamard(Transform):
    """Rotation of the inner dimension.

    Parameters
    ----------
    block : columns that are rotated together, such as 64; None is all of them
    seed : of the signs D
    """

    block: int | None = whole(None, 1)
    seed: int = whole(0, 0)

    def fit(self, B: Array, quantizer: Quantizer, calibration: Array | None) -> Any:
        """The signs, (k,)."""
        return sketch_matrix(B, B.shape[0], 1, "sign", (self.seed, 2))[:, 0]

    def left(self, A: Array, fitted: Any) -> Array:
        xp = array_namespace(A)
        k = A.shape[1]
        block = k if self.block is None else self.block
        with phase("transform"):
            signed = A * fitted
            parts = [rotate(signed[:, start : start + block]) for start in range(0, k, block)]
            return parts[0] if len(parts) == 1 else xp.concat(parts, axis=1)

    def right(self, B: Array, fitted: Any) -> Array:
        return self.left(B.T, fitted).T

    def cost(self, m: int, k: int, n: int) -> Cost:
        passes = factors(k if self.block is None else min(self.block, k))
        return Cost(float_operations=2 * (m + n) * k * sum(passes), bytes=8 * (m + n) * k)


METHOD = Preset(
    "hadamard", title="Hadamard", transform=Hadamard, cites=("ashkboos2024quarot", "lrqmm_bench")
)
