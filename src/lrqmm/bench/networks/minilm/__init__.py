"""MiniLM-L6 on the sentences of a text; see `model` for the network itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrqmm.bench.networks import PACKAGED, Batch, Network, Task

if TYPE_CHECKING:
    from torch import Tensor

SENTENCES = "lines of five words or more"


def load(weights: str | None, data: str, items: int, length: int) -> Task:
    """The first lines of a text that have five words or more."""
    from lrqmm.bench.data.text import read_text
    from lrqmm.bench.networks._shared import check_count, halves
    from lrqmm.bench.networks.minilm.model import load_minilm

    if weights is not None:
        raise ValueError(f"weights is {weights!r}; allowed for minilm: {PACKAGED!r}")
    text = "wikipedia" if data == PACKAGED else data
    lines = [line.strip() for line in read_text(text).split("\n")]
    sentences = [line for line in lines if len(line.split()) >= 5]
    check_count(items, len(sentences), SENTENCES)
    model = load_minilm()

    def batches(size: int) -> Iterator[Batch]:
        for start in range(0, items, size):
            part = sentences[start : min(start + size, items)]
            yield Batch(part, len(part))

    def others(count: int) -> list[str]:
        check_count(items + count, len(sentences), SENTENCES, "items + calibration")
        return sentences[items : items + count]

    def run(network: Any, inputs: list[str]) -> Tensor:
        return network.embed(inputs)

    described = f"first {items} lines ({Path(text).name})"
    return Task(model, "float32", described, "vectors", batches, others, run, halves)


NETWORK = Network("minilm", "MiniLM", work=10**9, load=load)
