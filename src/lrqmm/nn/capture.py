"""The matrix products of a network: each layer as a pair A, B with A @ B its output.

A convolution is a matrix product of its input, one row for each place of the output and one
column for each weight of a filter (im2col), by its filters, one in each column. The bias is
left out: it is added after the product.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lrqmm.nn.im2col import Layer, im2col, watched, weight_matrix

Matrix = NDArray[np.float32]


class LayerProduct(NamedTuple):
    """A layer of a network: its activations A (m x k) and weights B (k x n), C-contiguous."""

    name: str
    A: Matrix
    B: Matrix


def capture(model: nn.Module, batch: Tensor) -> Iterator[LayerProduct]:
    """Run a float32 network once; yields each convolution and linear layer in running order.

    Only the layers' inputs are held, each until its product is made: they are up to kh * kw
    times smaller than the products' matrices, of which one pair exists at a time.
    """
    layers = {name: it for name, it in model.named_modules() if isinstance(it, Layer)}
    inputs: list[tuple[str, Tensor]] = []
    with torch.no_grad(), watched(layers, lambda name, x, y: inputs.append((name, x))):
        model(batch)
    inputs.reverse()
    while inputs:
        name, x = inputs.pop()
        yield LayerProduct(name, *operands(layers[name], x))


def operands(layer: Layer, x: Tensor) -> tuple[Matrix, Matrix]:
    """The matrix product that a layer does with its input `x`.

    Parameters
    ----------
    layer : convolution of C_out filters of C_in x kh x kw, or linear layer
    x : (N, C_in, H, W), or (N, C_in) of a linear layer

    Returns
    -------
    A, B : N*H_out*W_out x kh*kw*C_in and kh*kw*C_in x C_out, in the order of `lrqmm.nn.im2col`; or
        `x` and the weight transposed

    Raises
    ------
    ValueError : the convolution is grouped, and so no single product
    """
    if isinstance(layer, nn.Conv2d) and layer.groups != 1:
        raise ValueError(f"layer={layer} is no single matrix product; allowed: groups=1")
    A, _ = im2col(layer, x)
    return _numpy(A), _numpy(weight_matrix(layer))


def _numpy(x: Tensor) -> Matrix:
    return np.ascontiguousarray(x.detach().cpu().numpy(), dtype=np.float32)
