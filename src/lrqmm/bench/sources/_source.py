"""What a file of this folder defines: a source of matrices, and what it says of them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lrqmm import _checks
from lrqmm.bench.configuration import Config as Config
from lrqmm.bench.configuration import split
from lrqmm.bench.data.matrices import Float32, Floats


@dataclass(frozen=True)
class Pair:
    """Matrices A (m x k) and B (k x n), which are made once and measured by many.

    Attributes
    ----------
    input : the name that a study asks for
    layer : which of the input's pairs, such as a layer or a case; None where nothing tells
    input_seed : of random ones
    path : of the file; a source gives it below the folder of inputs
    """

    input: str
    layer: str | None
    input_seed: int | None
    m: int
    k: int
    n: int
    path: str

    def about(self) -> dict[str, Any]:
        """What identifies it in the table."""
        return {key: value for key, value in asdict(self).items() if key != "path"}


class Matrices(NamedTuple):
    """What is written to the file of a pair; `about` says where it comes from."""

    pair: Pair
    A: Floats
    B: Floats
    about: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """A source of matrices: what `SOURCE` in a file of this folder is.

    Its methods are handed what a configuration says under the name of the source, often nothing.

    Attributes
    ----------
    name : of its module, and of its one input unless `titles` says otherwise
    title : in figures and tables
    metrics : what `score` gives, of `lrqmm.run.metrics`; tables rank by the first
    packaged : whether its data come from a package registry
    at_once : whether one job makes all pairs of a study
    code : files of the package, beside the source's own, whose change makes its pairs anew
    """

    name: str
    title: str
    metrics: tuple[str, ...] = ()
    packaged: bool = False
    at_once: bool = False
    code: tuple[str, ...] = ()

    @property
    def titles(self) -> Mapping[str, str]:
        """The inputs that need no configuration, and what figures call them."""
        return {self.name: self.title}

    def inputs(self, section: Config) -> Sequence[str]:
        """The names that a study may ask for."""
        return tuple(self.titles)

    def section_of(self, name: str, section: Config) -> Config:
        """The part of the section on which the matrices of one input depend."""
        return section

    @abstractmethod
    def pairs(self, name: str, choice: Config, section: Config) -> Iterator[Pair]:
        """The pairs of an input of `inputs` that an experiment asks for.

        `choice` has the experiment's keys `layers`, `cases`, `sizes` and `seeds`, those that are
        there. ValueError for a key that is missing, an unknown name, a file that cannot be used.
        """

    @abstractmethod
    def make(self, pairs: Sequence[Pair], section: Config) -> Iterator[Matrices]:
        """The matrices of some pairs; the same on every machine."""

    def score(self, layer: str | None, seed: int | None, C: Float32) -> Mapping[str, float]:
        """`metrics` of an approximate product (m x n) of a pair, beside its relative error."""
        return {}

    def files(self, name: str, section: Config) -> list[Path]:
        """Files that an input is made of."""
        return []

    def megabytes(self, pair: Pair) -> int:
        """Memory that making a pair takes."""
        return 500 + 40 * (pair.m * pair.k + pair.k * pair.n) // 10**6


def chosen(key: str, choice: Config, allowed: Sequence[str]) -> list[str]:
    """Those of the known names that a key asks for, in their order; without the key all."""
    names = split(choice.get(key, "all"))
    if names == ["all"]:
        return list(allowed)
    for name in names:
        _checks.choice(key, name, allowed)
    return [name for name in allowed if name in names]
