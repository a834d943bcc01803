"""What the networks' files share: checks of weights, and of items of data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def check_floats(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError at the first tensor that is no dense one of floats of 16 bits or more."""
    for name, tensor in weights.items():
        if tensor.dtype not in FLOATS or tensor.layout != torch.strided or tensor.is_meta:
            kind = str(tensor.dtype).removeprefix("torch.")
            layout = str(tensor.layout).removeprefix("torch.")
            raise ValueError(
                f"{path}: tensor {name!r} is of {kind} ({layout}, on {tensor.device}); allowed: "
                "float64, float32, float16 and bfloat16 (strided, on cpu)"
            )


def check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError at the first tensor that holds a NaN or an infinity."""
    for name, tensor in weights.items():
        finite = torch.isfinite(tensor)
        if not finite.all():
            raise ValueError(
                f"{path}: tensor {name!r} holds {int((~finite).sum())} values that are NaN or "
                "infinite in float32; allowed: finite weights"
            )


def check_count(count: int, available: int, noun: str, key: str = "items") -> None:
    """Raise ValueError where a configuration's `key` asks for more items than there are."""
    if count > available:
        raise ValueError(f"{key} is {count}; allowed: up to {available}, the {noun} that are there")


def halves(a: Any, b: Any) -> tuple[Any, int]:
    """The first half of a batch with the later half of another, and the length of the first."""
    half = len(a) // 2
    both = a[:half], b[half : len(a)]
    return torch.cat(both) if isinstance(a, Tensor) else both[0] + both[1], half
