"""The matrix products of a network: each layer as a pair A, B with A @ B its output.

A convolution is a matrix product of its input, one row for each place of the output and one
column for each weight of a filter (im2col), by its filters, one in each column. The bias is
left out: it is added after the product.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lrqmm.bench.data.pictures import labelled_pictures
from lrqmm.bench.networks.resnet50 import load_resnet50
from lrqmm.nn.im2col import im2col, weight_matrix
from lrqmm.nn.replace import first_input

Matrix = NDArray[np.float32]


class LayerProduct(NamedTuple):
    """One layer's matrix product.

    Attributes
    ----------
    name : str
        The layer's name in the network.
    A : ndarray
        Activations, m x k, float32, C-contiguous.
    B : ndarray
        Weights, k x n, float32, C-contiguous.
    """

    name: str
    A: Matrix
    B: Matrix


def capture_resnet50(pictures: int, cache: Path | None = None) -> Iterator[LayerProduct]:
    """Yield the 54 products of the packaged ResNet-50: 53 convolutions and one full layer.

    Parameters
    ----------
    pictures : int
        Run on so many of the 20 packaged pictures, from the first.
    cache : Path, optional
        As for `lrqmm.bench.data.packages.fetch`, which also says what can go wrong.

    Returns
    -------
    iterator of LayerProduct
        In the order in which the layers run. A convolution has m = pictures * height * width
        of its output, the last layer m = pictures.

    Raises
    ------
    ValueError
        `pictures` is not from 1 to 20.
    """
    packaged = labelled_pictures(cache=cache)
    if not 1 <= pictures <= len(packaged):
        raise ValueError(f"pictures={pictures} is not from 1 to {len(packaged)}")
    model = load_resnet50(cache=cache)
    batch, _ = next(packaged.batches(pictures, model.preprocessing))
    return capture(model, batch)


def capture(model: nn.Module, batch: Tensor) -> Iterator[LayerProduct]:
    """Run a network once and yield the product of each convolution and linear layer.

    Only the layers' inputs are held, each until its product is made: they are up to kh * kw
    times smaller than the products' matrices, of which one pair exists at a time.

    Parameters
    ----------
    model : Module
        Any network, float32.
    batch : Tensor
        Its input.

    Yields
    ------
    LayerProduct
        In the order in which the layers run.
    """
    inputs: list[tuple[str, nn.Conv2d | nn.Linear, Tensor]] = []
    hooks = [
        layer.register_forward_pre_hook(
            lambda layer, args, kwargs, name=name: inputs.append(
                (name, layer, first_input(args, kwargs))
            ),
            with_kwargs=True,
        )
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    try:
        with torch.no_grad():
            model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    inputs.reverse()
    while inputs:
        name, layer, x = inputs.pop()
        yield LayerProduct(name, *operands(layer, x))


def operands(layer: nn.Conv2d | nn.Linear, x: Tensor) -> tuple[Matrix, Matrix]:
    """Write a layer applied to `x` as a matrix product.

    Parameters
    ----------
    layer : Conv2d or Linear
        A convolution has C_out filters of C_in x kh x kw.
    x : Tensor
        The layer's input: N x C_in x H x W, or N x C_in for a linear layer.

    Returns
    -------
    A, B : ndarray
        N*H_out*W_out x kh*kw*C_in and kh*kw*C_in x C_out, as `lrqmm.nn.replace.im2col` and
        `weight_matrix` order them; or `x` and the weight transposed.

    Raises
    ------
    ValueError
        The convolution is grouped: it is then no single product.
    """
    if isinstance(layer, nn.Conv2d) and layer.groups != 1:
        raise ValueError(f"layer={layer} is no single matrix product; allowed: groups=1")
    A, _ = im2col(layer, x)
    return _numpy(A), _numpy(weight_matrix(layer))


def _numpy(x: Tensor) -> Matrix:
    return np.ascontiguousarray(x.detach().cpu().numpy(), dtype=np.float32)
