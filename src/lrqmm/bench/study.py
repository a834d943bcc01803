"""A study: from a configuration to shards, every setting checked before anything is measured.

A shard is what one process measures: some inputs, one method, many settings. Changing or adding a
method changes its own shards only.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from lrqmm import methods
from lrqmm.bench.configuration import Config, as_typed, check_path, choose
from lrqmm.bench.configuration import ConfigError as ConfigError
from lrqmm.bench.keys import Keys, Names, Text, Unique, check_keys_are_text, read
from lrqmm.bench.measures import MEASURES
from lrqmm.bench.measures._experiment import Experiment, Scope
from lrqmm.bench.measures._experiment import Shard as Shard
from lrqmm.bench.measures._methods import method_names
from lrqmm.bench.networks import NETWORKS
from lrqmm.bench.sources import Pair, Source, input_sources, list_sources

Name = Annotated[str, Field(pattern="^[A-Za-z][A-Za-z0-9_]*$")]
LowerName = Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")]


class Matrices(Keys):
    """The files of a user's own pair of matrices."""

    A: str
    """`file.npy`, `file.npz:name` or `file.safetensors:name`, m x k."""
    B: str
    """The same, k x n."""
    transpose_B: bool = False
    """Whether B is stored as (n, k), as a weight is."""


class Resnet50(Keys):
    """How the products of ResNet-50's layers are captured."""

    pictures: int = Field(default=4, ge=1, le=20)
    """Pictures in a product."""


class Configuration(Keys):
    """The top of a configuration; the keys of an experiment are those of its measure."""

    run: Text
    """The run's folder; matrix files go to `inputs/` beside it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Of torch and CuPy: `auto` (CUDA where torch finds it), `cpu`, `cuda`."""
    leave_out: Annotated[list[str], Unique] = Field([])
    """Methods that experiments without `methods` of their own do not measure."""
    methods: Names = "all"
    """The subset that every experiment is cut down to."""
    inputs: Names = "all"
    """The subset that every experiment is cut down to."""
    matrices: dict[Name, Matrices] = Field({})
    """Your own: `name: {A: a.npy, B: b.npy}`; then name them under `inputs`."""
    resnet50: Resnet50 = Resnet50()
    """The input `resnet50`."""
    experiments: dict[LowerName, dict[str, Any]] = Field(min_length=1)
    """By name; figures look for the names in `config.yaml`."""


@dataclass(frozen=True)
class Study:
    """All shards of a configuration, and the inputs that they need."""

    run: str
    device: str
    shards: tuple[Shard, ...]
    config: Config = field(repr=False)

    @property
    def inputs(self) -> dict[str, Pair]:
        """Every input that some shard needs, by path."""
        return {pair.path: pair for shard in self.shards for pair in shard.inputs}


def titles() -> dict[str, str]:
    """The title of every input and network by name: a run records them, and figures read them."""
    inputs = {name: title for source in list_sources() for name, title in source.titles.items()}
    return inputs | {name: NETWORKS.get(name).title for name in NETWORKS.names()}


def schema() -> dict[str, Any]:
    """The JSON schema of what a configuration may hold at the top."""
    return Configuration.model_json_schema()


def plan(config: Config, typed: Sequence[str] = ()) -> Study:
    """The study that a configuration describes.

    Parameters
    ----------
    config : what files and command line say, as Snakemake merged them
    typed : the KEY=VALUE of the command line, as they were typed

    Raises
    ------
    ConfigError : naming the key, its value and what is allowed, for a key or value that is not
        known, an unknown method or input, a setting that no method takes or that does not fit an
        input, a matrix file that cannot be read
    """
    config = as_typed(config, typed, schema()) if typed else config
    check_keys_are_text(config)
    top = read(Configuration, config)
    experiments = {name: _experiment(name, keys) for name, keys in top.experiments.items()}
    _check_run_folder(top.run)
    every_method = methods.list_methods()
    left_out = choose(top.leave_out, "leave_out", every_method)
    filled = top.model_dump(exclude={"experiments"})
    sources = _sources(filled)
    scope = Scope(
        config=filled,
        sources=sources,
        usual=[m for m in every_method if methods.preset(m).usual and m not in left_out],
        methods=None if top.methods in ("all", ["all"]) else method_names(top.methods, "methods"),
        inputs=choose(top.inputs, "inputs", list(sources)),
    )
    experiments = {name: each.named(name, scope) for name, each in experiments.items()}
    shards = [shard for name, each in experiments.items() for shard in each.shards(name, scope)]
    if not shards:
        raise ConfigError("no experiment is left: methods and inputs leave nothing to measure")
    filled["experiments"] = {name: each.model_dump() for name, each in experiments.items()}
    return Study(top.run, top.device, tuple(shards), filled)


def _sources(config: Config) -> dict[str, Source]:
    """The source of every input that `inputs` may name."""
    for name, files in config["matrices"].items():
        for side in "AB":
            check_path(f"matrices.{name}.{side}", files[side])
    try:
        return input_sources(config)
    except ValueError as error:
        raise ConfigError(f"config: {error}") from None


def _experiment(name: str, keys: Config) -> Experiment:
    where = f"experiments.{name}"
    if "measure" not in keys:
        allowed = ", ".join(MEASURES.names())
        raise ConfigError(
            f"config: at {where}: 'measure' is a required property; allowed: {allowed}"
        )
    try:
        measure = MEASURES.get(keys["measure"])
    except ValueError as error:
        raise ConfigError(f"config: {where}.{error}") from None
    return read(measure, keys, ("experiments", name))


def without_meaningless(config: Config) -> Config:
    """A study that an older version stored, without the keys that mean nothing for their measure.

    It filled in the defaults of every kind of measurement, whichever an experiment had.
    """
    fields = {name: {*MEASURES.get(name).model_fields} for name in MEASURES.names()}
    every = set().union(*fields.values())

    def known(keys: Any) -> Any:
        measure = keys.get("measure") if isinstance(keys, Mapping) else None
        foreign = every - fields.get(str(measure), every)
        return {key: keys[key] for key in keys if key not in foreign} if foreign else keys

    experiments = config.get("experiments") if isinstance(config, Mapping) else None
    if not isinstance(experiments, Mapping):
        return config
    return {**config, "experiments": {name: known(keys) for name, keys in experiments.items()}}


def _check_run_folder(run: str) -> None:
    """Raise ConfigError for a folder whose files Snakemake or the shell would take for others."""
    allowed = "allowed: the path of a folder, in full"
    check_path("run", run)
    if any(character in "{}" for character in run):
        raise ConfigError(f"config: run is {run!r}; {allowed}, without {{ and }}")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in run):
        raise ConfigError(f"config: run is {run!r}; {allowed}, of characters that can be printed")
    if run.startswith("~"):
        raise ConfigError(f"config: run is {run!r}; {allowed}, without ~")
    if Path(run).is_file():
        raise ConfigError(f"config: run is {run!r}, which is a file; {allowed}")
