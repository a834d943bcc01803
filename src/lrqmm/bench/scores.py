"""How well a network does beside its float32 reference, from the logits of both.

An item is a picture, or a token of a text. With logits z of the network under test, y of the
reference, p = softmax(y), q = softmax(z), and N items:

    top1, top5             share of the items whose label has the largest, one of the 5 largest, z
    top1_drop              top1 of the reference minus that of the network under test
    agreement              share of the items with argmax z = argmax y
    kl                     mean of KL(p || q) = sum_j p_j log(p_j / q_j), in nats
    relative_error         sqrt(sum ||z - y||² / sum ||y||²), sums over the items
    relative_error_median  median of ||z - y|| / ||y||

Intervals are of 95%: Wilson's for shares, else a bootstrap over the items. Both take the items as
independent, which the tokens of one text are not: their intervals are too narrow.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrqmm._intervals import bootstrap, wilson

Float64 = NDArray[np.float64]

ROWS = 256  # items in float64 at a time: logits of large vocabularies are large

Statistic = Callable[..., Any]
"""Of arrays (..., N), their last axis the items, to an array (...)."""

STATISTICS: dict[str, tuple[tuple[str, ...], Statistic]] = {  # metric: columns, function of them
    "top1_drop": (("drop",), lambda drop: drop.mean(-1)),
    "kl": (("kl",), lambda kl: kl.mean(-1)),
    "relative_error": (("error", "norm"), lambda e, y: np.sqrt((e**2).sum(-1) / (y**2).sum(-1))),
    "relative_error_median": (("error", "norm"), lambda error, norm: np.median(error / norm, -1)),
}


class Scores:
    """Scores over items whose logits come in batches; a few numbers an item are kept."""

    def __init__(self) -> None:
        self._batches: list[dict[str, Float64]] = []

    def add(
        self, logits: Tensor, reference: Tensor, labels: Tensor | Sequence[int] | None = None
    ) -> None:
        """Add a batch: logits (..., classes) of the network under test, those of the reference on
        the same inputs, and labels (...), the right classes, with every batch or with none.

        An item whose label's logit equals another counts as if the other were larger. ValueError
        for shapes that differ, a value that is not finite, a label that is no class.
        """
        if logits.shape != reference.shape:
            raise ValueError(
                f"logits are {tuple(logits.shape)}; allowed: the reference's shape, "
                f"{tuple(reference.shape)}"
            )
        classes = logits.shape[-1]
        logits, reference = logits.reshape(-1, classes), reference.reshape(-1, classes)
        if not (logits.isfinite().all() and reference.isfinite().all()):
            raise ValueError("logits have a value that is not finite; allowed: finite values")
        right = None if labels is None else _labels(labels, logits)
        if self._batches and ("top1" in self._batches[0]) != (right is not None):
            raise ValueError("labels are given for some batches; allowed: for all or for none")
        for start in range(0, len(logits), ROWS):
            part = slice(start, start + ROWS)
            z, y = logits[part].double(), reference[part].double()
            values = _beside(z, y)
            if right is not None:
                values |= _right(z, y, right[part])
            self._batches.append({name: x.cpu().double().numpy() for name, x in values.items()})

    def rows(self) -> list[dict[str, str | float | int]]:
        """The scores: metric, value, low and high (the interval), and the number of items.

        Raises ValueError before the first item.
        """
        if not self._batches:
            raise ValueError("there are no scores yet; allowed: after add")
        items = {
            name: np.concatenate([batch[name] for batch in self._batches])
            for name in self._batches[0]
        }
        count = len(items["kl"])
        scores: dict[str, tuple[float, float, float]] = {}
        for name in ("top1", "top5", "agreement"):
            if name in items:
                hits = int(items[name].sum())
                scores[name] = (hits / count, *wilson(hits, count))
        for name, (columns, statistic) in STATISTICS.items():
            if items.keys() >= set(columns):
                values = [items[column] for column in columns]
                scores[name] = (float(statistic(*values)), *bootstrap(statistic, *values))
        return [
            {"metric": name, "value": value, "low": low, "high": high, "items": count}
            for name, (value, low, high) in scores.items()
        ]


def _beside(z: Tensor, y: Tensor) -> dict[str, Tensor]:
    """What the reference gives of each item; z and y are items x classes."""
    log_p, log_q = y.log_softmax(1), z.log_softmax(1)
    return {
        "agreement": z.argmax(1) == y.argmax(1),
        "kl": (log_p.exp() * (log_p - log_q)).sum(1),
        "error": (z - y).norm(dim=1),
        "norm": y.norm(dim=1),
    }


def _right(z: Tensor, y: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What the labels give of each item."""
    rank, reference = ((x >= x.gather(1, labels[:, None])).sum(1) for x in (z, y))
    return {
        "top1": rank <= 1,
        "top5": rank <= 5,
        "drop": (reference <= 1).double() - (rank <= 1).double(),
    }


def _labels(labels: Tensor | Sequence[int], logits: Tensor) -> Tensor:
    """Labels as int64, one for each row of the logits and each a class."""
    right = torch.as_tensor(labels, dtype=torch.int64, device=logits.device).reshape(-1)
    items, classes = logits.shape
    if len(right) != items:
        raise ValueError(f"labels are {len(right)}; allowed: one an item, {items}")
    wrong = right[(right < 0) | (right >= classes)]
    if len(wrong):
        raise ValueError(f"a label is {int(wrong[0])}; allowed: 0 to {classes - 1}")
    return right
