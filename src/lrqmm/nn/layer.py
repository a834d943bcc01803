"""A convolution or linear layer that multiplies by a method, with the float layer's face."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lrqmm import _checks
from lrqmm.method import Method, Prepared
from lrqmm.nn.counting import Counted, Passes, Shape, Tally, counts
from lrqmm.nn.im2col import Layer, check_input, dense, im2col, nested, weight_matrix
from lrqmm.nn.left import Replaced, why_not
from lrqmm.products.operands import USUAL

HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)
"""Of a module's calls."""


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
    which are given the product. What `lrqmm.nn.Linear` says of changed weights, of values that are
    not finite and of training holds here too; `torch.compile` compiles what is around it.

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
        y, shape = self._outputs(x)
        self.tally.add(shape)
        return y

    def aside(self, x: Tensor) -> Tensor:
        """The layer's output, which counts nowhere."""
        return self._outputs(x)[0]

    @torch.inference_mode(False)  # what it holds is used outside of both
    @torch.no_grad()
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
            far = largest > 2.0**USUAL  # from 1, which the door sees to
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
        mine = name in self.__dict__ or hasattr(type(self), name) or name == "layer"
        if layer is None or mine or not hasattr(layer, name):
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
