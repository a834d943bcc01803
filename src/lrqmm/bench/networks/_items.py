"""What the networks' files share about items of data."""

from typing import Any

import torch
from torch import Tensor


def check_count(count: int, available: int, noun: str, key: str = "items") -> None:
    """Raise ValueError where a configuration's `key` asks for more items than there are."""
    if count > available:
        raise ValueError(f"{key} is {count}; allowed: up to {available}, the {noun} that are there")


def halves(a: Any, b: Any) -> tuple[Any, int]:
    """The first half of a batch with the later half of another, and the length of the first."""
    half = len(a) // 2
    both = a[:half], b[half : len(a)]
    return torch.cat(both) if isinstance(a, Tensor) else both[0] + both[1], half
