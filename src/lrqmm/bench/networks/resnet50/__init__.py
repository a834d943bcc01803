"""ResNet-50 on labelled pictures of ImageNet's classes; see `model` for the network itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lrqmm.bench.networks import PACKAGED, Batch, Network, Task

if TYPE_CHECKING:
    from torch import Tensor


def load(weights: str | None, data: str, items: int, length: int) -> Task:
    """So many pictures, spread over those that are there and so over the classes."""
    from lrqmm.bench.data.pictures import Pictures, labelled_pictures
    from lrqmm.bench.networks._shared import check_count, halves
    from lrqmm.bench.networks.resnet50.model import load_resnet50
    from lrqmm.nn.replace import call

    available = labelled_pictures(None if data == PACKAGED else data)
    check_count(items, len(available), "pictures")
    pictures = available.spread(items)
    model = load_resnet50(weights)

    def batches(size: int) -> Iterator[Batch]:
        for inputs, labels in pictures.batches(size, model.preprocessing):
            yield Batch(inputs, len(labels), labels)

    def others(count: int) -> Tensor:
        names = {name for name, _, _ in pictures.entries}
        unused = Pictures(tuple(entry for entry in available.entries if entry[0] not in names))
        if len(unused) < count and data != PACKAGED:
            unused = labelled_pictures(None)
        check_count(count, len(unused), "pictures", "calibration")
        inputs, _ = next(unused.spread(count).batches(count, model.preprocessing))
        return inputs

    name = data if data == PACKAGED else Path(data).name
    described = f"{items} of {len(available)} pictures ({name})"
    return Task(model, "float32", described, "classes", batches, others, call, halves)


NETWORK = Network("resnet50", "ResNet-50", work=4 * 10**9, load=load)
