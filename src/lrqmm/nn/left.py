"""Which layers of a network a product can take the place of, and why the others stay in float."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.modules.rnn import RNNBase, RNNCellBase
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList

from lrqmm.nn.counting import kept
from lrqmm.nn.im2col import Layer

NO_PRODUCT = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)
"""With weights of two dimensions or more that nothing is multiplied by as a matrix."""
OTHER_KINDS = (_ConvNd, RNNBase, RNNCellBase, nn.Bilinear, nn.MultiheadAttention)
ATTENTION = "MultiheadAttention multiplies by its weight itself"
CALLS = ("__call__", "_call_impl", "forward", "_conv_forward")
"""What a subclass that does more than its layer would change."""


class Replaced:
    """Mark of modules that are products already; what is inside them is theirs."""


def walk(
    module: nn.Module, name: str = "", parent: nn.Module | None = None
) -> Iterator[tuple[str, nn.Module, nn.Module | None]]:
    """All modules under all their names, with the module that holds them; '' is the network."""
    yield name, module, parent
    if isinstance(module, Replaced):
        return
    for child, inner in module._modules.items():
        if inner is not None:
            yield from walk(inner, f"{name}.{child}" if name else child, module)


def gemm_layers(model: nn.Module) -> dict[str, Layer]:
    """Convolutions and linear layers by name, in the order of the module's definition.

    One that has several names is there under the first; what products hold is not there.
    """
    names: dict[Layer, str] = {}
    for name, module, _ in walk(model):
        if isinstance(module, Layer):
            names.setdefault(module, name)
    return {name: layer for layer, name in names.items()}


def left_out(model: nn.Module) -> dict[str, str]:
    """Modules that multiply by their weights in float for good, by name, and why.

    Of a float network, what `replace_layers` would leave as it is; of a replaced network what it
    left, and the layers that it was told to keep. Embeddings and norms multiply no matrices and are
    not there. Beside `nn.Conv2d` and `nn.Linear` a module is there where it is of a kind of torch
    that multiplies, or has parameters of two dimensions or more of its own.

    Examples
    --------
    >>> from torch import nn
    >>> from lrqmm.nn.left import left_out
    >>> left_out(nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Linear(8, 8)))
    {'0': 'a Conv1d, which is not replaced'}
    """
    attended = {
        getattr(module, "out_proj", None)
        for _, module, _ in walk(model)
        if isinstance(module, nn.MultiheadAttention)
    }
    seen: set[nn.Module] = set()
    reasons: dict[str, str] = {}
    for name, module, _ in walk(model):
        if module in seen or isinstance(module, Replaced | ParametrizationList):
            continue
        seen.add(module)
        if module in attended:
            reason: str | None = ATTENTION
        elif isinstance(module, Layer):
            told = kept(module)
            reason = told.reason if told is not None else why_not(module)
        else:
            reason = _other_kind(module)
        if reason is not None:
            reasons[name] = reason
    return reasons


def why_not(layer: Layer) -> str | None:
    """Why a product cannot take a layer's place: it does more, or its weight is no plain one."""
    kind = nn.Linear if isinstance(layer, nn.Linear) else nn.Conv2d
    name = type(layer).__name__
    for tensor in ("weight", "bias"):
        plain = tensor in layer._parameters and not hasattr(type(layer), tensor)
        if not plain and getattr(layer, tensor, None) is not None:
            return f"its {tensor} is computed at each call ({name})"
    if isinstance(layer, NonDynamicallyQuantizableLinear):
        return ATTENTION
    weight = layer._parameters.get("weight")
    if weight is not None and is_lazy(weight):
        return None
    if weight is None or type(weight) is not nn.Parameter or type(weight.data) is not Tensor:
        return f"its weight is a {type(weight).__name__}"
    if weight.layout != torch.strided:
        return "its weight is sparse"
    for call in CALLS:
        if getattr(type(layer), call, None) is not getattr(kind, call, None):
            return f"{name} has a {call} of its own"
        if call in vars(layer):
            return f"its {call} was replaced"
    return None


def _other_kind(module: nn.Module) -> str | None:
    if isinstance(module, NO_PRODUCT):
        return None
    if isinstance(module, OTHER_KINDS):
        return f"a {type(module).__name__}, which is not replaced"
    own = ((name, tensor) for name, tensor in module._parameters.items() if tensor is not None)
    bare = [name for name, tensor in own if is_lazy(tensor) or tensor.ndim > 1]
    bare += getattr(module, "parametrizations", {})
    if not bare:
        return None
    return f"a {type(module).__name__} with parameters of its own ({', '.join(bare)})"
