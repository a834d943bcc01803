"""A layer's product as matrices: A of its input, B of its weight, and what a layer takes.

convolution   Y = im2col(X) Wᵀ + b     a row of im2col(X) for each place of the output
linear layer  Y = X Wᵀ + b             a row of X for each picture or token
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layer = nn.Conv2d | nn.Linear
Key = TypeVar("Key")

PADDING = {"zeros": "constant", **{name: name for name in ("reflect", "replicate", "circular")}}
"""`nn.Conv2d`'s names of paddings, and `F.pad`'s."""


def weight_matrix(layer: Layer) -> Tensor:
    """B of a layer: (k, n), or (groups, k, n) of a grouped convolution; channels count fastest."""
    W = layer.weight.detach()
    if isinstance(layer, nn.Linear):
        return W.T
    groups, n, k = layer.groups, W.shape[0] // layer.groups, math.prod(W.shape[1:])
    filters = W.permute(0, 2, 3, 1).reshape(groups, n, k)
    return filters.transpose(1, 2) if groups > 1 else filters[0].T


def im2col(layer: Layer, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """A of a layer applied to x, (m, k) or (groups, m, k); and what its m rows are.

    The rows are (pictures, height, width) of a convolution's output, (height, width) of a picture
    alone, the leading dimensions of a linear layer's input. Columns count the channels fastest,
    then the filter's width and height, so that runs of channels are copied whole.

    Raises
    ------
    RuntimeError : a picture, with its padding, that is smaller than the filter
    """
    if isinstance(layer, nn.Linear):
        return x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), x.shape[:-1]
    alone = x.ndim == 3
    padded = F.pad(x[None] if alone else x, _padding(layer), mode=PADDING[layer.padding_mode])
    x = padded.permute(0, 2, 3, 1).contiguous()
    pictures, down, right, channel = x.stride()
    kernel = layer.weight.shape[2:]
    places = (x.shape[0], *_places(layer, x))
    windows = x.as_strided(
        (*places, *kernel, x.shape[3]),
        (
            pictures,
            down * layer.stride[0],
            right * layer.stride[1],
            down * layer.dilation[0],
            right * layer.dilation[1],
            channel,
        ),
    )
    m, k = math.prod(places), math.prod(layer.weight.shape[1:])
    rows = places[1:] if alone else places
    if layer.groups == 1:
        return windows.reshape(m, k), rows
    each = x.shape[3] // layer.groups
    windows = windows.view(*windows.shape[:5], layer.groups, each).movedim(5, 0)
    return windows.reshape(layer.groups, m, k), rows


def dense(x: Tensor) -> Tensor:
    """The rows of all parts of a nested tensor, one below the other; any other as it is."""
    if not x.is_nested:
        return x
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in x.unbind()])


def nested(y: Tensor, like: Tensor) -> Tensor:
    """Rows as `dense` gives them as a nested tensor of the same parts as another."""
    n = y.shape[-1]
    if like.layout == torch.jagged:
        values = y.reshape(*like.values().shape[:-1], n)
        offsets = like.offsets()  # type: ignore[attr-defined]
        return torch.nested.nested_tensor_from_jagged(values, offsets)
    shapes = [part.shape[:-1] for part in like.unbind()]
    parts = torch.split(y, [math.prod(shape) for shape in shapes])
    reshaped = [part.reshape(*shape, n) for part, shape in zip(parts, shapes, strict=True)]
    return torch.nested.as_nested_tensor(reshaped, layout=like.layout)


def check_input(layer: Layer, x: Tensor, *, any_dtype: bool = False) -> None:
    """Raise where the float layer would too.

    Parameters
    ----------
    any_dtype : of floats, as under autocast

    Raises
    ------
    RuntimeError : another device, dtype or shape than the layer takes; a sparse or nested one
    """
    weight = layer.weight
    if x.layout != torch.strided or x.is_nested:  # where no linear layer has taken it apart
        raise RuntimeError("input is sparse or nested; allowed with low-bit products: dense")
    if x.device != weight.device:
        raise RuntimeError(f"input is on {x.device}; allowed: {weight.device}, as the weight")
    if x.dtype != weight.dtype and not (any_dtype and x.is_floating_point()):
        raise RuntimeError(f"input has dtype {x.dtype}; allowed: {weight.dtype}, the weight's")
    shape = " x ".join(map(str, x.shape)) or "()"
    if isinstance(layer, nn.Linear):
        if x.ndim == 0 or x.shape[-1] != weight.shape[1]:
            raise RuntimeError(f"input has shape {shape}; allowed: ... x {weight.shape[1]}")
        return
    channels = weight.shape[1] * layer.groups
    if x.ndim not in (3, 4) or x.shape[-3] != channels or 0 in x.shape[-3:]:
        raise RuntimeError(
            f"input has shape {shape}; allowed: pictures x {channels} x height x width, or a "
            f"picture alone"
        )


def _places(layer: nn.Conv2d, padded: Tensor) -> tuple[int, int]:
    """Height and width of a convolution's output; padded (pictures, height, width, channels)."""
    kernel = layer.weight.shape[2:]
    height, width = (
        (size - reach * (length - 1) - 1) // step + 1
        for size, length, reach, step in zip(
            padded.shape[1:3], kernel, layer.dilation, layer.stride, strict=True
        )
    )
    if height < 1 or width < 1:
        sizes = (f"{a} x {b}" for a, b in (padded.shape[1:3], kernel))
        raise RuntimeError(
            "a picture of {} places, padding included, is smaller than the filter of {}, dilated "
            "by {} x {}; allowed: one that the filter fits in".format(*sizes, *layer.dilation)
        )
    return height, width


def _padding(layer: nn.Conv2d) -> tuple[int, int, int, int]:
    """Places added to the left, right, top and bottom."""
    if layer.padding == "valid":
        return 0, 0, 0, 0
    if layer.padding == "same":  # the odd one goes to the right and the bottom
        vertical, horizontal = (
            reach * (kernel - 1)
            for kernel, reach in zip(layer.kernel_size, layer.dilation, strict=True)
        )
        left, top = horizontal // 2, vertical // 2
        return left, horizontal - left, top, vertical - top
    down, right = (int(size) for size in layer.padding)
    return right, right, down, down


def first_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What a layer was called on, by position or by name."""
    return (*args, *kwargs.values())[0]


@contextmanager
def watched(
    layers: Mapping[Key, nn.Module], see: Callable[[Key, Tensor, Tensor], None]
) -> Iterator[None]:
    """Call see(key, input, output) whenever a layer runs, with the output of the layer itself,
    before hooks of others change it."""

    def watcher(key: Key) -> Callable[..., None]:
        def watch(_: nn.Module, args: Any, kwargs: Any, y: Any) -> None:
            if isinstance(y, Tensor):
                see(key, dense(first_input(args, kwargs)), dense(y))

        return watch

    hooks = [
        layer.register_forward_hook(watcher(key), prepend=True, with_kwargs=True)
        for key, layer in layers.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
