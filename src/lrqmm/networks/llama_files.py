"""LLaMA networks in files: what a file says, and folders in the Hugging Face layout.

GGUF files are read by `lrqmm.networks.llama_gguf`, to the same `LlamaFile`.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import Tensor

from lrqmm._checks import reading

FLOATS = {"F64", "F32", "F16", "BF16"}  # number formats that are read without dequantising


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """Sizes of a LLaMA network, under Hugging Face's names.

    Attributes
    ----------
    rope_frequencies : tuple of float
        Angle by which each of the head_dim / 2 pairs turns from a token to the next, radians.
    rope_layout : {"half", "interleaved"}
        Element i of a head is paired with i + head_dim / 2 (Hugging Face), or 2i with 2i + 1
        (GGUF, which has the rows of q_proj and k_proj permuted to match).
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
    config : LlamaConfig
    weights : dict of str to Tensor
        float32, by Hugging Face's names.
    tokenizer : tokenizers.Tokenizer
    reference : str
        The number format of the weights in the file, as `format_name` words it.
    """

    config: LlamaConfig
    weights: dict[str, Tensor]
    tokenizer: Tokenizer
    reference: str


def read_folder(folder: Path) -> LlamaFile:
    """Read ``config.json``, ``*.safetensors`` (one or several) and ``tokenizer.json``.

    Raises
    ------
    FileNotFoundError
        One of them is not there.
    ValueError
        Another architecture, a missing key, RoPE scaling other than Llama 3's, or weights that
        are not floating-point numbers of 16 bits or more.
    """
    shards = sorted(folder.glob("*.safetensors"))
    path, words = folder / "config.json", folder / "tokenizer.json"
    missing = [file.name for file in (path, words) if not file.is_file()]
    if missing or not shards:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing or ['*.safetensors'])}; allowed: a folder with "
            "config.json, *.safetensors and tokenizer.json, or a .gguf file"
        )
    with reading(path):
        config = _config(path, json.loads(path.read_text(encoding="utf-8")))
    weights, formats = {}, {}
    for shard in shards:
        with reading(shard), safe_open(shard, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (file is no mapping)
                if name.endswith("rotary_emb.inv_freq"):  # in old files: config.json says the same
                    continue
                formats[name] = file.get_slice(name).get_dtype()
                if formats[name] not in FLOATS:
                    refuse(shard, name, formats[name], f"the number formats {sorted(FLOATS)}")
                weights[name] = file.get_tensor(name).float()
    with reading(words):
        tokenizer = Tokenizer.from_file(str(words))
    return LlamaFile(config, weights, tokenizer, format_name(formats))


def _config(path: Path, given: dict[str, Any]) -> LlamaConfig:
    for key, only in {"model_type": "llama", "hidden_act": "silu"}.items():
        if given.get(key) != only:
            refuse(path, key, given.get(key), repr(only))
    rope = {"rope_theta": given.get("rope_theta", 10000.0), **(given.get("rope_scaling") or {})}
    rope |= given.get("rope_parameters") or {}  # the newer name of both
    try:
        heads = given["num_attention_heads"]
        head_dim = given.get("head_dim") or given["hidden_size"] // heads
        return LlamaConfig(
            vocab_size=given["vocab_size"],
            hidden_size=given["hidden_size"],
            intermediate_size=given["intermediate_size"],
            num_hidden_layers=given["num_hidden_layers"],
            num_attention_heads=heads,
            num_key_value_heads=given.get("num_key_value_heads") or heads,
            head_dim=head_dim,
            max_position_embeddings=given["max_position_embeddings"],
            rms_norm_eps=given["rms_norm_eps"],
            rope_frequencies=tuple(_scaled_frequencies(path, rope, head_dim).tolist()),
            rope_layout="half",
            tie_word_embeddings=given.get("tie_word_embeddings", False),
        )
    except KeyError as error:
        raise ValueError(f"{path} lacks the key {error}") from error


def rope_frequencies(theta: float, head_dim: int) -> NDArray[np.float64]:
    """θ^(-2i / head_dim) for i < head_dim / 2: Su et al. (arXiv 2104.09864), section 3.2.2."""
    return np.asarray(theta ** (-np.arange(0, head_dim, 2) / head_dim))


def _scaled_frequencies(path: Path, rope: dict[str, Any], head_dim: int) -> NDArray[np.float64]:
    """RoPE's frequencies, with Llama 3's scaling if the file asks for it.

    A pair that makes `turns` turns in the original context keeps its frequency where turns is
    at least high_freq_factor, has it divided by `factor` where at most low_freq_factor, and a
    linear mixture of the two between.
    """
    frequencies = rope_frequencies(rope["rope_theta"], head_dim)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return frequencies
    if kind != "llama3":
        refuse(path, "rope_type", kind, "no RoPE scaling ('default') and Llama 3's ('llama3')")
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return np.asarray(kept * frequencies + (1 - kept) * frequencies / rope["factor"])


def format_name(formats: dict[str, str]) -> str:
    """Name the number formats of a network's weights, the matrices of its layers first.

    Parameters
    ----------
    formats : dict of str to str
        Format by name of tensor.

    Returns
    -------
    str
        For example 'BF16', or 'Q4_1 dequantised (embeddings Q8_0, norms F32)'.
    """
    kinds: dict[str, set[str]] = {}
    for name, kind in formats.items():
        part = next((part for part in ("norm", "embed", "lm_head") if part in name), "matrices")
        kinds.setdefault(part, set()).add(kind)
    found = {part: "+".join(sorted(kind)) for part, kind in kinds.items()}
    matrices = found.get("matrices", "no matrices")
    plural = {"embed": "embeddings", "lm_head": "lm_head", "norm": "norms"}
    others = [
        f"{word} {found[part]}"
        for part, word in plural.items()
        if found.get(part, matrices) != matrices
    ]
    dequantised = "" if kinds.get("matrices", set()) <= FLOATS else " dequantised"
    return f"{matrices}{dequantised}" + (f" ({', '.join(others)})" if others else "")


def refuse(path: Path, key: str, value: Any, allowed: str) -> NoReturn:
    """Raise the ValueError of a file that asks for what we do not have."""
    raise ValueError(f"{path} has {key}={value!r}; allowed: {allowed}")
