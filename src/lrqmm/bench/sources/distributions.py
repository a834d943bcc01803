"""Seeded random matrices, the same bits on every machine: NumPy's Philox generator, float32."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrqmm.bench.data.matrices import Float32, write_pair
from lrqmm.bench.sources import Config, Matrices, Pair, Source

Sampler = Callable[[np.random.Generator, int, int], NDArray[Any]]


def _low_rank(rng: np.random.Generator, rows: int, columns: int) -> NDArray[Any]:
    rank = min(20, rows, columns)
    X = rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))
    return X + 0.01 * np.std(X) * rng.standard_normal((rows, columns))


def _outliers(rng: np.random.Generator, rows: int, columns: int) -> NDArray[Any]:
    # one column in 64, at least one, twenty times as large: the pattern of LLM activations
    X = rng.standard_t(3, (rows, columns))
    X[:, rng.permutation(columns)[: max(1, columns // 64)]] *= 20
    return X


def _correlated(rng: np.random.Generator, rows: int, columns: int) -> NDArray[Any]:
    # every row an AR(1) process with coefficient 0.95, stationary with variance 1
    X = rng.standard_normal((rows, columns))
    for j in range(1, columns):
        X[:, j] = 0.95 * X[:, j - 1] + np.sqrt(1 - 0.95**2) * X[:, j]
    return X


def _power_law(exponent: float) -> Sampler:
    """Singular values i^-exponent between random orthonormal vectors."""

    def draw(rng: np.random.Generator, rows: int, columns: int) -> NDArray[Any]:
        rank = min(rows, columns)
        U = np.linalg.qr(rng.standard_normal((rows, rank)))[0]
        V = np.linalg.qr(rng.standard_normal((columns, rank)))[0]
        X: NDArray[Any] = (U * np.arange(1.0, rank + 1) ** -exponent) @ V.T
        X *= (rows * columns) ** 0.5
        return X

    return draw


DISTRIBUTIONS: dict[str, tuple[str, Sampler]] = {
    "uniform01": ("uniform(0, 1)", lambda g, r, c: g.random((r, c))),
    "uniform11": ("uniform(-1, 1)", lambda g, r, c: g.uniform(-1, 1, (r, c))),
    "normal": ("normal(0, 1)", lambda g, r, c: g.standard_normal((r, c))),
    "exponential": ("exponential(1)", lambda g, r, c: g.standard_exponential((r, c))),
    "chi2": ("chi-square(1)", lambda g, r, c: g.chisquare(1, (r, c))),
    "poisson": ("Poisson(4)", lambda g, r, c: g.poisson(4, (r, c))),
    "lognormal": ("lognormal(0, 1)", lambda g, r, c: g.lognormal(0, 1, (r, c))),
    "lowrank": ("rank 20 + 1% noise", _low_rank),
    "outliers": ("t(3), outlier columns", _outliers),
    "correlated": ("AR(1) rows, 0.95", _correlated),
    "power05": ("singular values i^-0.5", _power_law(0.5)),
    "power1": ("singular values i^-1", _power_law(1.0)),
    "power2": ("singular values i^-2", _power_law(2.0)),
}
"""Name: (title, sampler of a (rows, columns) matrix)."""


def sample(distribution: str, m: int, k: int, n: int, seed: int) -> tuple[Float32, Float32]:
    """A (m x k) and B (k x n) of one distribution, float32.

    B is drawn as an n x k matrix and transposed, so that structure along the inner dimension
    (outlier columns, correlation) is in both operands.
    """
    _, sampler = DISTRIBUTIONS[distribution]
    rng = np.random.Generator(np.random.Philox(seed))
    A = sampler(rng, m, k)
    B = sampler(rng, n, k).T
    return np.ascontiguousarray(A, np.float32), np.ascontiguousarray(B, np.float32)


@dataclass(frozen=True, kw_only=True)
class Distributions(Source):
    """Each distribution is an input, of all sizes and seeds that an experiment asks for."""

    @property
    def titles(self) -> Mapping[str, str]:
        return {name: title for name, (title, _) in DISTRIBUTIONS.items()}

    def pairs(self, name: str, choice: Config, section: Config) -> Iterator[Pair]:
        if not choice.get("sizes"):
            raise ValueError(f"sizes is missing, and {name} needs it")
        for size in choice["sizes"]:
            m, k, n = (size,) * 3 if isinstance(size, int) else map(int, size.split("x"))
            for seed in range(choice.get("seeds", 1)):
                path = f"{name}/{m}x{k}x{n}-seed{seed}.safetensors"
                yield Pair(name, None, seed, m, k, n, path)

    def make(self, pairs: Sequence[Pair], section: Config) -> Iterator[Matrices]:
        for pair in pairs:
            shape, seed = (pair.m, pair.k, pair.n), pair.input_seed or 0
            origin = dict(zip("mkn", map(str, shape), strict=True), seed=str(seed))
            A, B = sample(pair.input, *shape, seed)
            yield Matrices(pair, A, B, {"distribution": pair.input, **origin})


SOURCE = Distributions(name="distributions", title="seeded distributions")


def write_sample(path: str | Path, distribution: str, m: int, k: int, n: int, seed: int) -> None:
    """Write a seeded pair of a distribution; the same arguments give the same file."""
    pair = Pair(distribution, None, seed, m, k, n, str(path))
    for _, A, B, origin in SOURCE.make([pair], {}):
        write_pair(path, A, B, origin)
