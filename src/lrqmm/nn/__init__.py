"""Drop-in layers of torch, for inference."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lrqmm.method import Method
from lrqmm.nn.layer import Product
from lrqmm.nn.replace import named_or_given

__all__ = ["Linear"]


class Linear(Product):
    """A linear layer Y = X Wᵀ + b whose product is one by a method; from `from_float`.

    It takes what the float layer takes and has its attributes. When the weight changes it is
    prepared anew at the next call; what torch does not count, as `weight.data.mul_(2)`, needs
    `prepare_again`. Rows of the input with NaN, infinity or values beyond 2^120 are multiplied in
    float.

    Attributes
    ----------
    layer : the float layer, whose weight (out_features, in_features) and bias are used
    method : what multiplies
    shape : (m, k, n) of the latest product; None before the first

    Raises
    ------
    RuntimeError : in training mode, or where a gradient is asked for; an input of another shape,
        dtype or device than the float layer takes; a weight that changed after a calibration

    Examples
    --------
    >>> import torch, lrqmm.nn
    >>> layer = lrqmm.nn.Linear.from_float(torch.nn.Linear(64, 32), "lrqmm_aware", bits=4, rank=8)
    >>> layer
    Linear(
      method=get_method('lrqmm_aware', bits=4, rank=8)
      (layer): Linear(in_features=64, out_features=32, bias=True)
    )
    >>> layer(torch.randn(5, 64)).shape
    torch.Size([5, 32])
    """

    @classmethod
    def from_float(
        cls,
        layer: nn.Linear,
        method: str | Method = "lrqmm_aware",
        *,
        calibration: Tensor | None = None,
        **params: Any,
    ) -> Linear:
        """Make one of a float layer, whose weight and bias it shares.

        Parameters
        ----------
        layer : on the device where it will be used
        method : a method's name, with its parameters in `params`, or a `Method`
        calibration : (rows, in_features) inputs, for methods that calibrate

        Raises
        ------
        TypeError : not an `nn.Linear`, or one that does more (a `forward` of its own, a weight
            that is computed at each call); a method that is no name and no `Method`
        ValueError : a name or parameter that is not allowed, a weight that is not finite
        """
        if not isinstance(layer, nn.Linear):
            replaced = ", which is replaced already" if isinstance(layer, Product) else ""
            raise TypeError(
                f"layer is a {type(layer).__name__}{replaced}; allowed: torch.nn.Linear"
            )
        return cls(layer, named_or_given(method, params), calibration)
