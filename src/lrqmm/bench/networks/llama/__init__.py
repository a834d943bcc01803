"""LLaMA networks on windows of a text; see `model` for the network itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lrqmm.bench.networks import PACKAGED, Batch, Network, Task

if TYPE_CHECKING:
    from torch import Tensor, nn


def load(weights: str | None, data: str, items: int, length: int) -> Task:
    """The first windows of so many tokens, each of which but the first is predicted."""
    import torch

    from lrqmm.bench.data.text import read_text, windows
    from lrqmm.bench.networks.llama.model import load_llama

    model, tokenizer, reference = load_llama(weights)
    text = "wikipedia" if data == PACKAGED else data
    ids = tokenizer.encode(read_text(text), add_special_tokens=False).ids
    tokens = windows(ids, length, items)

    def batches(size: int) -> Iterator[Batch]:
        for start in range(0, items, size):
            part = tokens[start : start + size]
            yield Batch(part, len(part), part[:, 1:].flatten())

    def others(count: int) -> Tensor:
        return windows(ids, length, items + count)[items:]

    def run(network: nn.Module, inputs: Tensor) -> Tensor:
        return network(inputs)[:, :-1].flatten(0, 1)

    def mixed(a: Tensor, b: Tensor) -> tuple[Tensor, int]:
        half = length // 2
        first = torch.cat([a[:1, :half], b[:1, half:]], dim=1)
        return torch.cat([first, a[1:]]), half

    described = f"{items} x {length} tokens ({Path(text).name})"
    return Task(model, reference, described, "tokens", batches, others, run, mixed)


NETWORK = Network("llama", "LLaMA", work=140 * 10**9, load=load)
