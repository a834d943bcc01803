"""Gram matrices of random Fourier features: Z Zᵀ, which approximates a Gaussian kernel.

    z(x) = cos(Wᵀx + ξ),    W ~ N(0, 1),  ξ ~ U(0, 2π),    (2 / m) z(x)·z(y) ≈ exp(-‖x - y‖² / 2)

300 points of dimension 10, standard normal over sqrt(10); a case is the number of features. Score:
the error of all entries off the diagonal against the kernel itself, in which the sampling error of
the features is contained, as it is for SGEMM.
Source: Rahimi, Recht (2007); quantised: Zhang, Kannan, Cloninger, Saab, arXiv 2106.02614.
"""

import numpy as np
from numpy.typing import NDArray

from lrqmm.bench.sources import Float32, Workload

Float64 = NDArray[np.float64]

POINTS, DIMENSION = 300, 10
COUNTS = (1024, 4096, 16384)


def points(seed: int) -> Float64:
    """(300, 10) float64."""
    drawn: Float64 = _chances(seed, 0).standard_normal((POINTS, DIMENSION)) / DIMENSION**0.5
    return drawn


def kernel(seed: int) -> Float64:
    """exp(-‖x - y‖² / 2) of all pairs of points."""
    x = points(seed)
    K: Float64 = np.exp(-((x[:, None, :] - x[None, :, :]) ** 2).sum(axis=2) / 2)
    return K


def make(case: str, seed: int) -> tuple[Float32, Float32]:
    """Z (300 x count) and its transpose."""
    count = int(case)
    chances = _chances(seed, 1)
    W = chances.standard_normal((DIMENSION, count))
    Z = np.cos(points(seed) @ W + chances.uniform(0, 2 * np.pi, count)).astype(np.float32)
    return Z, np.ascontiguousarray(Z.T)


def score(case: str, seed: int, C: Float32) -> dict[str, float]:
    """`gram_error`: ‖(2 / count) C - K‖ / ‖K‖ over the entries off the diagonal."""
    K = kernel(seed)
    off = ~np.eye(len(K), dtype=bool)
    wrong = 2 / int(case) * C.astype(np.float64) - K
    return {"gram_error": float(np.linalg.norm(wrong[off]) / np.linalg.norm(K[off]))}


def _chances(seed: int, part: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, part))))


SOURCE = Workload(
    name="features",
    title="random Fourier features",
    cases={str(count): (POINTS, count, POINTS) for count in COUNTS},
    matrices=make,
    scores=score,
    metrics=("gram_error",),
)
