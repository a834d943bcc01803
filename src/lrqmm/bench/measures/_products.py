"""Measurements of products of matrices: one method on pairs of matrices, many settings."""

import gc
import math
import sys
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from threadpoolctl import threadpool_limits

from lrqmm._checks import Array, Unsupported
from lrqmm.bench.data.matrices import Floats, read_pair
from lrqmm.bench.keys import Unique
from lrqmm.bench.measures._experiment import Files, OfInputs, Row, Scope, Shard
from lrqmm.bench.measures._methods import OfMethods
from lrqmm.bench.measures._rows import describe, provenance
from lrqmm.bench.sources import source_of
from lrqmm.error import exact_product, relative_error
from lrqmm.load import watch_load
from lrqmm.method import Method, get_method
from lrqmm.products.backends import backend_of, from_numpy, to_numpy

Library = Literal["torch", "numpy", "cupy"]


@dataclass(frozen=True)
class Pair:
    """One pair of matrices, in the library and on the device of the shard, float32; and as stored.

    `sample` is the half of A's rows that is left for calibration, where the study asks for it.
    """

    columns: Row
    A: Array
    B: Array
    stored: tuple[Floats, Floats]
    sample: Array | None = None

    @cached_property
    def exact(self) -> NDArray[np.float64]:
        """A B in float64, of the values as stored."""
        return exact_product(*self.stored)


class Products(OfInputs, OfMethods):
    """An experiment whose shards multiply pairs of matrices by one method.

    Attributes
    ----------
    metric : of the row of a setting that failed
    """

    metric: ClassVar[str]

    libraries: Annotated[list[Library], Unique] = Field(["torch"], min_length=1)
    """`torch`, `numpy`, `cupy`: each has its own shards."""
    inputs_per_shard: int = Field(64, ge=1)
    """Inputs that one process measures; 1 spreads a sweep over a cluster."""

    @abstractmethod
    def of_product(self, method: Method, pair: Pair) -> Iterator[Row]:
        """Rows of one method at one setting on one pair: metric and value, and what they are of."""

    def measured_rows(self, m: int) -> int | None:
        """How many of A's m rows are measured, where the others are for calibration."""
        return None

    def shards(self, name: str, scope: Scope) -> Iterator[Shard]:
        where = f"experiments.{name}"
        inputs = self.pairs(where, scope)
        self.check_parameters(where)
        shapes = {(self.measured_rows(pair.m) or pair.m, pair.k, pair.n) for pair in inputs}
        options = self.options_only()
        for method in self.chosen(scope):
            settings = self.grid(where, method, shapes)
            for library in self.libraries:
                for number, start in enumerate(range(0, len(inputs), self.inputs_per_shard)):
                    part = inputs[start : start + self.inputs_per_shard]
                    shard = f"{name}-{method}-{library}-{number}"
                    yield Shard(shard, name, options, library, method, part, settings)

    def rows_asked(self, shard: Shard) -> tuple[list[str], int]:
        columns = [key for pair in shard.inputs[:1] for key in pair.about()]
        return [*columns, "setting"], len(shard.settings) * len(shard.inputs)

    def rows(self, shard: Shard, files: Files, device: str, threads: int) -> list[Row]:
        """Rows of the table of measurements; ValueError or TypeError for a setting that is not
        allowed or does not fit an input, before anything is measured, and InputError for a file
        that is not what was written."""
        settings = [get_method(str(shard.method), **setting) for setting in shard.settings]
        for pair in shard.inputs:
            for method in settings:
                method.check_shape(self.measured_rows(pair.m) or pair.m, pair.k, pair.n)
        rows: list[Row] = []
        gc.freeze()  # the libraries' own objects: a collection before each peak need not walk them
        with threadpool_limits(threads), watch_load(threads) as load:
            if shard.library == "torch":
                import torch

                torch.set_num_threads(threads)
            for number, (listed, path) in enumerate(zip(shard.inputs, files, strict=True), 1):
                loaded = self._load(listed.about(), path, shard.library, device)
                for setting, method in enumerate(settings):
                    rows.extend(self._measure(setting, method, loaded))
                    if method.calibrated and loaded.sample is not None:
                        columns = {**loaded.columns, "calibration": "held_out"}
                        held_out = replace(loaded, columns=columns)
                        rows.extend(self._measure(setting, method, held_out))
                done = f"{number} of {len(files)} inputs"
                print(f"{shard.name}: {done}", file=sys.stderr, flush=True)
        common = provenance(shard, threads)
        return [{**common, **row, **load} for row in rows]

    def _load(self, columns: Row, path: str | Path, library: str, device: str) -> Pair:
        A, B, digest = read_pair(path)
        m, k, n = A.shape[0], A.shape[1], B.shape[1]
        columns = {**columns, "m": m, "k": k, "n": n, "input_sha256": digest}
        measured = self.measured_rows(m)
        first = 0 if measured is None else m - measured

        def on_device(X: Floats) -> Array:
            return from_numpy(X.astype(np.float32, copy=False), library, device)

        return Pair(
            columns if measured is None else {**columns, "rows": measured},
            on_device(A[first:]),
            on_device(B),
            (A[first:], B),
            on_device(A[:first]) if first else None,
        )

    def _measure(self, setting: int, method: Method, pair: Pair) -> Iterator[Row]:
        """Rows of one setting on one input; a failure is a row too, and its neighbours go on."""
        common = {
            "calibration": "same" if method.calibrated else "none",
            **pair.columns,
            **describe(method, pair.A),
            "device": backend_of(pair.A).device_name(pair.A),
            "setting": setting,
        }
        failure = {**common, "metric": self.metric, "sample": 0}
        try:
            for row in list(self.of_product(method, pair)):
                yield {**common, "sample": 0, "status": "ok", **row}
        except Unsupported as reason:
            yield {**failure, "status": "unsupported", "reason": str(reason)}
        except Exception as reason:
            yield {**failure, "status": "failed", "reason": f"{type(reason).__name__}: {reason}"}


def error_row(C: Array, pair: Pair) -> Row:
    """The relative error of a product; ValueError where it is none."""
    if tuple(C.shape) != pair.exact.shape:
        raise ValueError(f"the result has shape {tuple(C.shape)}, not {pair.exact.shape}")
    product = to_numpy(C)
    error = relative_error(product, pair.exact)
    if not math.isfinite(error):
        wrong = "is not zero and A B is" if np.isfinite(product).all() else "holds NaN or infinity"
        raise ValueError(f"the result {wrong} (relative error {error})")
    return {"metric": "relative_error", "value": error}


def scores(C: Array, pair: Pair) -> Iterator[Row]:
    """What a product is worth, where its source has a score."""
    source = source_of(pair.columns["input"])
    if source and source.metrics:
        values = source.score(pair.columns["layer"], pair.columns["input_seed"], to_numpy(C))
        yield from ({"metric": metric, "value": value} for metric, value in values.items())


def modelled_cost(method: Method, pair: Pair) -> Iterator[Row]:
    """The cost of a product as the method states it."""
    k, n = pair.columns["k"], pair.columns["n"]
    model = dict(vars(method.cost(int(pair.A.shape[0]), k, n)))
    model["right_bits"] = method.cost(0, k, n).operand_bits
    for metric, value in model.items():
        yield {"metric": metric, "phase": "model", "value": float(value)}
