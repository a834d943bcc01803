"""Sources whose products mean something, so that an approximate one has a score."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lrqmm.bench.data.matrices import Float32
from lrqmm.bench.sources._source import Config, Matrices, Pair, Source, chosen

Shape = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Workload(Source):
    """A family of products with a purpose.

    Attributes
    ----------
    cases : shape (m, k, n) of each
    matrices : (case, seed) to A and B, float32; the same arguments give the same matrices
    scores : (case, seed, C) to metrics and their values; C is (m, n) float32
    """

    cases: Mapping[str, Shape]
    matrices: Callable[[str, int], tuple[Float32, Float32]]
    scores: Callable[[str, int, Float32], Mapping[str, float]] = lambda case, seed, C: {}

    def pairs(self, name: str, choice: Config, section: Config) -> Iterator[Pair]:
        for case in chosen("cases", choice, list(self.cases)):
            for seed in range(choice.get("seeds", 1)):
                path = f"{name}/{case}-seed{seed}.safetensors"
                yield Pair(name, case, seed, *self.cases[case], path)

    def make(self, pairs: Sequence[Pair], section: Config) -> Iterator[Matrices]:
        for pair in pairs:
            case, seed = str(pair.layer), pair.input_seed or 0
            origin = {"workload": self.name, "case": case, "seed": str(seed)}
            yield Matrices(pair, *self.matrices(case, seed), origin)

    def score(self, layer: str | None, seed: int | None, C: Float32) -> Mapping[str, float]:
        return self.scores(str(layer), seed or 0, C)

    def megabytes(self, pair: Pair) -> int:
        return 4000
