"""Whole networks on each method's products: their scores and times, layer by layer."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lrqmm import methods
from lrqmm.bench.configuration import ConfigError, check_path
from lrqmm.bench.environment import code_hash
from lrqmm.bench.keys import Text, Unique, one_of
from lrqmm.bench.measures._experiment import Files, Row, Scope, Shard
from lrqmm.bench.measures._methods import OfMethods
from lrqmm.bench.networks import NETWORKS, PACKAGED


class Network(OfMethods):
    """Whole networks on the products of each method, beside the float32 network."""

    name = "network"
    table = "networks"
    alone = True  # its passes are timed

    network: Annotated[str, one_of(NETWORKS.names)]
    """`resnet50`, `llama`, `minilm`."""
    weights: Text = PACKAGED
    """`packaged`, or the path of your own."""
    data: Text = PACKAGED
    """`packaged`, or the path of your own."""
    items: int = Field(20, ge=1)
    """Pictures, windows of text, or lines."""
    length: int = Field(1024, ge=2)
    """Of `llama`: tokens in a window."""
    per_gemm: Annotated[list[Annotated[int, Field(ge=1)]], Unique] = Field([1], min_length=1)
    """Items whose rows share each layer's product; a list is tried value by value."""
    speed: bool = True
    """`false`: no times, and the float network runs once per shard instead of beside every
    setting; its outputs are held in memory.
    """
    ranks_within: float | None = Field(None, gt=0)
    """Average bits: instead of one `rank`, ranks by layer, chosen on the first items so that
    codes, scales and factors stay within it.
    """
    calibration: int = Field(0, ge=0)
    """So many items, none of them measured, for methods that calibrate: of the same data, of
    the packaged pictures where too few are left; 0, each product calibrates on its own operand.
    """
    keep: list[Text] = Field([])
    """Patterns of layers that stay in float32, such as `[conv1, fc1000]` or `[lm_head]`."""

    def shards(self, name: str, scope: Scope) -> Iterator[Shard]:
        """A shard per method, which loads the network once."""
        where = f"experiments.{name}"
        if max(self.per_gemm) > self.items:
            raise ConfigError(
                f"config: {where}: per_gemm is {max(self.per_gemm)}; "
                f"allowed: up to items = {self.items}"
            )
        for key, path in (("weights", self.weights), ("data", self.data)):
            check_path(f"{where}.{key}", path)
        if self.weights != PACKAGED and not Path(self.weights).exists():
            raise ConfigError(f"config: {where}: weights is {self.weights!r}, which is not there")
        self.check_parameters(where)
        chosen = self.chosen(scope)
        options = self.options_only()
        for method in self.methods:
            settings = self.grid(where, method, set())
            if self.ranks_within is not None:
                _check_ranks_by_layer(where, method, settings)
            if method in chosen:
                shard = f"{name}-{method}-torch-0"
                yield Shard(shard, name, options, "torch", method, (), settings)

    def work(self, shard: Shard) -> int:
        passes = len(self.per_gemm) * len(shard.settings)
        return NETWORKS.get(self.network).work * self.items * passes

    def megabytes(self, shard: Shard) -> int:
        return 8000

    def code_hash(self, method: str | None) -> str:
        return code_hash(method, self.name, self.network)

    def files(self) -> list[str]:
        return [path for path in (self.weights, self.data) if os.path.isfile(path)]

    def rows_asked(self, shard: Shard) -> tuple[list[str], int]:
        return ["parameters", "per_gemm"], len(shard.settings) * len(self.per_gemm)

    def rows(self, shard: Shard, files: Files, device: str, threads: int) -> list[Row]:
        from lrqmm.bench.measures._network import measure_network

        return measure_network(self, shard, device, threads)


def _check_ranks_by_layer(where: str, method: str, settings: Sequence[Mapping[str, Any]]) -> None:
    if "rank" not in methods.preset(method).defaults:
        every = methods.list_methods()
        ranked = [name for name in every if "rank" in methods.preset(name).defaults]
        raise ConfigError(
            f"config: {where}: ranks_within with method {method}, which has no rank; "
            f"allowed: {', '.join(ranked)}"
        )
    if any("rank" in setting for setting in settings):
        raise ConfigError(f"config: {where}: allowed: one of rank and ranks_within")


MEASURE = Network
