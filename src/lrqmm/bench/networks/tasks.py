"""A network and the data that it is scored on, in batches whose items share each layer's GEMM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrqmm.bench.data.pictures import Pictures, labelled_pictures
from lrqmm.bench.data.text import read_text, windows
from lrqmm.bench.networks.llama import load_llama
from lrqmm.bench.networks.minilm import load_minilm
from lrqmm.bench.networks.resnet50 import load_resnet50
from lrqmm.nn.replace import call

PACKAGED = "packaged"


@dataclass(frozen=True)
class Batch:
    """Inputs of one forward pass, how many items they are, and labels of the outputs, or None."""

    inputs: Any
    items: int
    labels: Tensor | None = None


@dataclass(frozen=True)
class Task:
    """What a measurement of a network needs.

    Attributes
    ----------
    model : float32 network, in evaluation mode
    reference : whose answers the float network's are: 'float32', 'Q4_1 dequantised ...'
    data : in words
    scores : 'classes' (logits of pictures), 'tokens' (logits of a text), 'vectors' (embeddings)
    batches : of so many items each
    run : a network and a batch's inputs to outputs (rows, values)
    others : inputs of so many items that are not in `batches`, to calibrate on
    mixed : inputs of two batches to those whose later half is the second's, and the number of
        outputs of the earlier half
    """

    model: nn.Module
    reference: str
    data: str
    scores: str
    batches: Callable[[int], Iterator[Batch]]
    others: Callable[[int], Any]
    run: Callable[[nn.Module, Any], Tensor]
    mixed: Callable[[Any, Any], tuple[Any, int]]


def load_task(network: str, weights: str, data: str, items: int, length: int) -> Task:
    """A network on `items` pictures, windows of `length` tokens, or sentences.

    Parameters
    ----------
    network : 'resnet50', 'llama' or 'minilm'
    weights, data : 'packaged' or a path, as the network's loader, `labelled_pictures` and
        `read_text` take them

    Raises
    ------
    ValueError, FileNotFoundError, PackageError : files that are not there or not what they should
        be; more items than the data have
    """
    own = None if weights == PACKAGED else weights
    if network == "resnet50":
        task = _resnet50(own, data, items)
    elif network == "llama":
        task = _llama(own, data, items, length)
    else:
        task = _minilm(own, data, items)
    return task if own is None else replace(task, reference=f"{Path(own).name}: {task.reference}")


def _resnet50(weights: str | None, data: str, items: int) -> Task:
    every = labelled_pictures(None if data == PACKAGED else data)
    _check(items, len(every), "pictures")
    spread = (every.entries[i * len(every) // items] for i in range(items))  # over the classes
    pictures = Pictures(tuple(spread))
    model = load_resnet50(weights)

    def batches(size: int) -> Iterator[Batch]:
        for inputs, labels in pictures.batches(size, model.preprocessing):
            yield Batch(inputs, len(labels), labels)

    def others(count: int) -> Tensor:
        names = {name for name, _, _ in pictures.entries}
        unused = tuple(entry for entry in every.entries if entry[0] not in names)
        if len(unused) < count and data != PACKAGED:
            unused = labelled_pictures(None).entries
        _check(count, len(unused), "pictures", "calibration")
        spread = (unused[i * len(unused) // count] for i in range(count))
        inputs, _ = next(Pictures(tuple(spread)).batches(count, model.preprocessing))
        return inputs

    return Task(
        model, "float32", f"{items} of {len(every)} pictures ({_named(data)})", "classes",
        batches, others, call, lambda a, b: _halves(a, b),
    )  # fmt: skip


def _llama(weights: str | None, data: str, items: int, length: int) -> Task:
    model, tokenizer, reference = load_llama(weights)
    name = "wikipedia" if data == PACKAGED else data
    ids = tokenizer.encode(read_text(name), add_special_tokens=False).ids
    tokens = windows(ids, length, items)

    def batches(size: int) -> Iterator[Batch]:
        for start in range(0, items, size):
            part = tokens[start : start + size]
            yield Batch(part, len(part), part[:, 1:].flatten())

    def others(count: int) -> Tensor:
        return windows(ids, length, items + count)[items:]

    def run(network: nn.Module, inputs: Tensor) -> Tensor:
        logits: Tensor = network(inputs)[:, :-1]
        return logits.flatten(0, 1)

    def mixed(a: Tensor, b: Tensor) -> tuple[Tensor, int]:
        half = length // 2
        first = torch.cat([a[:1, :half], b[:1, half:]], dim=1)
        return torch.cat([first, a[1:]]), half

    words = f"{items} x {length} tokens ({Path(name).name})"
    return Task(model, reference, words, "tokens", batches, others, run, mixed)


def _minilm(weights: str | None, data: str, items: int) -> Task:
    if weights is not None:
        raise ValueError(f"weights is {weights!r}; allowed for minilm: {PACKAGED!r}")
    name = "wikipedia" if data == PACKAGED else data
    lines = [line.strip() for line in read_text(name).split("\n")]
    sentences = [line for line in lines if len(line.split()) >= 5]
    _check(items, len(sentences), "lines of five words or more")
    model = load_minilm()

    def batches(size: int) -> Iterator[Batch]:
        for start in range(0, items, size):
            part = sentences[start : min(start + size, items)]
            yield Batch(part, len(part))

    def others(count: int) -> list[str]:
        _check(items + count, len(sentences), "lines of five words or more", "items + calibration")
        return sentences[items : items + count]

    def run(network: Any, inputs: list[str]) -> Tensor:
        vectors: Tensor = network.embed(inputs)
        return vectors

    words = f"first {items} lines ({Path(name).name})"
    return Task(
        model, "float32", words, "vectors", batches, others, run, lambda a, b: _halves(a, b)
    )


def _halves(a: Any, b: Any) -> tuple[Any, int]:
    half = len(a) // 2
    both = a[:half], b[half : len(a)]
    return torch.cat(both) if isinstance(a, Tensor) else both[0] + both[1], half


def _check(items: int, there: int, what: str, key: str = "items") -> None:
    if items > there:
        raise ValueError(f"{key} is {items}; allowed: up to {there}, the {what} that are there")


def _named(data: str) -> str:
    return data if data == PACKAGED else Path(data).name
