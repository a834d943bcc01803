"""Low-bit products inside a network: each convolution and linear layer is one GEMM by a method.

    convolution   Y = im2col(X) Wᵀ + b     a row of im2col(X) for each place of the output
    linear layer  Y = X Wᵀ + b             a row of X for each picture or token

A forward pass multiplies all rows of its batch in one GEMM a layer, so ten pictures in a GEMM are a
batch of ten. Products of two activations (attention scores) stay in float.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrqmm.composition import Cost
from lrqmm.method import Method, get_method

Layer = nn.Conv2d | nn.Linear
Run = Callable[[nn.Module, Any], Any]
"""How a network takes a batch."""
Shape = tuple[int, int, int]

SAMPLE_ROWS = 4096
"""Of a layer's operand, for calibration."""

PADDING = {"zeros": "constant", **{name: name for name in ("reflect", "replicate", "circular")}}
"""`nn.Conv2d`'s names of paddings, and `F.pad`'s."""


def call(network: nn.Module, batch: Any) -> Any:
    """The usual way."""
    return network(batch)


class _Inference(torch.autograd.Function):
    """A product whose gradient nobody has defined."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, product: Product) -> Tensor:
        return product.multiply(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise RuntimeError(
            "a gradient is asked for; allowed with low-bit products: inference, or the float layer"
        )


class Product(nn.Module):
    """A convolution or linear layer that multiplies by a method; its weight is prepared once.

    For inference: RuntimeError in training mode, and where a gradient is asked for. `torch.compile`
    leaves it as it is and compiles what is around it.

    Attributes
    ----------
    layer : the layer itself, whose weight and bias are used
    method : what multiplies
    sample : calibration for it, rows as `im2col` gives them; None without
    shape : (m, k, n) of the latest product, groups taken together; None before the first
    """

    def __init__(self, layer: Layer, method: Method, sample: Tensor | None = None) -> None:
        super().__init__()
        self.layer = layer
        self.method = method
        self.shape: Shape | None = None
        self._sampled = sample is not None
        self._prepared = method.prepare(weight_matrix(layer), calibration=sample)
        self.eval()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise RuntimeError(
                "the network is in training mode; allowed with low-bit products: eval()"
            )
        if torch.is_grad_enabled() and x.requires_grad:
            made: Tensor = _Inference.apply(x, self)  # type: ignore[no-untyped-call]
            return made
        return self.multiply(x)

    @torch.no_grad()
    def multiply(self, x: Tensor) -> Tensor:
        """The layer's output."""
        layer = self.layer
        A, places = im2col(layer, x)
        C: Tensor = self.method.matmul(A, self._prepared, check_finite=False)
        self.shape = (A.shape[-2], A.shape[-1], C.shape[-1])
        if C.ndim == 3:  # groups x m x n: the channels of all groups side by side
            C = C.transpose(0, 1).flatten(1)
        if layer.bias is not None:
            C += layer.bias
        C = C.reshape(*places, -1)
        return C if isinstance(layer, nn.Linear) else C.permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f"method={self.method!r}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Product:
        """Of `to` and its like: a weight that moved is prepared anew."""
        before = self.layer.weight.device, self.layer.weight.dtype
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if before != (self.layer.weight.device, self.layer.weight.dtype):
            if self._sampled:
                raise RuntimeError(
                    "a layer that was calibrated is moved; allowed: to move the network first"
                )
            self._prepared = self.method.prepare(weight_matrix(self.layer))
        return self

    @property
    def cost(self) -> Cost:
        """Modelled cost of the latest product."""
        groups, shape = self._latest()
        return sum((self.method.cost(*shape) for _ in range(groups)), Cost())

    @property
    def elements(self) -> int:
        """Elements of both operands of the latest product."""
        groups, (m, k, n) = self._latest()
        return groups * (m * k + k * n)

    @property
    def weight_bits(self) -> int:
        """Bits that hold the weight, scales and factors included."""
        groups, (_, k, n) = self._latest()
        return groups * self.method.cost(0, k, n).operand_bits

    def _latest(self) -> tuple[int, Shape]:
        if self.shape is None:
            raise ValueError("no product was computed yet; allowed: after a forward pass")
        return getattr(self.layer, "groups", 1), self.shape


def replace_layers(
    model: nn.Module,
    method: str | Method | Mapping[str, Method],
    *,
    keep: Iterable[str] = (),
    calibration: Any = None,
    run: Run = call,
    **params: Any,
) -> nn.Module:
    """A copy of a network whose convolutions and linear layers multiply by a method.

    Parameters
    ----------
    model : any torch module; float32, on any device. The copy shares its weights.
    method : a method's name, with its parameters in `params`; a `Method`; or a mapping of patterns
        of layer names ('res2*') to methods, of which a layer takes the first that fits
    keep : patterns of layer names that stay in float32, as method 'sgemm'
    calibration : a batch of the network's inputs, others than it will be used on, for methods that
        calibrate: each layer is given up to `SAMPLE_ROWS` rows of its input in the float network.
        Without it they calibrate on each operand that they are given
    run : how the network takes the batch
    **params : of the method that is named

    Returns
    -------
    nn.Module in evaluation mode, each such layer replaced by a `Product` of the same name

    Raises
    ------
    ValueError : a network without such layers, a pattern that fits none, a layer that no pattern
        fits, a method's name or parameter that is not allowed; a calibration that no method takes

    Examples
    --------
    >>> import torch, lrqmm
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))
    >>> low = lrqmm.replace_layers(model, "lrqmm_aware", bits=4, rank=4, keep=["2"])
    >>> low
    Sequential(
      (0): Product(
        method=get_method('lrqmm_aware', bits=4, rank=4)
        (layer): Linear(in_features=64, out_features=32, bias=True)
      )
      (1): ReLU()
      (2): Product(
        method=get_method('sgemm')
        (layer): Linear(in_features=32, out_features=8, bias=True)
      )
    )
    >>> with torch.no_grad():
    ...     low(torch.randn(5, 64)).shape
    torch.Size([5, 8])
    """
    if isinstance(method, Mapping) and not params:
        chosen = dict(method)
    else:
        chosen = {"*": named_or_given(method, params)}
    chosen = {**dict.fromkeys(keep, get_method("sgemm")), **chosen}
    layers = gemm_layers(model)
    if not layers:
        raise ValueError("the network has no layer to replace; allowed: nn.Conv2d, nn.Linear")
    for pattern in chosen:
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise ValueError(f"pattern {pattern!r} fits no layer; there are {', '.join(layers)}")
    if calibration is not None and not any(own.calibrated for own in chosen.values()):
        raise ValueError("calibration is given; allowed with a method that calibrates")
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    replaced = copy.deepcopy(model, shared).eval()
    samples = {}
    if calibration is not None:
        names = [name for name in layers if (own := _own(chosen, name)) and own.calibrated]
        samples = _samples(replaced, names, calibration, run)
    made: dict[nn.Module, Product] = {}
    for name, layer in list(replaced.named_modules(remove_duplicate=False)):
        if not isinstance(layer, Layer):
            continue
        if layer not in made:
            own = _own(chosen, name)
            if own is None:
                raise ValueError(f"layer {name!r} fits no pattern; allowed: '*' for all others")
            sample = samples.get(name) if own.calibrated else None
            made[layer] = Product(layer, own, sample)
        parent, _, child = name.rpartition(".")
        setattr(replaced.get_submodule(parent), child, made[layer])  # under all its names
    return replaced


def named_or_given(method: Any, params: Mapping[str, Any]) -> Method:
    """The method of a name and its parameters, or a `Method` as it is, which takes none."""
    if isinstance(method, str):
        return get_method(method, **params)
    if params:
        raise TypeError(f"parameters {', '.join(params)} are given; allowed with a method's name")
    if not isinstance(method, Method):
        raise TypeError(f"method is a {type(method).__name__}; allowed: a name or a Method")
    return method


def _own(chosen: Mapping[str, Method], name: str) -> Method | None:
    """The method of the first pattern that fits a layer's name."""
    return next((m for pattern, m in chosen.items() if fnmatchcase(name, pattern)), None)


@torch.no_grad()
def _samples(model: nn.Module, names: Iterable[str], batch: Any, run: Run) -> dict[str, Tensor]:
    """Rows of these layers' left operands, chosen at random, as a layer first runs."""
    found: dict[str, Tensor] = {}

    def keep(name: str, layer: Layer, x: Tensor) -> None:
        if name in found:
            return
        A = im2col(layer, x)[0]
        if A.ndim == 3:
            raise ValueError(
                f"layer {name!r} is a grouped convolution; allowed with a calibration: to keep it"
            )
        chances = torch.Generator().manual_seed(0)
        rows = torch.randperm(A.shape[0], generator=chances)[:SAMPLE_ROWS].sort().values
        found[name] = A[rows.to(A.device)]

    layers = gemm_layers(model)
    hooks = [
        layers[name].register_forward_hook(lambda layer, x, y, name=name: keep(name, layer, x[0]))
        for name in names
    ]
    try:
        run(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def gemm_layers(model: nn.Module) -> dict[str, Layer]:
    """Convolutions and linear layers by name, in the order of the module's definition."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def products(model: nn.Module) -> dict[str, Product]:
    """The replaced layers of `replace_layers`, by the names of the layers."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Product)}


def weight_matrix(layer: Layer) -> Tensor:
    """B of a layer: (k, n), or (groups, k, n) of a grouped convolution; channels count fastest."""
    W = layer.weight.detach()
    if isinstance(layer, nn.Linear):
        return W.T
    filters = W.permute(0, 2, 3, 1).reshape(layer.groups, W.shape[0] // layer.groups, -1)
    return filters.transpose(1, 2) if layer.groups > 1 else filters[0].T


def im2col(layer: Layer, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """A of a layer applied to x, (m, k) or (groups, m, k); and what its m rows are.

    The rows are (pictures, height, width) of a convolution's output, the leading dimensions of a
    linear layer's input. Columns count the channels fastest, then the filter's width and height, so
    that runs of channels are copied whole.
    """
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, x.shape[-1]), x.shape[:-1]
    padded = F.pad(x, _padding(layer), mode=PADDING[layer.padding_mode])
    x = padded.permute(0, 2, 3, 1).contiguous()
    pictures, down, right, channel = x.stride()
    places = (x.shape[0], *_places(layer, x))
    windows = x.as_strided(
        (*places, *layer.kernel_size, x.shape[3]),
        (
            pictures,
            down * layer.stride[0],
            right * layer.stride[1],
            down * layer.dilation[0],
            right * layer.dilation[1],
            channel,
        ),
    )
    if layer.groups == 1:
        return windows.reshape(math.prod(places), -1), places
    windows = windows.view(*windows.shape[:5], layer.groups, -1).movedim(5, 0)
    return windows.reshape(layer.groups, math.prod(places), -1), places


def _places(layer: nn.Conv2d, padded: Tensor) -> tuple[int, int]:
    """Height and width of a convolution's output; padded (pictures, height, width, channels)."""
    height, width = (
        (size - reach * (kernel - 1) - 1) // step + 1
        for size, kernel, reach, step in zip(
            padded.shape[1:3], layer.kernel_size, layer.dilation, layer.stride, strict=True
        )
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
