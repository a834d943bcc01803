"""Low-bit products inside a network: each convolution and linear layer is one GEMM by a method.

A forward pass multiplies all rows of its batch in one GEMM per layer, so ten pictures in a GEMM are
a batch of ten. Products of two activations (attention scores) stay in float.
"""

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lrqmm.method import Method, get_method
from lrqmm.nn.counting import Kept, Passes, Tally, forget, kept
from lrqmm.nn.im2col import Layer, im2col, watched
from lrqmm.nn.layer import Product
from lrqmm.nn.left import ATTENTION, left_out, walk

Run = Callable[[nn.Module, Any], Any]
"""How a network takes a batch."""

SAMPLE_ROWS = 4096
"""Of a layer's operand, for calibration."""


def call(network: nn.Module, batch: Any) -> Any:
    """The usual way."""
    return network(batch)


def replace_layers(
    model: nn.Module,
    method: str | Method | Mapping[str, str | Method],
    *,
    keep: Iterable[str] = (),
    calibration: Any = None,
    run: Run = call,
    **params: Any,
) -> nn.Module:
    """A copy of a network whose `nn.Conv2d` and `nn.Linear` layers multiply by a method.

    Parameters
    ----------
    model : any torch module, of floats, on any device; a layer alone too, whose name is ''. The
        copy's weights lie where the model's do, and follow what is done to them in place.
    method : a method's name, with its parameters in `params`; a `Method`; or a mapping of patterns
        of layer names ('res2*') to these, of which a layer takes the first that fits
    keep : patterns of layer names that stay as they are, in float
    calibration : a batch of the network's inputs, others than it will be used on, for methods that
        calibrate: each layer is given up to `SAMPLE_ROWS` rows of its input in the float network.
        Without it they calibrate on each operand that they are given
    run : how the network takes the batch
    **params : of the method that is named

    Returns
    -------
    nn.Module in evaluation mode, each such layer replaced by a `Product` of the same name

    Warns
    -----
    UserWarning : what multiplies by its weights but stays in float, and why (`left_out` has it as a
        mapping): a subclass with a `forward` of its own, a weight that is computed at each call
        (parametrizations, weight norm, pruning), attention's projections, other kinds of layer;
        layers that did not run on the calibration

    Raises
    ------
    TypeError : no torch module; `keep` that is a string
    ValueError : a network without such layers, a pattern that fits none, a layer that no pattern
        fits, a method's name or parameter that is not allowed; a calibration that no method takes;
        a layer that was replaced before and is not kept; a compiled network; a weight that is not
        finite, or a lazy layer's

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
      (2): Linear(in_features=32, out_features=8, bias=True)
    )
    >>> with torch.no_grad():
    ...     low(torch.randn(5, 64)).shape
    torch.Size([5, 8])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; allowed: a torch.nn.Module")
    if isinstance(keep, str):
        raise TypeError(f"keep is {keep!r}; allowed: a list of patterns, as [{keep!r}]")
    if isinstance(method, Mapping) and not params:
        chosen = {pattern: named_or_given(one, {}) for pattern, one in method.items()}
    else:
        chosen = {"*": named_or_given(method, params)}
    if calibration is not None and not any(one.calibrated for one in chosen.values()):
        raise ValueError("calibration is given; allowed with a method that calibrates")
    replaced = _copy(model)
    plan = _plan(replaced, chosen, tuple(keep))
    samples = {} if calibration is None else _samples(replaced, plan, calibration, run)
    passes = Passes()
    product_of: dict[nn.Module, Product] = {}
    for layer, chosen_method in plan.methods.items():
        try:
            product_of[layer] = Product(layer, chosen_method, samples.get(layer))
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"layer {plan.name(layer)!r}: {error}") from error
    for layer, reason in plan.in_float.items():
        if reason != ATTENTION:  # it is never called
            layer.register_forward_hook(Kept(layer, reason, Tally(passes)))
    for name, module, parent in list(walk(replaced)):
        if module in product_of and parent is None:
            return product_of[module]
        if module in product_of:
            setattr(parent, name.rpartition(".")[2], product_of[module])  # under all its names
    for product in (module for module in replaced.modules() if isinstance(module, Product)):
        product.tally = Tally(passes)
    replaced.register_forward_pre_hook(passes)
    return replaced


@dataclass
class _Plan:
    """What becomes of each layer.

    Attributes
    ----------
    names : of every module, all of them
    methods : of the layers that are replaced
    in_float : why layers are not
    """

    names: dict[nn.Module, list[str]]
    methods: dict[Layer, Method] = field(default_factory=dict)
    in_float: dict[Layer, str] = field(default_factory=dict)

    def name(self, module: nn.Module) -> str:
        return self.names[module][0]

    def fits(self, module: nn.Module, pattern: str) -> bool:
        """Whether one of its names does."""
        return any(fnmatchcase(name, pattern) for name in self.names[module])


def _plan(model: nn.Module, chosen: Mapping[str, Method], keep: tuple[str, ...]) -> _Plan:
    """Of a network that is a copy; warns of what stays in float though nobody said so."""
    plan = _Plan({})
    for name, module, _ in walk(model):
        plan.names.setdefault(module, []).append(name)
    layers = [module for module in plan.names if isinstance(module, Layer)]
    before = [module for module in plan.names if isinstance(module, Product)]
    left = left_out(model)

    def kept(module: nn.Module) -> bool:
        return any(plan.fits(module, pattern) for pattern in keep)

    again = [plan.name(module) for module in before if not kept(module)]
    if again:
        raise ValueError(
            f"layers that were replaced before: {_listed(again)}; allowed: the float network, or "
            "to keep them"
        )
    if not layers:
        raise ValueError("the network has no layer to replace; allowed: nn.Conv2d, nn.Linear")
    names = [plan.name(layer) for layer in layers]
    others = [module for module in plan.names if plan.name(module) in left]
    for patterns, modules in ((chosen, layers), (keep, [*layers, *before, *others])):
        for pattern in patterns:
            if not any(plan.fits(module, pattern) for module in modules):
                raise ValueError(f"pattern {pattern!r} fits no layer; there are {_listed(names)}")

    for layer in layers:
        name = plan.name(layer)
        reason = left.get(name)
        if kept(layer) and reason != ATTENTION:
            reason = "kept"
        if reason is not None:
            plan.in_float[layer] = reason
        else:
            fitting = [method for pattern, method in chosen.items() if plan.fits(layer, pattern)]
            if not fitting:
                raise ValueError(f"layer {name!r} fits no pattern; allowed: '*' for all others")
            plan.methods[layer] = fitting[0]
    unasked = [plan.name(module) for module in others if not kept(module)]
    told = [f"{_listed([name])}: {left[name]}" for name in unasked]
    if told:
        warnings.warn(
            f"what stays in float ({'no' if not plan.methods else 'not every'} layer is replaced): "
            f"{'; '.join(told)}. Without this warning: keep=[...] with their names",
            stacklevel=3,
        )
    return plan


def _listed(names: Iterable[str]) -> str:
    return ", ".join(name or "'' (the network itself)" for name in names)


def _copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, whose parameters and buffers lie where the model's do.

    Its parameters are objects of their own, so that `to` and its like leave the model alone.
    """
    if any(type(module).__name__ == "OptimizedModule" for module in model.modules()):
        raise ValueError("the network is compiled; allowed: the network that it was compiled from")
    shared: dict[int, Any] = {id(tensor): tensor for tensor in model.buffers()}
    for weight in model.parameters():
        if type(weight) is nn.Parameter:
            shared[id(weight)] = nn.Parameter(weight.detach(), weight.requires_grad)
        elif not is_lazy(weight):
            shared[id(weight)] = weight
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:  # computed anew at each call
                shared[id(value)] = value.detach()
    copied = copy.deepcopy(model, shared).eval()
    forget(copied)
    return copied


def named_or_given(method: Any, params: Mapping[str, Any]) -> Method:
    """The method of a name and its parameters, or a `Method` as it is, which takes none."""
    if isinstance(method, str):
        return get_method(method, **params)
    if params:
        raise TypeError(f"parameters {', '.join(params)} are given; allowed with a method's name")
    if not isinstance(method, Method):
        raise TypeError(f"method is a {type(method).__name__}; allowed: a name or a Method")
    return method


@torch.no_grad()
def _samples(model: nn.Module, plan: _Plan, batch: Any, run: Run) -> dict[Layer, Tensor]:
    """Rows of the left operands of layers that calibrate, at random, as a layer first runs."""
    samples: dict[Layer, Tensor] = {}

    def keep(layer: Layer, x: Tensor, y: Tensor) -> None:
        if layer in samples:
            return
        A = im2col(layer, x)[0]
        if A.ndim == 3:
            raise ValueError(
                f"layer {plan.name(layer)!r} is a grouped convolution; allowed with a "
                "calibration: to keep it"
            )
        chances = torch.Generator("cpu").manual_seed(0)
        rows = torch.randperm(A.shape[0], generator=chances, device="cpu")[:SAMPLE_ROWS]
        samples[layer] = A[rows.sort().values.to(A.device)]

    layers = [layer for layer, method in plan.methods.items() if method.calibrated]
    with watched({layer: layer for layer in layers}, keep):
        run(model, batch)
    without = [plan.name(layer) for layer in layers if layer not in samples]
    if without:
        warnings.warn(
            f"layers that did not run on the calibration, and calibrate on each operand that they "
            f"are given: {_listed(without)}",
            stacklevel=3,
        )
    return samples


def products(model: nn.Module) -> dict[str, Product | Kept]:
    """The layers of a network of `replace_layers`, by name: a `Product` where one was replaced.

    Convolutions and linear layers that stayed in float are there as method 'sgemm'.
    """
    layers: dict[str, Product | Kept] = {}
    seen = set()
    for name, module, _ in walk(model):
        if module in seen:
            continue
        seen.add(module)
        if isinstance(module, Product):
            layers[name] = module
        elif isinstance(module, Layer) and (layer := kept(module)) is not None:
            layers[name] = layer
    return layers
