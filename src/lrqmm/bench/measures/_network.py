"""Measure one shard of a network study: a network, one method, many settings, in one process."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from lrqmm.bench.compare import float_outputs, score
from lrqmm.bench.measures import _rows
from lrqmm.bench.measures._experiment import Row, Shard
from lrqmm.bench.networks import Batch, Task, load_task
from lrqmm.load import watch_load
from lrqmm.method import Method, get_method
from lrqmm.nn.ranks import choose_ranks
from lrqmm.nn.replace import replace_layers


class Asked(Protocol):
    """The keys of `measure: network` that measuring reads; `network` has what they mean."""

    network: str
    weights: str
    data: str
    items: int
    length: int
    per_gemm: list[int]
    speed: bool
    ranks_within: float | None
    calibration: int
    keep: list[str]


def measure_network(experiment: Asked, shard: Shard, device: str, threads: int) -> list[Row]:
    """Rows of the table of networks for a shard; ValueError, TypeError, FileNotFoundError or
    PackageError for a setting, file or pattern that is not allowed or not there."""
    name = str(shard.method)
    settings = [(get_method(name, **setting), setting) for setting in shard.settings]
    rows: list[Row] = []
    with threadpool_limits(threads), watch_load(threads) as load:
        torch.set_num_threads(threads)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        chosen = torch.device(device)
        files = experiment.weights, experiment.data
        task = load_task(experiment.network, *files, experiment.items, experiment.length)
        task.model.to(chosen)
        replace_layers(task.model, "sgemm", keep=experiment.keep)  # the patterns fit
        sample: Row = {}
        if experiment.calibration and any(method.calibrated for method, _ in settings):
            others = Batch(task.others(experiment.calibration), experiment.calibration)
            sample = {"calibration": others.to(chosen).inputs, "run": task.run}
        of_one = _Settings(task, experiment, chosen, sample)
        for per_gemm in experiment.per_gemm:
            reference = None if experiment.speed else float_outputs(task, per_gemm, chosen)
            for number, (method, setting) in enumerate(settings, 1):
                rows.extend(of_one.rows(method, setting, per_gemm, reference))
                done = f"{number} of {len(settings)} settings, {per_gemm} per GEMM"
                print(f"{shard.name}: {done}", file=sys.stderr, flush=True)
    common = {**_rows.provenance(shard, threads), "device": str(chosen)}
    return [{**common, **row, **load} for row in rows]


@dataclass(frozen=True)
class _Settings:
    """Measures settings of one network on a device; `sample` is what methods calibrate on."""

    task: Task
    asked: Asked
    device: torch.device
    sample: Row

    def rows(
        self, method: Method, setting: Row, per_gemm: int, reference: Sequence[Tensor] | None
    ) -> Iterator[Row]:
        """Rows of one setting; a failure is a row too, and its neighbours go on."""
        task, within, keep = self.task, self.asked.ranks_within, self.asked.keep
        sample = self.sample if method.calibrated else {}
        columns = {
            "network": self.asked.network,
            "keep": ", ".join(keep),
            "method": method.name,
            **_rows.parameters(method.parameters),
            **({"ranks_within": within, "rank": None} if within else {}),
            "calibration": "held_out" if sample else "same" if method.calibrated else "none",
            "reference": task.reference,
            "data": task.data,
            "per_gemm": per_gemm,
            "integer_route": method.integer_route(torch.empty(1, device=self.device)),
            "status": "ok",
        }
        ranks: list[Row] = []
        try:
            if within is None:
                low = replace_layers(task.model, method, keep=keep, **sample)
            else:
                low, ranks = self._ranked(method.name, setting, per_gemm, within, sample)
            for row in [*ranks, *score(task, low, per_gemm, self.device, reference)]:
                yield {**columns, **row}
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            yield {**columns, "metric": "relative_error", "status": "failed", "reason": reason}

    def _ranked(
        self, name: str, setting: Row, per_gemm: int, within: float, sample: Row
    ) -> tuple[nn.Module, list[Row]]:
        """The network with ranks chosen by layer on its first batch, or on the calibration sample,
        and the ranks as rows."""

        @cache  # layers of one rank share the method's work space
        def ranked(rank: int) -> Method:
            return get_method(name, **setting, rank=rank)

        task, keep = self.task, self.asked.keep
        inputs = sample.get("calibration")
        if inputs is None:
            inputs = next(task.batches(per_gemm)).to(self.device).inputs
        plan = choose_ranks(
            task.model, inputs, ranked, average_bits=within, keep=keep, run=task.run
        )
        if plan.average_bits > within:
            raise ValueError(
                f"ranks_within is {within}; allowed: at least {plan.average_bits:.3f}, the average "
                "bits without any rank"
            )
        chosen = {layer: ranked(rank) for layer, rank in plan.ranks.items()}
        rows = [{"metric": "rank", "layer": at, "value": rank} for at, rank in plan.ranks.items()]
        return replace_layers(task.model, chosen, keep=keep, **sample), rows
