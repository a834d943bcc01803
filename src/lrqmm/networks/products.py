"""Low-bit products inside a network: each convolution and linear layer is one GEMM by a method.

A forward pass multiplies all rows of its batch in one GEMM a layer, so ten pictures in a GEMM are a
batch of ten. Products of two activations (attention scores) stay in float.
"""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lrqmm import _checks
from lrqmm._operands import USUAL
from lrqmm.method import Method, Prepared, get_method
from lrqmm.networks.counting import (
    Counted,
    Kept,
    KeptHook,
    Passes,
    Shape,
    Tally,
    counts,
    forget,
    kept,
)
from lrqmm.networks.im2col import Layer, check_input, dense, im2col, nested, weight_matrix
from lrqmm.networks.left import ATTENTION, Replaced, gemm_layers, left_out, walk, why_not

__all__ = [
    "Layer",
    "Product",
    "call",
    "gemm_layers",
    "im2col",
    "left_out",
    "products",
    "replace_layers",
    "weight_matrix",
]

Run = Callable[[nn.Module, Any], Any]
"""How a network takes a batch."""

SAMPLE_ROWS = 4096
"""Of a layer's operand, for calibration."""

HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)
"""Of a module's calls."""


def call(network: nn.Module, batch: Any) -> Any:
    """The usual way."""
    return network(batch)


def no_fused_pass(product: nn.Module, inputs: Any) -> None:
    """A hook that does nothing: a layer that has one is called by torch's encoder.

    `nn.TransformerEncoderLayer` otherwise multiplies by the float weights in a pass of its own.
    """


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


class Product(Counted, Replaced, nn.Module):
    """A convolution or linear layer that multiplies by a method; its weight is prepared once.

    It takes and gives what the float layer does, and has its attributes and its forward hooks,
    which are given the product. A weight that changed, in place, by `load_state_dict` or by a move,
    is prepared anew at the next call, but for one that was calibrated, which then raises
    RuntimeError. What torch does not count, as `weight.data.mul_(2)`, needs `prepare_again`.

    Rows of the operand that hold NaN, infinity or values beyond 2^120 are multiplied in float, and
    no other row sees them.

    For inference: RuntimeError in training mode, and where a gradient is asked for. `torch.compile`
    leaves it as it is and compiles what is around it.

    Parameters
    ----------
    layer : `nn.Linear` or `nn.Conv2d`, or a subclass that computes the same
    method : what multiplies
    sample : calibration for it, rows as `im2col` gives them; None without

    Attributes
    ----------
    layer : the layer itself, whose weight and bias are used
    method : what multiplies
    shape : (m, k, n) of the latest product, groups taken together; None before the first

    Raises
    ------
    TypeError : a layer whose place a product cannot take
    ValueError : a weight that is not finite, or that is not there yet
    """

    layer: Layer
    method: Method

    def __init__(self, layer: Layer, method: Method, sample: Tensor | None = None) -> None:
        super().__init__()
        reason = why_not(layer)
        if reason is not None:
            raise TypeError(f"layer cannot be replaced: {reason}; allowed: nn.Linear, nn.Conv2d")
        if is_lazy(layer.weight) or layer.weight.is_meta:
            raise ValueError("layer has no weight yet; allowed: one with values")
        for hooks in HOOKS:
            users = {key: hook for key, hook in getattr(layer, hooks).items() if not counts(hook)}
            getattr(self, hooks).update(users)
        self.register_forward_pre_hook(no_fused_pass)
        self.method = method
        self.tally = Tally(Passes())
        self.training = False
        self._prepared = _prepare(method, layer, sample)
        self._fingerprint = None if sample is None else _fingerprint(layer.weight)
        self._seen: _Seen | None = _seen(layer.weight)
        self.layer = layer  # last: attributes that it has are its own from here on

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, input: Tensor) -> Tensor:
        if self.training:
            raise RuntimeError(
                "the network is in training mode; allowed with low-bit products: eval()"
            )
        if torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
            raise RuntimeError("the network is traced; allowed with low-bit products: to call it")
        if torch.is_grad_enabled() and getattr(input, "requires_grad", False):
            refusing: Tensor = _Inference.apply(input, self)  # type: ignore[no-untyped-call]
            return refusing
        return self.multiply(input)

    def multiply(self, x: Tensor) -> Tensor:
        """The layer's output."""
        y, shape = self._multiplied(x)
        self.tally.add(shape)
        return y

    def aside(self, x: Tensor) -> Tensor:
        """The layer's output, which counts nowhere."""
        return self._multiplied(x)[0]

    def _multiplied(self, x: Tensor) -> tuple[Tensor, Shape]:
        with torch.inference_mode(False), torch.no_grad():  # what it holds is used outside of both
            return self._outputs(x)

    def _outputs(self, x: Tensor) -> tuple[Tensor, Shape]:
        layer = self.layer
        if not isinstance(x, Tensor):
            raise TypeError(f"input is a {type(x).__name__}; allowed: a torch tensor")
        if x.is_nested and isinstance(layer, nn.Linear):
            y, shape = self._outputs(dense(x))
            return nested(y, like=x), shape
        kind = x.device.type
        cast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        check_input(layer, x, any_dtype=cast)
        if not self._current():
            self.prepare_again()
        with torch.autocast(kind, enabled=False) if cast else nullcontext():
            A, places = im2col(layer, x)
            C = self._product(A, _largest(x))
            shape = (A.shape[-2], A.shape[-1], C.shape[-1])
            if C.ndim == 3:  # groups x m x n: the channels of all groups side by side
                C = C.transpose(0, 1).flatten(1)
            if layer.bias is not None:
                C += layer.bias
        C = C.reshape(*places, C.shape[-1])
        if cast:
            C = C.to(torch.get_autocast_dtype(kind))
        return C if isinstance(layer, nn.Linear) else C.movedim(-1, -3), shape

    def _product(self, A: Tensor, largest: float) -> Tensor:
        """A B by the method; the rows of values that it cannot take in float."""
        if largest <= _checks.LARGEST:
            far = largest > 2.0**USUAL  # from 1, which the door then sees to
            C: Tensor = self.method.matmul(A, self._prepared, check_finite=far)
            return C
        B = weight_matrix(self.layer)
        good = (A.float().abs() <= _checks.LARGEST).all(-1)  # False for NaN
        good = good if good.ndim == 1 else good.all(0)  # a place of the output is whole
        C = A.new_empty((*A.shape[:-1], B.shape[-1]), dtype=B.dtype)
        C[..., ~good, :] = A[..., ~good, :].to(B.dtype) @ B
        if bool(good.any()):
            rows = self.method.matmul(A[..., good, :], self._prepared)
            C[..., good, :] = rows.to(C.dtype)
        return C

    def prepare_again(self) -> None:
        """Prepare the weight as it is now; a change that torch counts is seen without it.

        Raises
        ------
        RuntimeError : a layer that was calibrated
        ValueError : a weight that is not finite
        """
        if self._fingerprint is not None:
            raise RuntimeError(
                "the weight of a layer that was calibrated has changed; allowed: to replace the "
                "layers of the changed float network, with a calibration"
            )
        seen = _seen(self.layer.weight)
        self._prepared = _prepare(self.method, self.layer, None)
        self._seen = seen

    def _current(self) -> bool:
        """Whether what is prepared is of the weight as it is."""
        weight = self.layer.weight
        if _same(self._seen, _seen(weight)):
            return True
        B = self._prepared.B
        if self._fingerprint is None or (B.device, B.dtype) != (weight.device, weight.dtype):
            return False
        if self._fingerprint != _fingerprint(weight):
            return False
        self._seen = _seen(weight)  # the same values in another place, as in a copy
        return True

    def __getattr__(self, name: str) -> Any:
        """Attributes that it does not have are the float layer's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            layer = self.__dict__.get("_modules", {}).get("layer")
            if layer is None or name.startswith("__") or not hasattr(layer, name):
                raise
        return getattr(layer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        layer = self.__dict__.get("_modules", {}).get("layer")
        here = name in self.__dict__ or hasattr(type(self), name) or name == "layer"
        if layer is None or here or not hasattr(layer, name):
            super().__setattr__(name, value)
        else:
            setattr(layer, name, value)

    def __getstate__(self) -> dict[str, Any]:
        """For copies, whose weight lies elsewhere."""
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return {**state, "_seen": self._current()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._seen = _seen(self.layer.weight) if state["_seen"] else None

    def extra_repr(self) -> str:
        return f"method={self.method!r}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Product:
        """Of `to` and its like, of which a calibrated layer takes those that keep its values."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._fingerprint is not None and not self._current():
            raise RuntimeError(
                "a layer that was calibrated is moved; allowed: to move the network first"
            )
        return self


def _prepare(method: Method, layer: Layer, sample: Tensor | None) -> Prepared:
    with torch.inference_mode(False), torch.no_grad():
        return method.prepare(weight_matrix(layer), calibration=sample)


_Seen = tuple[Tensor, float]


def _seen(weight: Tensor) -> _Seen:
    """What tells whether a weight changes: its place in memory, which is held, and its version.

    Tensors made in inference mode have no version, but a product with fixed vectors in its place.
    """
    if not weight.is_inference():
        return weight.detach(), weight._version
    W = weight.detach().flatten(1).float()
    left, right = (torch.arange(size, device=W.device).float().cos() for size in W.shape)
    return weight.detach(), float(left @ (W @ right))


def _same(before: _Seen | None, now: _Seen) -> bool:
    if before is None or before[1] != now[1]:
        return False
    a, b = before[0], now[0]
    return (a.data_ptr(), a.shape, a.stride(), a.dtype, a.device) == (
        b.data_ptr(), b.shape, b.stride(), b.dtype, b.device
    )  # fmt: skip


def _fingerprint(weight: Tensor) -> str:
    """Of its values and their dtype."""
    values = weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.blake2b(values.data, key=str(weight.dtype).encode()).hexdigest()


def _largest(x: Tensor) -> float:
    """The largest magnitude; NaN where there is one."""
    if x.numel() == 0:
        return 0.0
    low, high = torch.aminmax(x.detach())
    return float(torch.maximum(high, -low))


def replace_layers(
    model: nn.Module,
    method: str | Method | Mapping[str, Method],
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
        of layer names ('res2*') to methods, of which a layer takes the first that fits
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
    samples: dict[Layer, Tensor] = {}
    if calibration is not None:
        samples = _samples(replaced, plan, calibration, run)
    passes = Passes()
    product_of: dict[nn.Module, Product] = {}
    for layer, chosen_method in plan.methods.items():
        try:
            product_of[layer] = Product(layer, chosen_method, samples.get(layer))
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"layer {plan.name(layer)!r}: {error}") from error
    for layer, reason in plan.kept.items():
        if reason != ATTENTION:  # it is never called
            layer.register_forward_hook(KeptHook(reason, Tally(passes)))
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
    kept : why layers are not
    """

    names: dict[nn.Module, list[str]]
    methods: dict[Layer, Method] = field(default_factory=dict)
    kept: dict[Layer, str] = field(default_factory=dict)

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
    there = [plan.name(layer) for layer in layers]
    others = [module for module in plan.names if plan.name(module) in left]
    for patterns, modules in ((chosen, layers), (keep, [*layers, *before, *others])):
        for pattern in patterns:
            if not any(plan.fits(module, pattern) for module in modules):
                raise ValueError(f"pattern {pattern!r} fits no layer; there are {_listed(there)}")

    for layer in layers:
        name = plan.name(layer)
        if left.get(name) == ATTENTION:
            plan.kept[layer] = ATTENTION
        elif kept(layer):
            plan.kept[layer] = "kept"
        elif name in left:
            plan.kept[layer] = left[name]
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
    found: dict[Layer, Tensor] = {}

    def keep(layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any], y: Tensor) -> None:
        if layer in found:
            return
        A = im2col(layer, dense(first_input(args, kwargs)))[0]
        if A.ndim == 3:
            raise ValueError(
                f"layer {plan.name(layer)!r} is a grouped convolution; allowed with a "
                "calibration: to keep it"
            )
        chances = torch.Generator("cpu").manual_seed(0)
        rows = torch.randperm(A.shape[0], generator=chances, device="cpu")[:SAMPLE_ROWS]
        rows = rows.sort().values
        found[layer] = A[rows.to(A.device)]

    layers = [layer for layer, method in plan.methods.items() if method.calibrated]
    hooks = [layer.register_forward_hook(keep, with_kwargs=True) for layer in layers]
    try:
        run(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    without = [plan.name(layer) for layer in layers if layer not in found]
    if without:
        warnings.warn(
            f"layers that did not run on the calibration, and calibrate on each operand that they "
            f"are given: {_listed(without)}",
            stacklevel=3,
        )
    return found


def first_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What a layer was called on, by position or by name."""
    return (*args, *kwargs.values())[0]


def products(model: nn.Module) -> dict[str, Product | Kept]:
    """The layers of a network of `replace_layers`, by name: a `Product` where one was replaced.

    Convolutions and linear layers that stayed in float are there as method 'sgemm'.
    """
    found: dict[str, Product | Kept] = {}
    seen = set()
    for name, module, _ in walk(model):
        if module in seen:
            continue
        seen.add(module)
        if isinstance(module, Product):
            found[name] = module
        elif isinstance(module, Layer) and (layer := kept(module)) is not None:
            found[name] = layer
    return found
