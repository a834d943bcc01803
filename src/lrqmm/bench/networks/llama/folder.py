"""LLaMA networks in folders of the Hugging Face layout.

Source: LlamaConfig, and the index of sharded safetensors files, of Hugging Face's transformers.
"""

import json
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import Tensor

from lrqmm._checks import reading
from lrqmm.bench.networks.llama.files import (
    FLOATS,
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

INDEX = ".safetensors.index.json"
ADAPTER = "adapter_config.json"
WANTED = ("config.json", "*.safetensors", f"*{INDEX}", "tokenizer.json", ADAPTER)
"""The files that a folder is read from, or refused for."""
ONLY = {"model_type": "llama", "hidden_act": "silu"}  # keys of which one value is honoured
SIZES = {
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"),
    *("rms_norm_eps", "tie_word_embeddings"),
}
ROPE = ("rope_theta", "rope_scaling", "rope_parameters")
WITHOUT_EFFECT = {  # on the logits of a text
    *("transformers_version", "transformers.js_config", "torch_dtype", "dtype", "use_bfloat16"),
    *("torchscript", "use_cache", "return_dict", "output_attentions", "output_hidden_states"),
    *("attn_implementation", "chunk_size_feed_forward", "pretraining_tp", "is_decoder"),
    *("initializer_range", "attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id"),
    *("decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "tokenizer_class"),
    *("max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups"),
    *("diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty"),
    *("length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids"),
    *("num_return_sequences", "output_scores", "return_dict_in_generate", "suppress_tokens"),
    *("remove_invalid_values", "exponential_decay_length_penalty", "begin_suppress_tokens"),
    *("finetuning_task", "id2label", "label2id", "num_labels", "problem_type", "prefix"),
    *("task_specific_params", "tf_legacy_loss", "max_sequence_length", "model_max_length"),
    *("gradient_checkpointing", "unsloth_version", "unsloth_fixed", "_name_or_path"),
    *("_attn_implementation_autoset", "_attn_implementation", "_commit_hash"),
}
NEUTRAL = {  # keys that are without effect at this value
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "mlp_bias": False,
    "partial_rotary_factor": 1.0,
    "logits_scaling": 1.0,
    "residual_multiplier": 1.0,
    "embedding_multiplier": 1.0,
    "use_sliding_window": False,
    "is_causal": True,
    "is_llama_config": True,
    "rope_interleaved": False,
    "is_encoder_decoder": False,
    "add_cross_attention": False,
    "tie_encoder_decoder": False,
    "pruned_heads": {},
}
SCALINGS = {  # keys of each kind of RoPE scaling
    "default": set(),
    "linear": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
}


def read_folder(folder: Path) -> LlamaFile:
    """Read ``config.json``, ``*.safetensors`` and ``tokenizer.json``.

    Where there is an index (``model.safetensors.index.json``), the files that it names are read
    and no others; otherwise all are.

    Raises
    ------
    FileNotFoundError : one of them is not there
    ValueError : another architecture, a missing key, a key that is not known, RoPE scaling other
        than linear and Llama 3's, an index and files that do not fit each other, a tensor in two
        files, or weights that are not floating-point numbers of 16 bits or more
    """
    path, tokens = folder / "config.json", folder / "tokenizer.json"
    missing = [file.name for file in (path, tokens) if not file.is_file()]
    if missing or not any(folder.glob("*.safetensors")):
        pickles = "" if missing else _pickles(folder)
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing or ['*.safetensors'])}{pickles}; allowed: a folder "
            "with config.json, *.safetensors and tokenizer.json, or a .gguf file"
        )
    if (folder / ADAPTER).exists():
        raise ValueError(
            f"{folder} holds an adapter ({ADAPTER}), which is not applied here; "
            "allowed: a network with its adapters merged into it"
        )
    with reading(path):
        config = _config(path, _json(path))
    weights, formats = _weights(folder, config)
    with reading(tokens):
        tokenizer = Tokenizer.from_file(str(tokens))
        tokenizer.no_padding()  # the file may ask for both
        tokenizer.no_truncation()
    return LlamaFile(config, weights, tokenizer, format_name(formats))


def _pickles(folder: Path) -> str:
    names = sorted(file.name for kind in ("*.bin", "*.pt", "*.pth") for file in folder.glob(kind))
    return f" ({names[0]} is a pickle, which is not read)" if names else ""


def _json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds; ValueError where a name in it has two values."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = dict(pairs)
        if len(names) < len(pairs):
            twice = next(name for name in names if sum(name == key for key, _ in pairs) > 1)
            raise ValueError(f"{path} has {twice!r} twice; allowed: once")
        return names

    document = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
    if not isinstance(document, dict):
        raise ValueError(f"{path} holds a {type(document).__name__}; allowed: an object")
    return document


def _weights(folder: Path, config: LlamaConfig) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors in float32 and their number formats, by name."""
    weights: dict[str, Tensor] = {}
    formats: dict[str, str] = {}
    sources: dict[str, Path] = {}
    size = 0
    shards, total = _shards(folder)
    for shard, wanted in shards.items():
        with reading(shard), safe_open(shard, framework="pt") as file:
            names = set(file.keys())
            if wanted is not None and names != wanted:
                wrong = min(names ^ wanted)
                raise ValueError(
                    f"{shard} {'lacks' if wrong in wanted else 'holds'} {wrong}; allowed: the "
                    "tensors that the folder's index names for this file, all and no others"
                )
            for name in sorted(names):
                if name in sources:
                    raise ValueError(
                        f"{shard} holds {name}, and so does {sources[name].name}; allowed: one "
                        f"file for each tensor, or an index (model{INDEX}) that says which"
                    )
                sources[name] = shard
                kind = file.get_slice(name).get_dtype()
                if kind not in FLOATS:
                    refuse(shard, name, kind, f"the number formats {sorted(FLOATS)}")
                tensor = file.get_tensor(name)
                size += tensor.nbytes
                if name.endswith("rotary_emb.inv_freq"):  # in old files: config.json says the same
                    _check_frequencies(shard, name, tensor, config)
                else:
                    weights[name], formats[name] = tensor.float(), kind
    if total is not None and total != size:
        raise ValueError(
            f"{folder}: the index says that the tensors take {total} bytes (total_size), and they "
            f"take {size}; allowed: the same"
        )
    return weights, formats


def _check_frequencies(shard: Path, name: str, tensor: Tensor, config: LlamaConfig) -> None:
    frequencies = np.array(config.rope_frequencies)
    stored = tensor.double().numpy()
    if stored.shape != frequencies.shape or not np.allclose(stored, frequencies, 1e-2, 1e-7):
        refuse(shard, name, stored.tolist(), "the frequencies that config.json says")


def _shards(folder: Path) -> tuple[dict[Path, set[str] | None], int | None]:
    """The files to read, each with the tensors that the index names for it, and their bytes."""
    indexes = sorted(folder.glob(f"*{INDEX}"))
    if not indexes:
        files = sorted(folder.glob("*.safetensors"))
        _check_complete(folder, [file.name for file in files])
        return dict.fromkeys(files), None
    if len(indexes) > 1:
        names = ", ".join(index.name for index in indexes)
        raise ValueError(f"{folder} has several indexes: {names}; allowed: one")
    (index,) = indexes
    with reading(index):
        document = _json(index)
        places = document.get("weight_map")
        if not isinstance(places, dict) or not places:
            refuse(index, "weight_map", places, "an object that names a file for each tensor")
        shards: dict[Path, set[str] | None] = {}
        wanted: defaultdict[str, set[str]] = defaultdict(set)
        for tensor, name in places.items():
            if not isinstance(name, str) or not re.fullmatch(r"[^/\\:\0]+\.safetensors", name):
                refuse(index, tensor, name, "the name of a .safetensors file beside the index")
            wanted[name].add(tensor)
        whole_file = index.name.removesuffix(".index.json")
        if whole_file not in wanted and (folder / whole_file).exists():
            raise ValueError(
                f"{index} does not name {whole_file}, which is beside it; allowed: one of them"
            )
        for name, tensors in sorted(wanted.items()):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{index} names {name}, which is not there")
            shards[folder / name] = tensors
        return shards, _total_size(index, document.get("metadata"))


def _total_size(index: Path, metadata: Any) -> int | None:
    if metadata is None:
        return None
    if not isinstance(metadata, dict):
        refuse(index, "metadata", metadata, "an object")
    total = metadata.get("total_size")
    if total is None:
        return None
    if type(total) not in (int, float) or not 0 < total < math.inf:
        refuse(index, "total_size", total, "a number of bytes")
    return int(total)


def _check_complete(folder: Path, names: list[str]) -> None:
    """Without an index, `x-00001-of-00003.safetensors` needs two others."""
    for name in names:
        part = re.fullmatch(r"(.*-)(\d+)-of-(\d+)(\.safetensors)", name)
        if part is None:
            continue
        start, number, count, end = part.groups()
        parts = {f"{start}{i:0{len(number)}}-of-{count}{end}" for i in range(1, len(names) + 1)}
        if int(count) != len(names) or set(names) != parts:
            raise ValueError(
                f"{folder} has {name} of {int(count)} files, and the files {', '.join(names)}; "
                f"allowed: all {int(count)} and no others, or an index (model{INDEX})"
            )


def _config(path: Path, stored: dict[str, Any]) -> LlamaConfig:
    for key, only in ONLY.items():
        if stored.get(key) != only:
            refuse(path, key, stored.get(key), repr(only))
    stored = {key: value for key, value in stored.items() if value is not None}  # null: not given
    kinds = stored.get("layer_types")
    full = ["full_attention"] * len(kinds) if isinstance(kinds, list) else "full_attention each"
    honoured = {*ONLY, *SIZES, *ROPE, *WITHOUT_EFFECT}
    check_keys(path, stored, honoured, {**NEUTRAL, "layer_types": full})

    def size(key: str, default: int | None = None, largest: int = LARGEST_SIZE) -> int:
        value = stored.get(key, default)
        if value is None:
            raise ValueError(f"{path} lacks the key {key!r}")
        return whole(path, key, value, largest)

    if "rms_norm_eps" not in stored:
        raise ValueError(f"{path} lacks the key 'rms_norm_eps'")
    tied = stored.get("tie_word_embeddings", False)
    if type(tied) is not bool:
        refuse(path, "tie_word_embeddings", tied, "true or false")
    hidden, heads = size("hidden_size"), size("num_attention_heads")
    if "head_dim" not in stored and hidden % heads:
        refuse(path, "num_attention_heads", heads, f"a divisor of hidden_size={hidden}")
    head_dim = size("head_dim", hidden // heads, LARGEST_HEAD)
    return LlamaConfig(
        vocab_size=size("vocab_size"),
        hidden_size=hidden,
        intermediate_size=size("intermediate_size"),
        num_hidden_layers=size("num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=size("num_key_value_heads", heads),
        head_dim=head_dim,
        max_position_embeddings=size("max_position_embeddings"),
        rms_norm_eps=positive(path, "rms_norm_eps", stored["rms_norm_eps"]),
        rope_frequencies=tuple(_scaled_frequencies(path, _rope(path, stored), head_dim).tolist()),
        rope_layout="half",
        tie_word_embeddings=tied,
    )


def _rope(path: Path, stored: dict[str, Any]) -> dict[str, Any]:
    """The rotation's keys, wherever they are: rope_parameters is the newer name of the others."""
    rope: dict[str, Any] = {}
    for place in ROPE:
        part = stored.get(place, {})
        if place == "rope_theta":
            part = {place: part} if place in stored else {}
        if not isinstance(part, dict):
            refuse(path, place, part, "an object of names and values, or null")
        for key, value in part.items():
            key = "rope_type" if key == "type" else key  # its older name
            if value is not None and rope.setdefault(key, value) != value:
                refuse(path, f"{key} in {place}", value, f"{rope[key]!r}, as the file says before")
    return {"rope_theta": 10000.0, "rope_type": "default", **rope}


def _scaled_frequencies(path: Path, rope: dict[str, Any], head_dim: int) -> NDArray[np.float64]:
    """RoPE's frequencies, with the scaling that the file asks for.

    Linear scaling divides all by `factor`. Llama 3's: a pair that makes `turns` turns in the
    original context keeps its frequency where turns is at least high_freq_factor, has it divided
    by `factor` where at most low_freq_factor, and a linear mixture of the two between.
    """
    kind = rope["rope_type"]
    if not isinstance(kind, str) or kind not in SCALINGS:
        refuse(
            path, "rope_type", kind,
            "no RoPE scaling ('default'), linear ('linear') and Llama 3's ('llama3')",
        )  # fmt: skip
    keys = SCALINGS[kind]
    neutral = {"partial_rotary_factor": 1.0}
    check_keys(path, rope, {"rope_theta", "rope_type", *keys}, neutral)
    if missing := keys - rope.keys():
        raise ValueError(f"{path} lacks the key {min(missing)!r}, which rope_type={kind!r} needs")
    scaling = {key: positive(path, key, rope[key]) for key in keys}
    frequencies = rope_frequencies(positive(path, "rope_theta", rope["rope_theta"]), head_dim)
    if kind == "default":
        return frequencies
    if kind == "linear":
        return frequencies / scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    if low >= high:
        refuse(path, "low_freq_factor", low, f"less than high_freq_factor={high}")
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    share = np.clip((turns - low) / (high - low), 0, 1)
    return np.asarray(share * frequencies + (1 - share) * frequencies / scaling["factor"])
