"""LLaMA networks in GGUF files, dequantised.

Source: the GGUF specification of the ggml project, and its keys for the architecture 'llama'.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, TokenType
from gguf.quants import dequantize
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from lrqmm.networks.llama_files import (
    LlamaConfig,
    LlamaFile,
    format_name,
    refuse,
    rope_frequencies,
)

NAMES = {  # GGUF's name of a tensor: Hugging Face's
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
LLAMA3_WORDS = (  # the regular expression of Llama 3's tokenizer.json
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
WORDS = {  # tokenizer.ggml.pre: how text is split before byte-pair encoding
    "gpt-2": BYTES,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTES]),
    "llama-bpe": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
}
Value = Callable[..., Any]  # value(key) or value(key, default)


def read_gguf(path: Path) -> LlamaFile:
    """Read a GGUF file of the architecture 'llama', and dequantise its weights.

    Raises
    ------
    ValueError
        Not GGUF, another architecture, a missing key, RoPE scaling other than Llama 3's, a
        number format that cannot be dequantised, or a tokenizer other than byte-level BPE.
    """
    try:
        reader = GGUFReader(path)
    except (ValueError, IndexError) as error:  # IndexError: the file ends too early
        raise ValueError(f"{path} is not a complete GGUF file: {error}") from error

    def value(key: str, default: Any = None) -> Any:
        field = reader.get_field(key)
        if field is None and default is None:
            raise ValueError(f"{path} lacks the key {key}")
        return default if field is None else field.contents()

    for key, only in {"general.architecture": "llama", "llama.rope.scaling.type": "none"}.items():
        if value(key, "none") != only:
            refuse(path, key, value(key, "none"), repr(only))
    weights: dict[str, Tensor] = {}
    formats: dict[str, str] = {}
    for tensor in reader.tensors:
        *block, kind, suffix = tensor.name.split(".")  # blk.0.attn_q.weight
        prefix = f"model.layers.{block[-1]}." if block else ""
        name = f"{prefix}{NAMES.get(kind, kind)}.{suffix}"
        formats[name] = tensor.tensor_type.name
        try:
            array = np.array(dequantize(tensor.data, tensor.tensor_type), np.float32)
        except NotImplementedError:
            refuse(path, tensor.name, formats[name], "number formats that gguf can dequantise")
        weights[name] = torch.from_numpy(array)
    formats.pop("rope_freqs.weight", None)
    factors = weights.pop("rope_freqs.weight", torch.ones(1))  # Llama 3's scaling
    config = _config(path, value, factors, "lm_head.weight" not in weights)
    return LlamaFile(config, weights, _tokenizer(path, value), format_name(formats))


def _config(path: Path, value: Value, rope_factors: Tensor, tied: bool) -> LlamaConfig:
    hidden, heads = value("llama.embedding_length"), value("llama.attention.head_count")
    head_dim = value("llama.attention.key_length", hidden // heads)
    rotated = value("llama.rope.dimension_count", head_dim)
    if rotated != head_dim:
        refuse(path, "llama.rope.dimension_count", rotated, f"{head_dim}, the whole head")
    frequencies = rope_frequencies(value("llama.rope.freq_base", 10000.0), head_dim)
    return LlamaConfig(
        vocab_size=len(value("tokenizer.ggml.tokens")),
        hidden_size=hidden,
        intermediate_size=value("llama.feed_forward_length"),
        num_hidden_layers=value("llama.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=value("llama.attention.head_count_kv", heads),
        head_dim=head_dim,
        max_position_embeddings=value("llama.context_length"),
        rms_norm_eps=value("llama.attention.layer_norm_rms_epsilon"),
        rope_frequencies=tuple((frequencies / rope_factors.numpy()).tolist()),
        rope_layout="interleaved",
        tie_word_embeddings=tied,
    )


def _tokenizer(path: Path, value: Value) -> Tokenizer:
    """Byte-level byte-pair encoding from the file's vocabulary and merges."""
    instead = "or give a folder in the Hugging Face layout, with tokenizer.json"
    model, words = value("tokenizer.ggml.model"), value("tokenizer.ggml.pre", "default")
    if model != "gpt2":
        refuse(path, "tokenizer.ggml.model", model, f"'gpt2'; {instead}")
    if words not in WORDS:
        refuse(path, "tokenizer.ggml.pre", words, f"{sorted(WORDS)}; {instead}")
    tokens = value("tokenizer.ggml.tokens")
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=[tuple(merge.split(" ")) for merge in value("tokenizer.ggml.merges")],
            ignore_merges=words == "llama-bpe",  # a word that is a token is that token
        )
    )
    tokenizer.pre_tokenizer = WORDS[words]
    tokenizer.decoder = decoders.ByteLevel()
    for token, kind in zip(tokens, value("tokenizer.ggml.token_type"), strict=True):
        if kind in (TokenType.CONTROL, TokenType.USER_DEFINED):
            added = AddedToken(token, special=kind == TokenType.CONTROL, normalized=False)
            tokenizer.add_tokens([added])
    return tokenizer
