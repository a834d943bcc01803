"""What a file of a LLaMA network says, and the checks that every such file passes.

`folder` reads folders in the Hugging Face layout, `gguf` GGUF files, both to the same
`LlamaFile`. A key of a file is understood, is known to be without effect on the logits, has the
one value at which it is without effect, or is refused by its name.
"""

import math
import reprlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

FLOATS = {"F64", "F32", "F16", "BF16"}  # number formats that are read without dequantising
LARGEST_SIZE = 2**31 - 1
LARGEST_HEAD = 2**16


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """Sizes of a LLaMA network, under Hugging Face's names.

    Attributes
    ----------
    rope_frequencies : angle by which each of the head_dim / 2 pairs turns from a token to the next,
        in radians
    rope_layout : "half": element i of a head is paired with i + head_dim / 2 (Hugging Face);
        "interleaved": 2i with 2i + 1 (GGUF, which has the rows of q_proj and k_proj permuted to
        match)
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_frequencies: tuple[float, ...]
    rope_layout: Literal["half", "interleaved"]
    tie_word_embeddings: bool


@dataclass(frozen=True)
class LlamaFile:
    """What a file says.

    Attributes
    ----------
    weights : float32, by Hugging Face's names
    reference : the number format of the weights in the file, as `format_name` words it
    """

    config: LlamaConfig
    weights: dict[str, Tensor]
    tokenizer: Tokenizer
    reference: str


def check_keys(
    path: Path, stored: Mapping[str, Any], honoured: Collection[str], neutral: Mapping[str, Any]
) -> None:
    """Raise ValueError at the first key that may change the logits and is not honoured.

    Parameters
    ----------
    path : of the file, for the message
    stored : the file's keys and values
    honoured : keys that are honoured, or are without effect whatever their value
    neutral : keys that are without effect at the value given here
    """
    for key, value in stored.items():
        if key in honoured or (key in neutral and _same(value, neutral[key])):
            continue
        allowed = "a file without this key, which is not known here and may change the network"
        refuse(path, key, value, repr(neutral[key]) if key in neutral else allowed)


def _same(value: Any, neutral: Any) -> bool:
    """Whether two values are equal, float32 next to float64 included; 1 is not True."""
    if isinstance(value, bool) or isinstance(neutral, bool):
        return value is neutral
    if isinstance(value, int | float) and isinstance(neutral, int | float):
        return math.isclose(value, neutral, rel_tol=1e-6)
    return bool(value == neutral)


def whole(path: Path, key: str, value: Any, largest: int = LARGEST_SIZE) -> int:
    """`value`, or ValueError unless it is an integer from 1 to `largest`."""
    if type(value) is not int or not 1 <= value <= largest:
        refuse(path, key, value, f"an integer from 1 to {largest}")
    return value


def positive(path: Path, key: str, value: Any) -> float:
    """`value`, or ValueError unless it is a finite number above 0."""
    if type(value) not in (int, float) or not 0 < value < math.inf:
        refuse(path, key, value, "a finite number above 0")
    return float(value)


def rope_frequencies(theta: float, head_dim: int) -> NDArray[np.float64]:
    """θ^(-2i / head_dim) for i < head_dim / 2: Su et al. (arXiv 2104.09864), section 3.2.2."""
    return np.asarray(theta ** (-np.arange(0, head_dim, 2) / head_dim))


def format_name(formats: dict[str, str]) -> str:
    """The number formats of a network's tensors in words, the matrices of its layers first: 'BF16',
    or 'Q4_1 dequantised (embeddings Q8_0, norms F32)'; `formats` are by name of tensor."""
    kinds: dict[str, set[str]] = {}
    for name, kind in formats.items():
        part = next((part for part in ("norm", "embed", "lm_head") if part in name), "matrices")
        kinds.setdefault(part, set()).add(kind)
    names = {part: "+".join(sorted(kind)) for part, kind in kinds.items()}
    matrices = names.get("matrices", "no matrices")
    plural = {"embed": "embeddings", "lm_head": "lm_head", "norm": "norms"}
    others = [
        f"{word} {names[part]}"
        for part, word in plural.items()
        if names.get(part, matrices) != matrices
    ]
    dequantised = "" if kinds.get("matrices", set()) <= FLOATS else " dequantised"
    return f"{matrices}{dequantised}" + (f" ({', '.join(others)})" if others else "")


def refuse(path: Path, key: str, value: Any, allowed: str) -> NoReturn:
    """Raise the ValueError of a file that asks for what we do not have."""
    raise ValueError(f"{path} has {key}={reprlib.repr(value)}; allowed: {allowed}")
