"""Measure one shard of a network study: a network, one method, many settings, in one process."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Protocol

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from lrqmm.bench.compare import float_outputs, score
from lrqmm.bench.measures import _rows
from lrqmm.bench.measures._experiment import Row, Shard
from lrqmm.bench.networks import Task, load_task
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
    """Rows of the table of networks for a shard.

    Parameters
    ----------
    experiment : the network and how it is measured
    shard : a method and its settings
    device : 'auto', 'cpu' or 'cuda'
    threads : the most threads to use

    Raises
    ------
    ValueError, TypeError, FileNotFoundError, PackageError : a setting, file or pattern that is not
        allowed or not there
    """
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
            others = task.others(experiment.calibration)
            sample = {"calibration": _moved(others, chosen), "run": task.run}
        for per_gemm in experiment.per_gemm:
            reference = None if experiment.speed else float_outputs(task, per_gemm, chosen)
            for number, (method, setting) in enumerate(settings, 1):
                rows.extend(
                    _measure(task, experiment, method, setting, per_gemm, chosen, reference, sample)
                )
                done = f"{number} of {len(settings)} settings, {per_gemm} per GEMM"
                print(f"{shard.name}: {done}", file=sys.stderr, flush=True)
    common = {**_rows.provenance(shard, threads), "device": str(chosen)}
    return [{**common, **row, **load} for row in rows]


def _measure(
    task: Task,
    experiment: Asked,
    method: Method,
    setting: Mapping[str, Any],
    per_gemm: int,
    device: torch.device,
    reference: Sequence[Tensor] | None,
    sample: Row,
) -> Iterator[Row]:
    """Rows of one setting; a failure is a row too, and its neighbours go on."""
    sample = sample if method.calibrated else {}
    columns = {
        **_columns(experiment, method),
        "calibration": "held_out" if sample else "same" if method.calibrated else "none",
        "reference": task.reference,
        "data": task.data,
        "per_gemm": per_gemm,
        "integer_route": method.integer_route(torch.empty(1, device=device)),
        "status": "ok",
    }
    ranks: list[Row] = []
    try:
        if experiment.ranks_within is None:
            low = replace_layers(task.model, method, keep=experiment.keep, **sample)
        else:
            low, ranks = _ranked(task, experiment, method.name, setting, per_gemm, device, sample)
        for row in [*ranks, *score(task, low, per_gemm, device, reference)]:
            yield {**columns, **row}
    except Exception as reason:
        yield {
            **columns,
            "metric": "relative_error",
            "status": "failed",
            "reason": f"{type(reason).__name__}: {reason}",
        }


def _ranked(
    task: Task,
    experiment: Asked,
    name: str,
    setting: Mapping[str, Any],
    per_gemm: int,
    device: torch.device,
    sample: Row,
) -> tuple[nn.Module, list[Row]]:
    """The network with ranks chosen by layer on its first batch, or on the calibration sample, and
    the ranks as rows."""

    @cache  # layers of one rank share the method's work space
    def ranked(rank: int) -> Method:
        return get_method(name, **setting, rank=rank)

    within = experiment.ranks_within
    assert within is not None
    inputs = sample.get("calibration")
    if inputs is None:
        inputs = _moved(next(task.batches(per_gemm)).inputs, device)
    plan = choose_ranks(
        task.model, inputs, ranked, average_bits=within, keep=experiment.keep, run=task.run
    )
    if plan.average_bits > within:
        raise ValueError(
            f"ranks_within is {within}; allowed: at least {plan.average_bits:.3f}, the average "
            "bits without any rank"
        )
    chosen = {layer: ranked(rank) for layer, rank in plan.ranks.items()}
    rows = [{"metric": "rank", "layer": at, "value": rank} for at, rank in plan.ranks.items()]
    return replace_layers(task.model, chosen, keep=experiment.keep, **sample), rows


def _moved(inputs: Any, device: torch.device) -> Any:
    return inputs.to(device) if isinstance(inputs, Tensor) else inputs


def _columns(experiment: Asked, method: Method) -> Row:
    within = experiment.ranks_within
    return {
        "network": experiment.network,
        "keep": ", ".join(experiment.keep),
        "method": method.name,
        **_rows.parameters(method.parameters),
        **({"ranks_within": within, "rank": None} if within else {}),
    }
