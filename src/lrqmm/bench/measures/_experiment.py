"""What a study asks of each kind of measurement, and the keys of those that multiply matrices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from lrqmm._registry import Registry
from lrqmm.bench.configuration import Config, ConfigError, at_place, choose
from lrqmm.bench.environment import code_hash
from lrqmm.bench.keys import Keys, Names, Size, Unique
from lrqmm.bench.sources import Pair, Source

Row = dict[str, Any]
Files = Sequence[str | Path]
"""The pair files of a shard's inputs, in order."""
Grid = tuple[dict[str, Any], ...]
"""Parameters, a measurement each."""


@dataclass(frozen=True)
class Scope:
    """What the top of a configuration says to its experiments.

    Attributes
    ----------
    config : all of it, defaults filled in
    sources : of all inputs, by the input's name
    usual : methods that are measured where an experiment names none
    methods : the subset that experiments are cut down to; None, all
    inputs : likewise
    """

    config: Config
    sources: Mapping[str, Source]
    usual: Sequence[str]
    methods: Sequence[str] | None
    inputs: Sequence[str]


@dataclass(frozen=True)
class Shard:
    """Some inputs, one method, many settings.

    Attributes
    ----------
    name : of its table's file
    experiment : name of the experiment that it is a part of
    measure : the kind of measurement, with the keys that measuring reads
    library : 'torch', 'numpy' or 'cupy'
    method : None where the settings name methods, or nothing is multiplied
    inputs : pairs of matrices; none for a network
    settings : parameters of the method, a measurement each
    """

    name: str
    experiment: str
    measure: Experiment
    library: str
    method: str | None
    inputs: tuple[Pair, ...]
    settings: Grid

    def as_dict(self) -> dict[str, Any]:
        """Plain data, from which `lrqmm.bench.measures.read_shard` makes it again."""
        measure = {"measure": self.measure.name, **self.measure.options()}
        inputs = [pair.about() for pair in self.inputs]
        return {**vars(self), "measure": measure, "inputs": inputs, "settings": list(self.settings)}

    @property
    def work(self) -> int:
        """Multiply-adds of all its products, a measure of how long it takes."""
        return self.measure.work(self)

    @property
    def megabytes(self) -> int:
        """Memory to ask a cluster for: libraries, operands, and the work space of each setting."""
        return self.measure.megabytes(self)

    @property
    def minutes(self) -> int:
        """Time to ask a cluster for: several times what a slow core takes."""
        return 10 + self.work // 10**11


class Experiment(Keys, ABC):
    """An experiment of a study: the keys of one kind of measurement, and what it does with them.

    The keys that a kind adds to those of the classes here are its options: a shard carries them to
    the process that measures. The shared keys are used up when shards are made.

    Attributes
    ----------
    name : of its file
    table : folder of the run that its rows go to; its schema is in `lrqmm.run.schema.TABLES`
    alone : whether a shard has the machine to itself, for times; or else one core
    """

    name: ClassVar[str]
    table: ClassVar[str] = "measurements"
    alone: ClassVar[bool] = False

    measure: str
    """The kind of measurement, of the table above."""

    @abstractmethod
    def shards(self, name: str, scope: Scope) -> Iterator[Shard]:
        """What its processes measure; ConfigError for a setting that cannot be measured."""

    @abstractmethod
    def rows(self, shard: Shard, files: Files, device: str, threads: int) -> list[Row]:
        """Measure one of its shards: rows of its table. Slow libraries are imported here only.

        `device` is 'auto', 'cpu' or 'cuda', and `threads` the most to use.
        """

    def named(self, name: str, scope: Scope) -> Self:
        """The experiment with its methods by name: 'all' may be more tomorrow."""
        return self

    def options(self) -> dict[str, Any]:
        """The keys that measuring reads."""
        bases = (base for base in type(self).__mro__[1:] if issubclass(base, Keys))
        return self.model_dump(exclude={key for base in bases for key in base.model_fields})

    def options_only(self) -> Self:
        """The experiment without the keys that shards are made of."""
        return type(self)(measure=self.measure, **self.options())

    def repeats(self) -> int:
        """How many products a shard multiplies of each input and setting."""
        return 1

    def work(self, shard: Shard) -> int:
        """Multiply-adds of a shard."""
        volume = sum(pair.m * pair.k * pair.n for pair in shard.inputs)
        return volume * len(shard.settings) * self.repeats()

    def kept(self) -> int:
        """How many methods keep work space for each setting."""
        return 1

    def megabytes(self, shard: Shard) -> int:
        """Memory that a shard needs."""
        elements = (pair.m * pair.k + pair.k * pair.n + pair.m * pair.n for pair in shard.inputs)
        spaces = len(shard.settings) * self.kept()
        return 1500 + max(elements, default=0) * (40 + 6 * spaces) // 10**6

    def code_hash(self, method: str | None) -> str:
        """Hash of the code that measures a method."""
        return code_hash(method, self.name)

    def files(self) -> list[str]:
        """The user's files that a shard reads beside its inputs."""
        return []

    def rows_asked(self, shard: Shard) -> tuple[list[str], int]:
        """Columns that tell a shard's settings apart, and how many differ; no columns, unknown."""
        return [], 0

    @classmethod
    def instead_of(cls, key: str) -> tuple[str, str]:
        knowing = [name for name in MEASURES.names() if key in MEASURES.get(name).model_fields]
        if knowing:
            return f" with measure: {cls.name}", f"with measure: {', '.join(knowing)}"
        return super().instead_of(key)


MEASURES: Registry[type[Experiment]] = Registry("lrqmm.bench.measures", "MEASURE")


class OfInputs(Experiment):
    """An experiment on pairs of matrices."""

    inputs: list[str] = Field([], min_length=1)
    """Distributions, `resnet50`, workloads, names under `matrices`."""
    sizes: Annotated[list[Size], Unique] = Field([], min_length=1)
    """Of distributions: `n` for n x n x n, or `MxKxN`."""
    seeds: int = Field(1, ge=1)
    """Of distributions and workloads: how many, counted from 0."""
    layers: Names = "all"
    """Of `resnet50`."""
    cases: Names = "all"
    """Of a workload, such as `phantom`."""

    def pairs(self, where: str, scope: Scope) -> tuple[Pair, ...]:
        """Its inputs that the study has: each size, layer or case, and seed."""
        if not self.inputs:
            raise ConfigError(f"config: {where}: inputs is missing, and {self.name} needs it")
        keys = self.model_dump(include={*OfInputs.model_fields})
        folder = (Path(scope.config["run"]).parent / "inputs").as_posix()
        pairs: list[Pair] = []
        for name in choose(self.inputs, f"{where}.inputs", list(scope.sources)):
            if name in scope.inputs:
                source = scope.sources[name]
                with at_place(where):
                    pairs += source.pairs(name, keys, scope.config.get(source.name, {}))
        return tuple(replace(pair, path=f"{folder}/{pair.path}") for pair in pairs)
