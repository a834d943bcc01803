"""ResNet-50 on ImageNet in float32: packaged weights, or torchvision's and timm's.

The architecture is He et al., "Deep residual learning for image recognition", CVPR 2016,
table 1. The two families of weights differ in where a stage's first block halves the picture:

    v1    (He et al., Keras)      in its first 1x1 convolution
    v1.5  (torchvision, timm)     in its 3x3 convolution
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrqmm.bench.data.pictures import Pictures, Preprocessing
from lrqmm.bench.networks.resnet50 import weights

STAGES = {2: "abc", 3: "abcd", 4: "abcdef", 5: "abc"}  # the blocks of each stage


@dataclass(frozen=True)
class Variant:
    """What differs between the families of weights.

    Attributes
    ----------
    strided : the branch of a stage's first block that has stride 2
    bias : whether the convolutions have biases
    eps : of the batch normalisations
    preprocessing : of the pictures
    """

    strided: Literal["2a", "2b"]
    bias: bool
    eps: float
    preprocessing: Preprocessing


KERAS = Variant(
    strided="2a",
    bias=True,
    eps=1e-3,
    preprocessing=Preprocessing("BGR", mean=(103.939, 116.779, 123.68), std=(1, 1, 1)),
)
TORCHVISION = Variant(
    strided="2b",
    bias=False,
    eps=1e-5,
    preprocessing=Preprocessing(
        "RGB",
        mean=(255 * 0.485, 255 * 0.456, 255 * 0.406),
        std=(255 * 0.229, 255 * 0.224, 255 * 0.225),
    ),
)


class ResNet50(nn.Module):
    """ResNet-50, whose layers bear the names that Keras gave them, whatever their weights.

    A block such as 2a has the convolutions res2a_branch2a (1x1), res2a_branch2b (3x3) and
    res2a_branch2c (1x1), and the first block of a stage res2a_branch1 (1x1) in its shortcut, each
    with its batch normalisation bn2a_branch2a and so on. Modules are registered in running order.

    Attributes
    ----------
    preprocessing : makes the network's input of a picture
    """

    def __init__(self, variant: Variant = KERAS) -> None:
        super().__init__()
        self.preprocessing = variant.preprocessing
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=variant.bias)
        self.bn_conv1 = nn.BatchNorm2d(64, eps=variant.eps)
        channels, width = 64, 64
        for stage, blocks in STAGES.items():
            for block in blocks:
                name = f"{stage}{block}_branch"
                stride = 2 if block == "a" and stage > 2 else 1
                first, second = (stride, 1) if variant.strided == "2a" else (1, stride)
                self._add(variant, f"{name}2a", channels, width, 1, first)
                self._add(variant, f"{name}2b", width, width, 3, second)
                self._add(variant, f"{name}2c", width, 4 * width, 1, 1)
                if block == "a":
                    self._add(variant, f"{name}1", channels, 4 * width, 1, stride)
                channels = 4 * width
            width *= 2
        self.fc1000 = nn.Linear(channels, 1000)

    def _add(
        self, variant: Variant, branch: str, channels: int, filters: int, kernel: int, stride: int
    ) -> None:
        padding = kernel // 2
        convolution = nn.Conv2d(channels, filters, kernel, stride, padding, bias=variant.bias)
        self.add_module(f"res{branch}", convolution)
        self.add_module(f"bn{branch}", nn.BatchNorm2d(filters, eps=variant.eps))

    def _run(self, branch: str, x: Tensor) -> Tensor:
        return self.get_submodule(f"bn{branch}")(self.get_submodule(f"res{branch}")(x))

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (n x 3 x h x w, from `preprocessing`) to logits (n x 1000)."""
        x = F.relu(self.bn_conv1(self.conv1(x)))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for stage, blocks in STAGES.items():
            for block in blocks:
                y = F.relu(self._run(f"{stage}{block}_branch2a", x))
                y = F.relu(self._run(f"{stage}{block}_branch2b", y))
                y = self._run(f"{stage}{block}_branch2c", y)
                shortcut = self._run(f"{stage}{block}_branch1", x) if block == "a" else x
                x = F.relu(y + shortcut)
        return self.fc1000(x.mean((2, 3)))


def load_resnet50(source: str | Path | None = None) -> ResNet50:
    """Load a float32 ResNet-50, in evaluation mode and without gradients.

    Parameters
    ----------
    source : a state dict of torchvision's or timm's resnet50 (v1.5), as .safetensors, .pt or .pth;
        the last two are read without running code from them. Half precision becomes float32. It
        does not say how its pictures were prepared: `preprocessing` is that of torchvision's
        IMAGENET1K_V1; of weights trained otherwise, set it, as for IMAGENET1K_V2:
        ``model.preprocessing = dataclasses.replace(model.preprocessing, resize=232)``. None: the
        packaged weights (Keras, v1)

    Raises
    ------
    ValueError, PackageError : the file cannot be read, or its tensors are not those of ResNet-50
    """
    with torch.device("meta"):  # the random initial weights would only be thrown away
        model = ResNet50(KERAS if source is None else TORCHVISION)
    if source is None:
        state = weights.packaged()
    else:
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        state = weights.from_file(Path(source), shapes)
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False).eval()


def top1(model: ResNet50, pictures: Pictures) -> tuple[int, int]:
    """How many pictures have their label's logit as the largest, and how many there are."""
    with torch.no_grad():  # one at a time: memory does not grow with the number of pictures
        hits = [
            int(model(model.preprocessing(image)[None]).argmax()) == label
            for _, image, label in pictures
        ]
    return sum(hits), len(hits)
