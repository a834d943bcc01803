"""The pairs of matrices that a study multiplies: from the inputs it names to their files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lrqmm.bench.configuration import Config, ConfigError, check_path
from lrqmm.bench.sources import Pair, Source, input_sources


@dataclass(frozen=True)
class Input(Pair):
    """A pair of a study; `path` is that of its file."""

    def about(self) -> dict[str, Any]:
        """What identifies it in the table."""
        return {key: value for key, value in asdict(self).items() if key != "path"}


def sources_of(config: Config) -> dict[str, Source]:
    """The source of every input that `inputs` may name."""
    for name, files in config["matrices"].items():
        for side in "AB":
            check_path(f"matrices.{name}.{side}", files[side])
    try:
        return input_sources(config)
    except ValueError as error:
        raise ConfigError(f"config: {error}") from None


def expand(
    where: str, name: str, source: Source, choice: Mapping[str, Any], config: Config
) -> Iterator[Input]:
    """The pairs of one input that an experiment, at `where` in the configuration, asks for:
    `choice` has its keys `sizes`, `seeds`, `layers` and `cases`, and `config` is the whole
    configuration, defaults filled in."""
    folder = (Path(config["run"]).parent / "inputs").as_posix()
    try:
        for pair in source.pairs(name, choice, config.get(source.name, {})):
            yield Input(**{**asdict(pair), "path": f"{folder}/{pair.path}"})
    except ValueError as error:
        raise ConfigError(f"config: {where}: {error}") from None
