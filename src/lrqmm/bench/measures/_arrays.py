"""Measurements that are small matrices, as figures show them; an experiment is one shard."""

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lrqmm import _checks
from lrqmm.bench.configuration import at_place
from lrqmm.bench.data.matrices import read_pair
from lrqmm.bench.keys import Settings
from lrqmm.bench.measures._experiment import Files, Grid, OfInputs, Row, Scope, Shard
from lrqmm.bench.measures._methods import grid
from lrqmm.bench.sources import Pair
from lrqmm.products.quantize import Uniform

Float32 = NDArray[np.float32]


class Arrays(OfInputs):
    """An experiment whose rows are the entries of small matrices."""

    table = "arrays"

    @abstractmethod
    def checked(self, where: str, scope: Scope, inputs: Sequence[Pair]) -> Grid:
        """Its settings; ConfigError for one that is not allowed."""

    @abstractmethod
    def arrays(self, A: Float32, B: Float32, setting: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Matrices by name, of one pair at one setting."""

    def shards(self, name: str, scope: Scope) -> Iterator[Shard]:
        where = f"experiments.{name}"
        inputs = self.pairs(where, scope)
        settings = self.checked(where, scope, inputs)
        if inputs:
            yield Shard(name, name, self.options_only(), "numpy", None, inputs, settings)

    def rows(self, shard: Shard, files: Files, device: str, threads: int) -> list[Row]:
        """One row per entry, in the columns of the table of arrays."""
        rows: list[Row] = []
        for pair, path in zip(shard.inputs, files, strict=True):
            *stored, digest = read_pair(path)
            A, B = (X.astype(np.float32, copy=False) for X in stored)
            for setting in shard.settings:
                columns = {
                    "experiment": shard.experiment,
                    "input": pair.layer or pair.input,
                    "parameters": json.dumps(setting, sort_keys=True),
                    "input_sha256": digest,
                }
                for name, X in self.arrays(A, B, setting).items():
                    for (i, j), value in np.ndenumerate(X):
                        entry = {"name": name, "row": i, "column": j, "value": float(value)}
                        rows.append({**columns, **entry})
        return rows


class OfQuantizer(Arrays):
    """Of what one operand's quantisation does, without any method."""

    settings: Settings = Field({})
    """Parameters of the quantisation; a list is tried value by value."""

    def checked(self, where: str, scope: Scope, inputs: Sequence[Pair]) -> Grid:
        settings = tuple(grid(self.settings))
        for setting in settings:
            with at_place(f"{where}.settings"):
                self.check_setting(setting)
        return settings

    def check_setting(self, setting: Mapping[str, Any]) -> None:
        """Raise ValueError or TypeError for parameters that the quantiser does not take."""
        of_both = [field.name for field in fields(Uniform) if not field.name.endswith("_a")]
        _checks.known("unknown parameter", setting, of_both)
        Uniform(**setting)
