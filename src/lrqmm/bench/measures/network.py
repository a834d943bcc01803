"""Measure one shard of a network study: a network, one method, many settings, in one process."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from lrqmm.bench.environment import watch_load
from lrqmm.bench.measures.shard import provenance
from lrqmm.bench.networks.compare import float_outputs, score
from lrqmm.bench.networks.tasks import Task, load_task
from lrqmm.method import Method, get_method
from lrqmm.nn.ranks import choose_ranks
from lrqmm.nn.replace import replace_layers
from lrqmm.run import schema

Row = dict[str, Any]


def measure_network(shard: Mapping[str, Any], device: str, threads: int) -> list[Row]:
    """Rows of the table of networks for a shard.

    Parameters
    ----------
    shard : as `lrqmm.bench.study.Shard.as_dict` gives it
    device : 'auto', 'cpu' or 'cuda'
    threads : the most threads to use

    Raises
    ------
    ValueError, TypeError, FileNotFoundError, PackageError : a setting, file or pattern that is not
        allowed or not there
    """
    how = shard["network"]
    settings = [(get_method(shard["method"], **setting), setting) for setting in shard["settings"]]
    rows: list[Row] = []
    with threadpool_limits(threads), watch_load(threads) as load:
        torch.set_num_threads(threads)
        chosen = _device(device)
        asked = ("network", "weights", "data", "items", "length")
        task = load_task(*(how[key] for key in asked))
        task.model.to(chosen)
        replace_layers(task.model, "sgemm", keep=how["keep"])  # the patterns fit
        sample: Row = {}
        if how["calibration"] and any(method.calibrated for method, _ in settings):
            others = task.others(how["calibration"])
            sample = {"calibration": _moved(others, chosen), "run": task.run}
        for per_gemm in how["per_gemm"]:
            reference = None if how["speed"] else float_outputs(task, per_gemm, chosen)
            for number, (method, setting) in enumerate(settings, 1):
                rows.extend(
                    _measure(task, how, method, setting, per_gemm, chosen, reference, sample)
                )
                done = f"{number} of {len(settings)} settings, {per_gemm} a GEMM"
                print(f"{shard['name']}: {done}", file=sys.stderr, flush=True)
    common = {**provenance(shard, threads), "device": str(chosen)}
    return [{**common, **row, **load} for row in rows]


def _device(asked: str) -> torch.device:
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(asked)


def _measure(
    task: Task,
    how: Mapping[str, Any],
    method: Method,
    setting: Mapping[str, Any],
    per_gemm: int,
    device: torch.device,
    reference: Sequence[Tensor] | None,
    sample: Row,
) -> Iterator[Row]:
    """Rows of one setting; a failure is a row too, and its neighbours go on."""
    sample = sample if method.calibrated else {}
    about = {
        **_about(how, method),
        "calibration": "held_out" if sample else "same" if method.calibrated else "none",
        "reference": task.reference,
        "data": task.data,
        "per_gemm": per_gemm,
        "integer_route": method.integer_route(torch.empty(1, device=device)),
        "status": "ok",
    }
    found: list[Row] = []
    try:
        if how["ranks_within"] is None:
            low = replace_layers(task.model, method, keep=how["keep"], **sample)
        else:
            low, found = _ranked(task, how, method.name, setting, per_gemm, device, sample)
        for row in [*found, *score(task, low, per_gemm, device, reference)]:
            yield {**about, **row}
    except Exception as reason:
        yield {
            **about,
            "metric": "relative_error",
            "status": "failed",
            "reason": f"{type(reason).__name__}: {reason}",
        }


def _ranked(
    task: Task,
    how: Mapping[str, Any],
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

    within = how["ranks_within"]
    inputs = sample.get("calibration")
    if inputs is None:
        inputs = _moved(next(task.batches(per_gemm)).inputs, device)
    plan = choose_ranks(
        task.model, inputs, ranked, average_bits=within, keep=how["keep"], run=task.run
    )
    if plan.average_bits > within:
        raise ValueError(
            f"ranks_within is {within}; allowed: at least {plan.average_bits:.3f}, the average "
            "bits without any rank"
        )
    chosen = {layer: ranked(rank) for layer, rank in plan.ranks.items()}
    rows = [{"metric": "rank", "layer": at, "value": rank} for at, rank in plan.ranks.items()]
    return replace_layers(task.model, chosen, keep=how["keep"], **sample), rows


def _moved(inputs: Any, device: torch.device) -> Any:
    return inputs.to(device) if isinstance(inputs, Tensor) else inputs


def _about(how: Mapping[str, Any], method: Method) -> Row:
    parameters = method.parameters
    return {
        "network": how["network"],
        "keep": ", ".join(how["keep"]),
        "method": method.name,
        "parameters": json.dumps(parameters, sort_keys=True),
        **schema.parameter_columns(parameters),
        **({"ranks_within": how["ranks_within"], "rank": None} if how["ranks_within"] else {}),
    }
