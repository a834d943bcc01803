"""What the layers of a replaced network multiplied, since it was last called as a whole."""

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from lrqmm.method import Method, get_method
from lrqmm.nn.im2col import Layer, dense
from lrqmm.products.cost import Cost

Shape = tuple[int, int, int]


class Passes:
    """A hook before the forward pass of a whole network, which counts its calls."""

    def __init__(self) -> None:
        self.number = 0

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, network: nn.Module, inputs: Any) -> None:
        self.number += 1


class Tally:
    """The products of one layer since its network was last called.

    Without such a call, as of a layer on its own, the latest product alone.
    """

    def __init__(self, passes: Passes) -> None:
        self.passes = passes
        self.shape: Shape | None = None
        self._shapes: Counter[Shape] = Counter()
        self._pass = 0

    def add(self, shape: Shape) -> None:
        """Count a product of (m, k) by (k, n), groups taken together."""
        if self._pass != self.passes.number or self.passes.number == 0:
            self._shapes.clear()
            self._pass = self.passes.number
        self._shapes[shape] += 1
        self.shape = shape

    def shapes(self) -> Counter[Shape]:
        """Of the products that count, and how often each was there."""
        return self._shapes if self._pass == self.passes.number else Counter()


class Counted:
    """What products cost: face of layers that multiply by a method."""

    layer: Layer
    method: Method
    tally: Tally

    @property
    def shape(self) -> Shape | None:
        """(m, k, n) of the latest product, groups taken together; None before the first."""
        return self.tally.shape

    @property
    def cost(self) -> Cost:
        """Modelled cost of the latest product."""
        return self._cost(self._latest())

    @property
    def elements(self) -> int:
        """Elements of both operands of the latest product."""
        return self._elements(self._latest())

    @property
    def weight_elements(self) -> int:
        """Elements of the weight."""
        k, n = _weight_shape(self.layer)
        return self._groups * k * n

    @property
    def weight_bits(self) -> int:
        """Bits that hold the weight, scales and factors included."""
        return self._groups * self.method.cost(0, *_weight_shape(self.layer)).operand_bits

    def total(self) -> tuple[Cost, int]:
        """Cost, and elements of operands, of all products since the network was last called."""
        cost, elements = Cost(), 0
        for shape, times in self.tally.shapes().items():
            cost = sum((self._cost(shape) for _ in range(times)), cost)
            elements += times * self._elements(shape)
        return cost, elements

    @property
    def _groups(self) -> int:
        return int(getattr(self.layer, "groups", 1))

    def _latest(self) -> Shape:
        if self.shape is None:
            raise ValueError("no product was computed yet; allowed: after a forward pass")
        return self.shape

    def _cost(self, shape: Shape) -> Cost:
        return sum((self.method.cost(*shape) for _ in range(self._groups)), Cost())

    def _elements(self, shape: Shape) -> int:
        m, k, n = shape
        return self._groups * (m * k + k * n)


class Kept(Counted):
    """A float layer of a replaced network as what it multiplies by, method 'sgemm'; and the forward
    hook that counts its products, and changes nothing.

    Attributes
    ----------
    layer : as it was
    reason : why it was not replaced
    """

    def __init__(self, layer: Layer, reason: str, tally: Tally) -> None:
        self.layer = layer
        self.reason = reason
        self.tally = tally

    @property
    def method(self) -> Method:  # type: ignore[override]
        return get_method("sgemm")

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, layer: Layer, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            k, n = _weight_shape(layer)
            outputs = n * self._groups
            self.tally.add((dense(output).numel() // outputs if outputs else 0, k, n))


def counts(hook: Any) -> bool:
    """Whether a hook is one of these."""
    return isinstance(hook, Kept | Passes)


def kept(layer: Layer) -> Kept | None:
    """The count of a float layer of a replaced network; None of another network's."""
    return next((hook for hook in layer._forward_hooks.values() if isinstance(hook, Kept)), None)


def forget(network: nn.Module) -> None:
    """Take away the hooks that count."""
    for module in network.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                if counts(hook):
                    del hooks[key]


def _weight_shape(layer: Layer) -> tuple[int, int]:
    """(k, n) of a group's B."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    k = layer.in_channels // layer.groups * math.prod(layer.kernel_size)
    return k, layer.out_channels // layer.groups
