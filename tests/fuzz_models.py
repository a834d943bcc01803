"""Files of networks and matrices with one change of meaning: `CASES`, of `fuzz.py`.

A case builds a file, changes one thing in it, and knows by a slow formula what the file then means.
Reading it must be refused, or give the logits (or the matrix) of that formula.
"""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from test_llama import (
    CONFIG,
    FREQUENCIES,
    HEAD_DIM,
    INDEX,
    INFORMATION,
    KEYS,
    LAYERS,
    LLAMA3,
    OLDER,
    SHARDS,
    VOCABULARY,
    assert_close,
    keys_of_the_format,
    logits,
    make_weights,
    oracle,
    write_folder,
    write_gguf,
    write_indexed,
)

from lrqmm.bench.data.matrices import InputError, matrix_shape, read_matrix
from lrqmm.bench.networks.llama.model import load_llama

Check = Callable[[], None]
TEXT = [5, 200, 17, 3, 99]
WEIGHTS = make_weights()
ODD = (
    *(0, 1, -1, 3, 8, 2**31, 0.0, 1.0, -1.0, 0.5, 2.5, 500.0, math.nan, math.inf, True, False),
    *("x", "none", "linear", "yarn", [3, 3], [0.5], None),
)


def positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf


def same(value: Any, other: Any) -> bool:
    return isinstance(value, bool) == isinstance(other, bool) and value == other


def expect(source: Path, meaning: dict[str, Any] | None, about: str, weights=WEIGHTS) -> Check:
    """That the source is refused, or gives the oracle's logits; None: it has to be refused."""

    def check() -> None:
        loaded = load_llama(source)
        assert meaning is not None, f"{about} was read"
        if loaded.model.config.max_position_embeddings >= len(TEXT):
            assert_close(logits(loaded, TEXT), oracle(weights, TEXT, **meaning))

    return check


# GGUF: keys, tensors

GGUF_KEYS = (
    *(f"llama.{key}" for key in keys_of_the_format()),
    *("llama.rope.scale_linear", "llama.newer", "general.type", "general.quantization_version"),
    *("general.alignment", "general.name", "split.count", "split.no", "split.tensors.count"),
    *("adapter.type", "diffusion.shift_logits", "tokenizer.ggml.add_space_prefix"),
    *("tokenizer.ggml.precompiled_charsmap", "tokenizer.ggml.bos_token_id", "rope.freq_base"),
    *KEYS,
)
NEUTRAL = {
    "general.type": ["model"], "general.quantization_version": [2],
    "split.count": [1], "split.no": [0], "tokenizer.ggml.add_space_prefix": [False],
    "llama.use_parallel_residual": [False], "llama.attention.causal": [True],
    "llama.attention.key_length": [HEAD_DIM], "llama.attention.value_length": [HEAD_DIM],
    "llama.rope.dimension_count": [HEAD_DIM], "llama.vocab_size": [VOCABULARY],
    "llama.rope.scaling.type": ["none", "linear"], "llama.pooling_type": [0],
    **{f"llama.{key}": [0] for key in (
        "expert_count", "expert_used_count", "expert_shared_count", "attn_logit_softcapping",
        "final_logit_softcapping", "attention.clamp_kqv", "attention.max_alibi_bias",
        "attention.sliding_window",
    )},
    **{f"llama.{key}": [1] for key in (
        "logit_scale", "residual_scale", "embedding_scale", "rope.scaling.attn_factor",
    )},
}  # fmt: skip


def meaning_of_gguf(key: str, value: Any) -> dict[str, Any] | None:
    """The oracle's arguments for a file in which one key has this value, None where it is wrong."""
    if key in ("general.name", "general.alignment", "tokenizer.ggml.bos_token_id") or (
        key.removeprefix("llama.") in INFORMATION
    ):
        return {}
    if any(same(value, neutral) for neutral in NEUTRAL.get(key, [])):
        return {}
    if key == "llama.rope.freq_base" and (value is None or positive(value)):
        theta = 10000.0 if value is None else float(np.float32(value))
        return {"frequencies": theta ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM)}
    if key in ("llama.rope.scaling.factor", "llama.rope.scale_linear") and positive(value):
        return {"frequencies": FREQUENCIES / value}
    if key == "llama.attention.layer_norm_rms_epsilon" and positive(value):
        return {"eps": float(np.float32(value))}
    if key == "llama.context_length" and type(value) is int and 0 < value < 2**31:
        return {}
    if value is None and key not in KEYS:
        return {}  # it was not there
    return {} if key in KEYS and same(value, KEYS[key]) and value is not None else None


def gguf_keys(rng: random.Random, folder: Path) -> tuple[Path, Check]:
    key, value = rng.choice(GGUF_KEYS), rng.choice(ODD)
    if rng.random() < 0.3:  # the keys that are honoured, more often
        key = rng.choice([name for name in GGUF_KEYS if "rope" in name or "eps" in name])
    if rng.random() < 0.2 and key in NEUTRAL:
        value = rng.choice(NEUTRAL[key])
    if key == "general.alignment":
        value = rng.choice((0, 1, 3, 8, 16, 32, 64, 4096, "32"))
    path = write_gguf(folder / "keys.gguf", WEIGHTS, **{key: value})
    return path, expect(path, meaning_of_gguf(key, value), f"{key}={value!r}")


def gguf_tensors(rng: random.Random, folder: Path) -> tuple[Path, Check]:
    kind = rng.choice(("other", "offset", "shape", "type", "order", "version", "split"))
    path = folder / "tensors.gguf"
    if kind == "other":
        names = (
            "attn_q.bias",
            "attn_q_norm.weight",
            "ffn_gate_exps.weight",
            "attn_rot_embd.weight",
        )
        name = rng.choice(
            (*(f"blk.0.{name}" for name in names), "x", "a.0.attn_q.weight", "x.weight")
        )
        write_gguf(path, WEIGHTS, others={name: np.zeros((4, 4), np.float32)})
        return path, expect(path, None, name)
    if kind == "order":
        write_gguf(path, WEIGHTS, endianess=gguf.GGUFEndian.BIG)
        return path, expect(path, None, "big-endian")
    if kind == "split":
        path = write_gguf(folder / "tensors-00001-of-00002.gguf", WEIGHTS)
        return path, expect(path, None, path.name)
    write_gguf(path, WEIGHTS)
    reader = gguf.GGUFReader(path, "r+")
    if kind == "version":
        data = reader.data
        data[4 + rng.randrange(4)] = rng.randrange(256)
        data.flush()
        return path, expect(path, {}, "the version")
    tensor = rng.choice([*reader.tensors, reader.tensors[-1]])
    _, _, _, dims, code, offset = tensor.field.parts
    if kind == "offset":
        offset[0] = rng.choice((int(offset[0]) + 32, 0, 64, 2**63, 2**64 - 32, int(offset[0])))
    elif kind == "shape":
        dims[:] = rng.choice((dims[::-1].copy(), dims * 2, dims // 2, dims * 0, dims * 2**40))
    else:
        code[0] = rng.choice([int(code) for code in gguf.GGMLQuantizationType])
    reader.data.flush()
    return path, expect(path, {}, f"{kind} of {tensor.name}")


# folders: config.json, the index, headers, values

ROPE_KEYS = (*LLAMA3, "type", "rope_theta", "attention_factor", "partial_rotary_factor", "newer")
CONFIG_KEYS = (
    *CONFIG,
    *("num_key_value_heads", "head_dim", "tie_word_embeddings", "attention_bias", "mlp_bias"),
    *("sliding_window", "layer_types", "no_rope_layers", "partial_rotary_factor", "architectures"),
    *("attention_multiplier", "logits_scaling", "residual_multiplier", "embedding_multiplier"),
    *("final_logit_softcapping", "num_local_experts", "quantization_config", "is_causal"),
    *("rope_interleaved", "use_qk_norm", "clip_qkv", "pretraining_tp", "torch_dtype", "newer"),
)
CONFIG_NEUTRAL = {
    "num_key_value_heads": [2], "head_dim": [HEAD_DIM, None], "tie_word_embeddings": [False],
    "attention_bias": [False], "mlp_bias": [False], "partial_rotary_factor": [1],
    "logits_scaling": [1], "residual_multiplier": [1], "embedding_multiplier": [1],
    "is_causal": [True], "rope_interleaved": [False], "architectures": [["LlamaForCausalLM"]],
    "layer_types": [["full_attention"] * LAYERS],
}  # fmt: skip


def frequencies_of(rope: dict[str, Any], theta: float) -> np.ndarray | None:
    """By transformers' formulas, pair by pair; None where the dictionary is not theirs."""
    rope = {key: value for key, value in rope.items() if value is not None}
    kinds = {rope.pop(key) for key in ("rope_type", "type") if key in rope}
    if not kinds <= {"default", "linear", "llama3"} or len(kinds) > 1:
        return None
    if "rope_theta" in rope and rope.pop("rope_theta") != theta:
        return None
    if not same(rope.pop("partial_rotary_factor", 1), 1):
        return None
    kind = kinds.pop() if kinds else "default"
    wanted = {"default": (), "linear": ("factor",), "llama3": tuple(LLAMA3)[1:]}[kind]
    if set(rope) != set(wanted) or not all(positive(rope[key]) for key in wanted):
        return None
    found = theta ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    if kind == "linear":
        return found / rope["factor"]
    if kind == "llama3":
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        context = rope["original_max_position_embeddings"]
        if low >= high:
            return None
        for i, frequency in enumerate(found):
            length = 2 * math.pi / frequency
            if length > context / low:
                found[i] = frequency / rope["factor"]
            elif length >= context / high:
                part = (context / length - low) / (high - low)
                found[i] = (1 - part) * frequency / rope["factor"] + part * frequency
    return found


def config_keys(rng: random.Random, folder: Path) -> tuple[Path, Check]:
    folder = folder / "config"
    if rng.random() < 0.4:
        start = rng.choice(
            (LLAMA3, {"type": "linear", "factor": 2.0}, {"rope_type": "default"}, {})
        )
        rope: dict[str, Any] = dict(start)
        for _ in range(rng.choice((0, 1, 1, 2))):
            rope[rng.choice(ROPE_KEYS)] = rng.choice((*ODD[:-3], None, "llama3", "default", 1000.0))
        key = rng.choice(("rope_scaling", "rope_parameters"))
        write_folder(folder, WEIGHTS, **{key: rope})
        kinds = (rope.get("rope_type", ""), rope.get("type", ""))
        words = all(isinstance(kind, str | None) for kind in kinds)
        found = frequencies_of(rope, CONFIG["rope_theta"]) if words else None
        return folder, expect(folder, None if found is None else {"frequencies": found}, str(rope))
    key, value = rng.choice(CONFIG_KEYS), rng.choice((*ODD, {}, {"bits": 4}, "silu", "llama"))
    if rng.random() < 0.2 and key in CONFIG_NEUTRAL:
        value = rng.choice(CONFIG_NEUTRAL[key])
    write_folder(folder, WEIGHTS, **{key: value})
    meaning: dict[str, Any] | None = None
    if key in ("pretraining_tp", "torch_dtype"):
        meaning = {}
    elif key == "rope_theta" and (value is None or positive(value)):
        theta = 10000.0 if value is None else value
        meaning = {"frequencies": theta ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM)}
    elif key == "rms_norm_eps" and positive(value):
        meaning = {"eps": float(value)}
    elif (key == "max_position_embeddings" and type(value) is int and 0 < value < 2**31) or (
        any(same(value, neutral) for neutral in CONFIG_NEUTRAL.get(key, []))
        or (key in CONFIG and same(value, CONFIG[key]))
        or (value is None and key not in CONFIG and key != "num_key_value_heads")
    ):
        meaning = {}
    return folder, expect(folder, meaning, f"{key}={value!r}")


def index_entries(rng: random.Random, folder: Path) -> tuple[Path, Check]:
    """Older shards lie beside; whatever is changed, the index's files are read, or none."""
    folder = folder / "index"
    if folder.exists():
        for file in folder.iterdir():
            file.unlink()
    write_indexed(folder, WEIGHTS)
    older = {name: 1.1 * weight for name, weight in WEIGHTS.items()}
    for part, name in enumerate(OLDER):
        save_file(dict(list(older.items())[part::3]), folder / name)
    index = json.loads((folder / INDEX).read_text())
    places = index["weight_map"]
    tensor, kind = rng.choice(list(places)), rng.randrange(12)
    if kind == 0:
        del places[tensor]
    elif kind == 1:
        places[tensor] = rng.choice((*OLDER, *SHARDS))
    elif kind == 2:
        places[tensor] = rng.choice(("../x.safetensors", "/x.safetensors", "x", "", 3, None, ["x"]))
    elif kind == 3:
        places[rng.choice(("x", tensor + "_scale", tensor.upper()))] = rng.choice(SHARDS)
    elif kind == 4:
        other = dict(zip(SHARDS, SHARDS[::-1], strict=True))
        index["weight_map"] = {name: other[place] for name, place in places.items()}
    elif kind == 5:
        index["metadata"] = rng.choice((None, {}, [], {"total_size": rng.choice(ODD)}))
    elif kind == 6:
        (folder / rng.choice(SHARDS)).unlink()
    elif kind == 7:
        save_file(older, folder / "model.safetensors")
    elif kind == 8:
        (folder / INDEX).rename(folder / rng.choice(("index.json", "other.safetensors.index.json")))
    elif kind == 9:
        index["weight_map"] = rng.choice((None, {}, [], "x", 3, {tensor: places[tensor]}))
    elif kind == 10:
        first, second = SHARDS if rng.random() < 0.5 else (SHARDS[0], OLDER[0])
        (folder / first).write_bytes((folder / second).read_bytes())
    if kind != 8:
        (folder / INDEX).write_text(json.dumps(index))
    return folder, expect(folder, {}, f"change {kind} of the index")


def headers(rng: random.Random, folder: Path) -> tuple[Path, Check]:
    folder = write_folder(folder / "header", WEIGHTS)
    path = folder / "model.safetensors"
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    name = rng.choice([name for name in header if name != "__metadata__"])
    entry, kind = header[name], rng.randrange(5)
    if kind == 0:
        entry["dtype"] = rng.choice(("I32", "U32", "F16", "BF16", "F64", "F8_E4M3", "C64", "x"))
    elif kind == 1:
        entry["dtype"] = rng.choice(("F16", "BF16"))
        entry["shape"][0] *= 2
    elif kind == 2:
        entry["shape"] = rng.choice((entry["shape"][::-1], [*entry["shape"], 1], [], [0], [-1, 4]))
    elif kind == 3:
        start, end = entry["data_offsets"]
        shift = rng.choice((4, -4, 2**40))
        entry["data_offsets"] = [start + shift, end + rng.choice((0, shift))]
    else:
        header[rng.choice((name + "_scale", "x", name.replace("weight", "bias")))] = header.pop(
            name
        )
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    return folder, expect(folder, {}, f"the header of {name}")


def values(rng: random.Random, folder: Path) -> tuple[Path, Check]:
    name = rng.choice(list(WEIGHTS))
    weights = {**WEIGHTS, name: WEIGHTS[name].clone()}
    weights[name].view(-1)[rng.randrange(WEIGHTS[name].numel())] = rng.choice(
        (math.nan, math.inf, -math.inf)
    )
    if rng.random() < 0.5:
        source = write_gguf(folder / "values.gguf", weights)
    else:
        weights[name] = weights[name].to(rng.choice((torch.float16, torch.bfloat16, torch.float64)))
        source = write_folder(folder / "values", weights)
    return source, expect(source, None, f"{name} with a value that is not finite")


# matrices

BYTES = {
    **{"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1},
    **{"BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F4": 0.5, "C64": 8, "x": 4},
}
DTYPES = ("<f4", ">f4", "<f8", ">f8", "<f2", ">f2", "<i4", ">i4", "|i1", "|b1", "<c8", "|V2", "<U1")


def bits(rng: random.Random, count: int) -> bytes:
    """Random bytes, mostly such that no float of them is large, whatever its format and order."""
    data = rng.randbytes(count)
    return data if rng.random() < 0.2 else bytes(byte & 0b10111111 for byte in data)


def matrices(rng: random.Random, folder: Path) -> tuple[Path, Check]:
    """Random bits under every number format, in every container."""
    shape = rng.choice(
        ((4, 6), (1, 2), (6, 4), (5, 1), (7, 3), (9, 9), (24,), (2, 3, 4), (0, 4), ())
    )
    count = math.prod(shape)
    want: np.ndarray | None = None
    if rng.random() < 0.5:
        path, kind = folder / "m.safetensors", rng.choice([*BYTES, "BF16", "F16", "F32"])
        data = bits(rng, int(count * BYTES[kind]))
        entry = {"dtype": kind, "shape": shape, "data_offsets": [0, len(data)]}
        text = json.dumps({"w": entry}).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)
        if kind == "BF16":
            want = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
        elif kind in ("F64", "F32", "F16"):
            want = np.frombuffer(data, f"<f{BYTES[kind]}").reshape(shape)
    else:
        path, kind = folder / rng.choice(("m.npy", "m.npz")), rng.choice(DTYPES)
        data = bits(rng, count * np.dtype(kind).itemsize)
        if kind == "<U1":
            data = bytes(len(data))
        array = np.frombuffer(data, kind).reshape(shape)
        (np.save if path.suffix == ".npy" else np.savez)(path, array)
        want = array if np.dtype(kind).kind == "f" else None
    if want is not None and (want.ndim != 2 or 0 in want.shape):
        want = None

    def check() -> None:
        try:
            assert matrix_shape(str(path)) == shape, f"the shape of {kind} is another"
        except InputError as error:
            if want is not None:
                raise AssertionError(f"{kind} of shape {shape} was refused") from error
        else:
            assert want is not None, f"{kind} of shape {shape} was planned"
        found = read_matrix(str(path))
        assert want is not None, f"{kind} of shape {shape} was read"
        np.testing.assert_array_equal(found, want.astype(np.float32))

    return path, check


CASES = {
    function.__name__: function
    for function in (gguf_keys, gguf_tensors, config_keys, index_entries, headers, values, matrices)
}
