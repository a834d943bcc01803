"""One file per network: a module here defines `NETWORK`, and its name is what a study asks for.

Adding a network is adding a file, or a folder where the network takes several. A study is planned
with the titles and the work of all networks, so these modules import torch where they load one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrqmm._registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

PACKAGED = "packaged"


@dataclass(frozen=True)
class Batch:
    """Inputs of one forward pass, how many items they are, and labels of the outputs, or None."""

    inputs: Any
    items: int
    labels: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on a device; inputs that are no tensors stay as they are."""
        inputs = self.inputs.to(device) if hasattr(self.inputs, "to") else self.inputs
        labels = None if self.labels is None else self.labels.to(device)
        return Batch(inputs, self.items, labels)


@dataclass(frozen=True)
class Task:
    """A network and the data that it is scored on.

    Attributes
    ----------
    model : float32 network, in evaluation mode
    reference : whose answers the float network's are: 'float32', 'Q4_1 dequantised ...'
    data : what the items are, in words
    scores : 'classes' (logits of pictures), 'tokens' (logits of a text), 'vectors' (embeddings)
    batches : of so many items each, which share the product of each layer
    others : inputs of so many items that are not in `batches`, to calibrate on
    run : a network and a batch's inputs to outputs (rows, values)
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


@dataclass(frozen=True)
class Network:
    """A network that a study runs on low-bit products.

    Attributes
    ----------
    name : of its module
    title : in figures
    work : multiply-adds of one item, roughly; they tell how long a study takes
    load : (weights, data, items, length) to a task, as `load_task` takes them; weights is None
        for those of the network itself
    """

    name: str
    title: str
    work: int
    load: Callable[[str | None, str, int, int], Task]


NETWORKS: Registry[Network] = Registry(__name__, "NETWORK")


def load_task(name: str, weights: str, data: str, items: int, length: int) -> Task:
    """A network on `items` pictures, windows of `length` tokens, or sentences.

    `weights` and `data` are 'packaged' or a path, as the network's file reads them. ValueError,
    FileNotFoundError or PackageError for files that are not there or not what they should be, and
    for more items than the data have.
    """
    file = None if weights == PACKAGED else weights
    task = NETWORKS.get(name).load(file, data, items, length)
    return task if file is None else replace(task, reference=f"{Path(file).name}: {task.reference}")
