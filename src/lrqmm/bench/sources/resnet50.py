"""The products of the packaged ResNet-50: the input of each layer times its weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lrqmm.bench.sources import Config, Matrices, Pair, Source, chosen

if TYPE_CHECKING:
    from lrqmm.nn.capture import LayerProduct


def products(pictures: int) -> dict[str, tuple[int, int, int]]:
    """(m, k, n) of the 54 products of ResNet-50 v1 on 224 x 224 pictures, in running order."""
    shapes = {"conv1": (pictures * 112 * 112, 3 * 7 * 7, 64)}
    channels, width, side = 64, 64, 56
    for stage, blocks in ((2, "abc"), (3, "abcd"), (4, "abcdef"), (5, "abc")):
        rows = pictures * side * side
        for block in blocks:
            name = f"res{stage}{block}_branch"
            shapes[f"{name}2a"] = (rows, channels, width)
            shapes[f"{name}2b"] = (rows, 9 * width, width)
            shapes[f"{name}2c"] = (rows, width, 4 * width)
            if block == "a":
                shapes[f"{name}1"] = (rows, channels, 4 * width)
            channels = 4 * width
        width, side = 2 * width, side // 2
    shapes["fc1000"] = (pictures, channels, 1000)
    return shapes


def capture_resnet50(pictures: int) -> Iterator[LayerProduct]:
    """Yield the 54 products of the first packaged pictures, of which there are 20.

    ValueError for another number of them.
    """
    from lrqmm.bench.data.pictures import labelled_pictures
    from lrqmm.bench.networks.resnet50.model import load_resnet50
    from lrqmm.nn.capture import capture

    packaged = labelled_pictures()
    if not 1 <= pictures <= len(packaged):
        raise ValueError(f"pictures={pictures} is not from 1 to {len(packaged)}")
    model = load_resnet50()
    batch, _ = next(packaged.batches(pictures, model.preprocessing))
    return capture(model, batch)


@dataclass(frozen=True, kw_only=True)
class Layers(Source):
    """One run of the network gives all layers."""

    def pairs(self, name: str, choice: Config, section: Config) -> Iterator[Pair]:
        shapes = products(section["pictures"])
        for layer in chosen("layers", choice, list(shapes)):
            path = f"resnet50-{section['pictures']}pictures/{layer}.safetensors"
            yield Pair(name, layer, None, *shapes[layer], path)

    def make(self, pairs: Sequence[Pair], section: Config) -> Iterator[Matrices]:
        from lrqmm.bench.data.pictures import labelled_pictures
        from lrqmm.bench.networks.resnet50.model import load_resnet50, top1

        correct, total = top1(load_resnet50(), labelled_pictures())
        wanted = {pair.layer: pair for pair in pairs}
        origin = {"pictures": section["pictures"], "top1": f"{correct} of {total}"}
        for layer, A, B in capture_resnet50(section["pictures"]):
            if layer in wanted:
                yield Matrices(wanted[layer], A, B, {"layer": layer, **origin})

    def megabytes(self, pair: Pair) -> int:
        return 6000


SOURCE = Layers(
    name="resnet50",
    title="ResNet-50",
    packaged=True,
    at_once=True,
    code=(
        "bench/data/pictures.py",
        "bench/networks/resnet50/model.py",
        "bench/networks/resnet50/weights.py",
        "nn/capture.py",
    ),
)
