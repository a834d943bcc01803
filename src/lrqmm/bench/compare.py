"""A network on low-bit products beside its float self: scores, speed, errors by layer."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lrqmm._intervals import bootstrap
from lrqmm.bench.networks import Batch, Task
from lrqmm.bench.scores import Scores
from lrqmm.method import Method
from lrqmm.nn.ranks import layer_errors, total_cost, weight_bits
from lrqmm.nn.replace import replace_layers

Row = dict[str, Any]


def compare(
    model: nn.Module,
    batch: Tensor,
    methods: Iterable[Method],
    *,
    labels: Tensor | None = None,
    keep: Iterable[str] = (),
) -> pd.DataFrame:
    """A network of your own on several methods.

    Parameters
    ----------
    model : float32 module that maps a batch to logits (items, classes), or to other vectors; it is
        run in evaluation mode, and left in the one it was in
    batch : (items, ...) its input; all of it shares each layer's product
    methods : of `lrqmm.get_method`
    labels : (items,) right classes, for top-1 and top-5
    keep : patterns of layers that stay in float32

    Returns
    -------
    DataFrame, one row per method: its name, bits and rank, the metrics of `score` (top1 and top5
    with labels), and the layer with the largest own error. Bits and operations are those of
    `nn.Conv2d` and `nn.Linear` layers, kept ones at 32 bits; a warning names what else multiplies

    Raises
    ------
    ValueError : as `replace_layers` and `score`

    Examples
    --------
    >>> import torch, lrqmm
    >>> from torch import nn
    >>> from lrqmm.bench.compare import compare
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))
    >>> methods = [lrqmm.get_method(name, bits=4) for name in ("direct", "lrqmm_aware")]
    >>> table = compare(model, torch.randn(40, 64), methods)
    >>> table["method"].tolist()
    ['direct', 'lrqmm_aware']
    >>> bool(table["relative_error"][1] < table["relative_error"][0])
    True
    """
    modes = {module: module.training for module in model.modules()}
    task = Task(
        model.eval(), "float32", "given", "classes",
        lambda _: iter([Batch(batch, len(batch), labels)]), lambda _: None,
        lambda network, inputs: network(inputs), lambda a, b: (a, 0),
    )  # fmt: skip
    rows = []
    try:
        for method in methods:
            low = replace_layers(model, method, keep=keep)
            scores = list(score(task, low, len(batch), batch.device))
            errors = {row["layer"]: row["value"] for row in scores if row["metric"] == "own_error"}
            of_network = {row["metric"]: row["value"] for row in scores if "layer" not in row}
            worst = max(errors, key=lambda layer: errors[layer])
            setting = {key: method.parameters.get(key) for key in ("bits", "rank")}
            rows.append({"method": method.name, **setting, **of_network, "worst layer": worst})
    finally:
        for module, training in modes.items():
            module.training = training
    return pd.DataFrame(rows)


def score(
    task: Task,
    low: nn.Module,
    per_gemm: int,
    device: torch.device,
    reference: Sequence[Tensor] | None = None,
) -> Iterator[Row]:
    """Scores of a network on low-bit products beside its float self, batch by batch in turns.

    Parameters
    ----------
    task : the float network and its data
    low : of `replace_layers`
    per_gemm : items in a batch
    device : where both are
    reference : `float_outputs` with the same items a batch; the float network is then not run
        again, and no times are measured

    Yields
    ------
    dicts of metric and value; low and high (a 95% interval, of times 5th and 95th percentile) and
    items where there are several; layer for errors of layers. ValueError for an output that is not
    finite
    """
    scores = Scores()
    losses: list[NDArray[np.float64]] = []
    cosines: list[NDArray[np.float64]] = []
    times: list[tuple[float, float]] = []
    first: list[Batch] = []
    for number, batch in enumerate(task.batches(per_gemm)):
        batch = batch.to(device)
        if reference is None:
            float_seconds, exact = _timed(task, task.model, batch, device)
        else:
            exact = reference[number].to(device)
        seconds, outputs = _timed(task, low, batch, device)
        if reference is None and (batch.items == per_gemm or not times):
            times.append((seconds / batch.items, float_seconds / batch.items))
        if not bool(outputs.isfinite().all()):
            raise ValueError("the network's output holds NaN or infinity")
        if task.scores == "vectors":
            cosines.append(F.cosine_similarity(outputs, exact).double().cpu().numpy())
        else:
            scores.add(outputs, exact, batch.labels)
        if task.scores == "tokens" and batch.labels is not None:
            nll = F.cross_entropy(outputs, batch.labels, reduction="none")
            losses.append(nll.double().cpu().numpy())
        if not first:
            cost, bits = total_cost(low)
            yield {"metric": "average_bits", "value": bits}
            yield {"metric": "weight_bits", "value": weight_bits(low)}
            for name in ("integer_operations", "float_operations"):
                yield {"metric": name, "value": getattr(cost, name) / batch.items}
        if len(first) < 2:
            first.append(batch)
    if task.scores == "vectors":
        yield _mean("cosine", np.concatenate(cosines))
    else:
        yield from scores.rows()
    if losses:
        mean = _mean("perplexity", np.concatenate(losses))
        yield {**mean, **{key: math.exp(mean[key]) for key in ("value", "low", "high")}}
    if times:
        yield from _speed(np.array(times))
    run = partial(_no_grad, task)
    for name, error in layer_errors(low, task.model, [first[0].inputs], run).items():
        for kind in ("alone", "own", "accumulated"):
            yield {"metric": f"{kind}_error", "layer": name, "value": getattr(error, kind)}
    yield from _dependence(task, low, first)


def float_outputs(task: Task, per_gemm: int, device: torch.device) -> list[Tensor]:
    """The float network's outputs by batch, for `score`; all are held in memory, on the CPU."""
    batches = (batch.to(device) for batch in task.batches(per_gemm))
    return [_no_grad(task, task.model, batch.inputs).cpu() for batch in batches]


def _timed(
    task: Task, network: nn.Module, batch: Batch, device: torch.device
) -> tuple[float, Tensor]:
    start = time.perf_counter()
    outputs = _no_grad(task, network, batch.inputs)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, outputs


@torch.no_grad()
def _no_grad(task: Task, network: nn.Module, inputs: Any) -> Tensor:
    return task.run(network, inputs)


def _mean(metric: str, values: Any) -> Row:
    """Mean over items with a bootstrap interval."""
    low, high = bootstrap(lambda x: x.mean(-1), values)
    mean = float(values.mean())
    return {"metric": metric, "value": mean, "low": low, "high": high, "items": len(values)}


def _speed(times: Any) -> Iterator[Row]:
    """Medians over batches, 5th to 95th percentile; the float network ran in turns with it."""
    measured = {"seconds_per_item": times[:, 0], "times_float_speed": times[:, 1] / times[:, 0]}
    for metric, values in measured.items():
        low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
        yield {"metric": metric, "value": middle, "low": low, "high": high, "items": len(values)}


def _dependence(task: Task, low: nn.Module, first: list[Batch]) -> Iterator[Row]:
    """How far other items, or later tokens, move the outputs of the earlier half."""
    if len(first) < 2 or first[0].items != first[1].items:
        return
    inputs, count = task.mixed(first[0].inputs, first[1].inputs)
    if count:
        before = _no_grad(task, low, first[0].inputs)[:count]
        moved = torch.linalg.norm(_no_grad(task, low, inputs)[:count] - before)
        yield {"metric": "moved_by_others", "value": float(moved / torch.linalg.norm(before))}
