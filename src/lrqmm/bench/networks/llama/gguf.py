"""LLaMA networks in GGUF files, dequantised.

Source: the GGUF specification of the ggml project, and its keys for the architecture 'llama'.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from gguf import GGUFReader, TokenType
from gguf.quants import dequantize
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from lrqmm.bench.networks.llama.files import (
    LARGEST_HEAD,
    LARGEST_SIZE,
    LlamaConfig,
    LlamaFile,
    check_keys,
    format_name,
    positive,
    refuse,
    rope_frequencies,
    whole,
)

OUTSIDE = {  # GGUF's name of a tensor outside the layers: Hugging Face's
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
IN_LAYERS = {
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
NAMES = OUTSIDE | IN_LAYERS
ROPE_FACTORS = "rope_freqs.weight"  # by which Llama 3's scaling divides the frequencies
HONOURED = {
    *("general.architecture", "general.alignment", "llama.context_length"),
    *("llama.embedding_length", "llama.block_count", "llama.feed_forward_length"),
    *("llama.attention.head_count", "llama.attention.head_count_kv"),
    *("llama.attention.key_length", "llama.attention.layer_norm_rms_epsilon"),
    *("llama.rope.freq_base", "llama.rope.scaling.type", "llama.rope.scaling.factor"),
    *("llama.rope.scale_linear", "tokenizer.ggml.model", "tokenizer.ggml.pre"),
    *("tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges"),
}
WITHOUT_EFFECT = re.compile(  # on the logits of a text, encoded without special tokens
    r"GGUF\.\w+|general\.(?!type$|quantization_version$).*"
    r"|llama\.rope\.scaling\.(original_context_length|finetuned)"
    r"|tokenizer\.ggml\.(\w+_token_ids?|add_[be]os_token|add_sep_token|scores|token_type_count)"
    r"|tokenizer\.chat_templates?(\..*)?|tokenizer\.huggingface\.json"
    r"|quantize\.imatrix\..*|mradermacher\..*"
)
NEUTRAL = {  # keys that are without effect at this value
    "general.type": "model",
    "general.quantization_version": 2,
    "llama.tensor_data_layout": "Meta AI original pth",
    "llama.use_parallel_residual": False,
    "llama.expert_count": 0,
    "llama.expert_used_count": 0,
    "llama.expert_shared_count": 0,
    "llama.logit_scale": 1.0,
    "llama.residual_scale": 1.0,
    "llama.embedding_scale": 1.0,
    "llama.attn_logit_softcapping": 0.0,
    "llama.final_logit_softcapping": 0.0,
    "llama.pooling_type": 0,
    "llama.attention.causal": True,
    "llama.attention.clamp_kqv": 0.0,
    "llama.attention.max_alibi_bias": 0.0,
    "llama.attention.sliding_window": 0,
    "llama.rope.scaling.attn_factor": 1.0,
    "split.no": 0,
    "split.count": 1,
    "tokenizer.ggml.add_space_prefix": False,
    "tokenizer.ggml.remove_extra_whitespaces": False,
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


class _Reader(GGUFReader):
    """A reader that stops where a damaged file says more than it holds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(path)

    def value(self, key: str, default: Any = None) -> Any:
        """The value of a key; ValueError where the file lacks it and there is no default."""
        field = self.get_field(key)
        if field is None and default is None:
            raise ValueError(f"{self.path} lacks the key {key}")
        return default if field is None else field.contents()

    def _get(
        self, offset: int, dtype: Any, count: int = 1, override_order: Any = None
    ) -> NDArray[Any]:
        if int(offset) + np.dtype(dtype).itemsize * int(count) > len(self.data):
            raise ValueError("it ends too early")
        return super()._get(offset, dtype, count, override_order)


def read_gguf(path: Path) -> LlamaFile:
    """Read a GGUF file of the architecture 'llama', and dequantise its weights.

    Raises
    ------
    ValueError : not GGUF, big-endian, a part of a split file, another architecture, a missing key,
        a key that is not known, RoPE scaling other than linear and Llama 3's, a number format that
        cannot be dequantised, or a tokenizer other than byte-level BPE
    """
    part = re.fullmatch(r".*-([0-9]+)-of-([0-9]+)\.gguf", path.name)
    if part and int(part[2]) > 1:
        _refuse_part(path, int(part[1]), int(part[2]))
    with path.open("rb") as stream:
        head = stream.read(8)
    if len(head) == 8 and head.startswith(b"GGUF\0\0"):  # the version's upper half
        raise ValueError(
            f"{path} is big-endian; allowed: little-endian, to which gguf-convert-endian of the "
            "package gguf converts it"
        )
    try:
        reader = _Reader(path)
    except (ValueError, IndexError, KeyError) as error:
        raise ValueError(f"{path} is not a complete GGUF file: {error}") from error

    if (parts := reader.value("split.count", 1)) != 1:
        _refuse_part(path, reader.value("split.no", 0) + 1, parts)
    architecture = reader.value("general.architecture")
    if architecture != "llama":
        refuse(path, "general.architecture", architecture, "'llama'")
    tokens = _tokens(reader)
    config = _config(reader, len(tokens))
    neutral = NEUTRAL | {
        "llama.attention.value_length": config.head_dim,
        "llama.attention.scale": config.head_dim**-0.5,
        "llama.rope.dimension_count": config.head_dim,
        "llama.vocab_size": config.vocab_size,
        "split.tensors.count": len(reader.tensors),
    }
    unknown = {
        key: field.contents()
        for key, field in reader.fields.items()
        if key not in HONOURED and not WITHOUT_EFFECT.fullmatch(key)
    }
    check_keys(path, unknown, (), neutral)
    weights, formats = _weights(reader)
    return LlamaFile(config, weights, _tokenizer(reader, tokens), format_name(formats))


def _refuse_part(path: Path, number: int, count: int) -> NoReturn:
    raise ValueError(
        f"{path} is part {number} of a GGUF file that is split into {count}; allowed: the whole, "
        "into which llama-gguf-split --merge of llama.cpp joins the parts"
    )


def _weights(reader: _Reader) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors in float32 and their number formats, by Hugging Face's names."""
    path = reader.path
    weights: dict[str, Tensor] = {}
    formats: dict[str, str] = {}
    expected = 0
    for tensor in reader.tensors:
        offset = int(tensor.data_offset) - int(reader.data_offset)
        if offset != expected:
            raise ValueError(
                f"{path} has the data of {tensor.name} at {offset}; allowed: {expected}, after "
                "those of the tensor before"
            )
        expected = -(-(offset + tensor.n_bytes) // int(reader.alignment)) * int(reader.alignment)
        if tensor.name == ROPE_FACTORS:
            continue
        name = _name(path, tensor.name)
        formats[name] = tensor.tensor_type.name
        try:
            with np.errstate(all="ignore"):  # what is not finite is refused later
                array = np.array(dequantize(tensor.data, tensor.tensor_type), np.float32)
        except NotImplementedError:
            refuse(path, tensor.name, formats[name], "number formats that gguf can dequantise")
        weights[name] = torch.from_numpy(array)
    rest = len(reader.data) - int(reader.data_offset) - expected
    if rest > 0:
        raise ValueError(f"{path} holds {rest} bytes after its last tensor; allowed: none")
    return weights, formats


def _name(path: Path, name: str) -> str:
    """Hugging Face's name of a tensor."""
    match = re.fullmatch(r"(?:blk\.(0|[1-9][0-9]*)\.)?([a-z_]+)\.weight", name)
    layer, kind = match.groups() if match else (None, "")
    names = OUTSIDE if layer is None else IN_LAYERS
    if kind not in names:
        raise ValueError(
            f"{path} has the tensor {name!r}; allowed: {', '.join(OUTSIDE)}, "
            f"blk.N.{', blk.N.'.join(IN_LAYERS)}, each with .weight, and {ROPE_FACTORS}"
        )
    return f"model.layers.{layer}.{names[kind]}.weight" if layer else f"{names[kind]}.weight"


def _rope_factors(reader: _Reader) -> NDArray[np.float32] | None:
    """By which each frequency is divided, or None."""
    tensors = [tensor for tensor in reader.tensors if tensor.name == ROPE_FACTORS]
    if not tensors:
        return None
    kind = tensors[0].tensor_type.name
    if kind != "F32":
        refuse(reader.path, ROPE_FACTORS, kind, "F32")
    factors = np.array(tensors[0].data, np.float32)
    if not (np.isfinite(factors) & (factors > 0)).all():
        refuse(reader.path, ROPE_FACTORS, factors.tolist(), "finite numbers above 0")
    return factors


def _config(reader: _Reader, vocabulary: int) -> LlamaConfig:
    path, value, rope_factors = reader.path, reader.value, _rope_factors(reader)

    def size(key: str, default: int | None = None, largest: int = LARGEST_SIZE) -> int:
        return whole(path, f"llama.{key}", value(f"llama.{key}", default), largest)

    hidden, heads = size("embedding_length"), size("attention.head_count")
    if hidden % heads and value("llama.attention.key_length", 0) == 0:
        refuse(path, "llama.attention.head_count", heads, f"a divisor of embedding_length={hidden}")
    head_dim = size("attention.key_length", hidden // heads, LARGEST_HEAD)
    rotated = size("rope.dimension_count", head_dim)
    if rotated != head_dim:
        refuse(path, "llama.rope.dimension_count", rotated, f"{head_dim}, the whole head")
    theta = value("llama.rope.freq_base", 10000.0)
    frequencies = rope_frequencies(positive(path, "llama.rope.freq_base", theta), head_dim)
    if rope_factors is not None:
        if rope_factors.shape != frequencies.shape:
            refuse(path, f"{ROPE_FACTORS} of shape", rope_factors.shape, str(frequencies.shape))
        frequencies = frequencies / rope_factors
    eps = value("llama.attention.layer_norm_rms_epsilon")
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=size("feed_forward_length"),
        num_hidden_layers=size("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=size("attention.head_count_kv", heads),
        head_dim=head_dim,
        max_position_embeddings=size("context_length"),
        rms_norm_eps=positive(path, "llama.attention.layer_norm_rms_epsilon", eps),
        rope_frequencies=tuple((frequencies / _linear_scaling(reader)).tolist()),
        rope_layout="interleaved",
        tie_word_embeddings=all(tensor.name != "output.weight" for tensor in reader.tensors),
    )


def _linear_scaling(reader: _Reader) -> float:
    """By which all frequencies are divided; a factor without a type is linear, as in llama.cpp."""
    path, value = reader.path, reader.value
    kind = value("llama.rope.scaling.type", "linear")
    if kind not in ("none", "linear"):
        refuse(path, "llama.rope.scaling.type", kind, "'none' and 'linear'")
    older, newer = "llama.rope.scale_linear", "llama.rope.scaling.factor"
    scale = positive(path, older, value(older, 1.0))
    factor = positive(path, newer, value(newer, scale))
    if value(older, factor) != factor:
        refuse(path, newer, factor, f"{scale}, the {older} of this file")
    if kind == "none" and factor != 1:
        refuse(path, newer, factor, "1 where llama.rope.scaling.type is 'none'")
    return factor


def _tokens(reader: _Reader) -> list[str]:
    path, tokens = reader.path, reader.value("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        refuse(path, "tokenizer.ggml.tokens", tokens, "an array of strings")
    if len(set(tokens)) < len(tokens):
        ((twice, _),) = Counter(tokens).most_common(1)
        refuse(path, "tokenizer.ggml.tokens", twice, "every token once")
    return tokens


def _tokenizer(reader: _Reader, tokens: list[str]) -> Tokenizer:
    """Byte-level byte-pair encoding from the file's vocabulary and merges."""
    path, value = reader.path, reader.value
    instead = "or give a folder in the Hugging Face layout, with tokenizer.json"
    model, splitter = value("tokenizer.ggml.model"), value("tokenizer.ggml.pre", "default")
    if model != "gpt2":
        refuse(path, "tokenizer.ggml.model", model, f"'gpt2'; {instead}")
    if splitter not in WORDS:
        refuse(path, "tokenizer.ggml.pre", splitter, f"{sorted(WORDS)}; {instead}")
    merges = [tuple(merge.split(" ")) for merge in value("tokenizer.ggml.merges")]
    for merge in merges:
        if len(merge) != 2:
            refuse(path, "tokenizer.ggml.merges", merge, "two tokens with a space between")
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=merges,
            ignore_merges=splitter == "llama-bpe",  # a word that is a token is that token
        )
    )
    tokenizer.pre_tokenizer = WORDS[splitter]
    tokenizer.decoder = decoders.ByteLevel()
    for token, kind in zip(tokens, value("tokenizer.ggml.token_type"), strict=True):
        if kind in (TokenType.CONTROL, TokenType.USER_DEFINED):
            added = AddedToken(token, special=kind == TokenType.CONTROL, normalized=False)
            tokenizer.add_tokens([added])
    return tokenizer
