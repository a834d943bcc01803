"""LLaMA networks: from GGUF and safetensors alike, against a slow oracle, and the packaged one."""

import dataclasses
import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from lrqmm.bench.data.text import read_text, windows
from lrqmm.bench.networks.llama.files import format_name
from lrqmm.bench.networks.llama.gguf import NAMES, WORDS
from lrqmm.bench.networks.llama.model import Llama, LoadedLlama, load_llama
from lrqmm.products.quantize import Uniform

HEADS, HEAD_DIM, WIDTH, FEED_FORWARD, LAYERS, CONTEXT = 4, 8, 32, 64, 2, 16
THETA, EPS = 1000.0, 1e-5
FREQUENCIES = THETA ** (-2 * np.arange(HEAD_DIM // 2) / HEAD_DIM)
TOKENS = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the", "Ġthe"]
MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the")]
VOCABULARY = len(TOKENS)
CONFIG = {
    "model_type": "llama",
    "hidden_act": "silu",
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": FEED_FORWARD,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": EPS,
    "rope_theta": THETA,
}
MODEL, PRE = "tokenizer.ggml.model", "tokenizer.ggml.pre"
KEYS = {
    "llama.embedding_length": WIDTH,
    "llama.feed_forward_length": FEED_FORWARD,
    "llama.block_count": LAYERS,
    "llama.attention.head_count": HEADS,
    "llama.context_length": CONTEXT,
    "llama.attention.layer_norm_rms_epsilon": EPS,
    "llama.rope.freq_base": THETA,
    MODEL: "gpt2",
    PRE: "smollm",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": [int(gguf.TokenType.CONTROL)] + [1] * (VOCABULARY - 1),
    "tokenizer.ggml.merges": [" ".join(merge) for merge in MERGES],
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 100,
}


def make_weights(kv_heads: int = 2, tied: bool = False) -> dict[str, torch.Tensor]:
    """Random weights under Hugging Face's names, of a size that makes attention uneven."""
    rng = torch.Generator().manual_seed(kv_heads)
    shapes = {"model.embed_tokens": (VOCABULARY, WIDTH), "model.norm": (WIDTH,)}
    if not tied:
        shapes["lm_head"] = (VOCABULARY, WIDTH)
    for layer in range(LAYERS):
        shapes |= {
            f"model.layers.{layer}.{name}": shape
            for name, shape in {
                "input_layernorm": (WIDTH,),
                "self_attn.q_proj": (HEADS * HEAD_DIM, WIDTH),
                "self_attn.k_proj": (kv_heads * HEAD_DIM, WIDTH),
                "self_attn.v_proj": (kv_heads * HEAD_DIM, WIDTH),
                "self_attn.o_proj": (WIDTH, HEADS * HEAD_DIM),
                "post_attention_layernorm": (WIDTH,),
                "mlp.gate_proj": (FEED_FORWARD, WIDTH),
                "mlp.up_proj": (FEED_FORWARD, WIDTH),
                "mlp.down_proj": (WIDTH, FEED_FORWARD),
            }.items()
        }
    return {
        f"{name}.weight": torch.randn(shape, generator=rng) / 3 + (len(shape) == 1)
        for name, shape in shapes.items()
    }


def write_folder(folder: Path, weights: dict[str, torch.Tensor], **changes) -> Path:
    """A Hugging Face folder; each change replaces a key of config.json, or drops it (None)."""
    folder.mkdir(exist_ok=True)
    kv_heads = len(weights["model.layers.0.self_attn.k_proj.weight"]) // HEAD_DIM
    tied = "lm_head.weight" not in weights
    config = {**CONFIG, "num_key_value_heads": kv_heads, "tie_word_embeddings": tied, **changes}
    config = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")
    bpe = models.BPE(vocab={token: index for index, token in enumerate(TOKENS)}, merges=MERGES)
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer, tokenizer.decoder = WORDS["smollm"], decoders.ByteLevel()
    tokenizer.add_special_tokens(TOKENS[:1])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def add_key(writer: gguf.GGUFWriter, key: str, value) -> None:
    """Integers as 32 bits where that is enough, floats as 32 bits."""
    kind = gguf.GGUFValueType.get_type(value)
    if kind == gguf.GGUFValueType.INT32:
        kind = gguf.GGUFValueType.UINT32 if 0 <= value < 2**32 else gguf.GGUFValueType.INT64
    writer.add_key_value(key, value, kind)


def permuted(weight: torch.Tensor) -> torch.Tensor:
    """Rows of q_proj or k_proj as GGUF orders them: pair i, i + d/2 becomes 2i, 2i + 1."""
    heads = weight.reshape(-1, 2, HEAD_DIM // 2, weight.shape[1])
    return heads.transpose(1, 2).reshape(weight.shape).contiguous()


def write_gguf(
    path: Path,
    weights: dict[str, torch.Tensor],
    architecture: str = "llama",
    quantization: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    rope_factors: np.ndarray | None = None,
    others: dict[str, np.ndarray] | None = None,
    endianess: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE,
    **changes,
) -> Path:
    """A GGUF file; each change sets a key, with "__" for its dots, or drops it (None).

    `others` are tensors by their GGUF names.
    """
    writer = gguf.GGUFWriter(path, architecture, endianess=endianess)
    kv_heads = len(weights["model.layers.0.self_attn.k_proj.weight"]) // HEAD_DIM
    named = {
        {"model": MODEL, "pre": PRE}.get(key, key.replace("__", ".")): value
        for key, value in changes.items()
    }
    for key, value in ({**KEYS, "llama.attention.head_count_kv": kv_heads} | named).items():
        if value is not None:
            add_key(writer, key, value)
    ours = {theirs: name for name, theirs in NAMES.items()}
    for name, weight in weights.items():
        *block, kind = name.removesuffix(".weight").removeprefix("model.layers.").split(".", 1)
        kind = kind if block and block[0].isdecimal() else name.removesuffix(".weight")
        prefix = f"blk.{block[0]}." if kind != name.removesuffix(".weight") else ""
        if kind in ("self_attn.q_proj", "self_attn.k_proj"):
            weight = permuted(weight)
        array = weight.numpy()
        name = f"{prefix}{ours.get(kind, kind)}.weight"
        if array.ndim == 2 and quantization != gguf.GGMLQuantizationType.F32:
            coded = gguf.quants.quantize(array, quantization)
            writer.add_tensor(name, coded, raw_dtype=quantization)
        else:
            writer.add_tensor(name, array)
    for name, array in (others or {}).items():
        writer.add_tensor(name, array)
    if rope_factors is not None:
        writer.add_tensor("rope_freqs.weight", rope_factors.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def oracle(
    weights: dict[str, torch.Tensor],
    tokens: list[int],
    frequencies: np.ndarray = FREQUENCIES,
    eps: float = EPS,
) -> np.ndarray:
    """Logits, in float64: every head, token and pair of elements by itself."""
    w = {name.removesuffix(".weight"): tensor.double().numpy() for name, tensor in weights.items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * w[name]

    def turned(x: np.ndarray) -> np.ndarray:
        out = x.copy()
        for position in range(len(x)):
            for i in range(HEAD_DIM // 2):
                j = i + HEAD_DIM // 2
                z = np.exp(1j * position * frequencies[i])
                z *= x[position, i] + 1j * x[position, j]
                out[position, i], out[position, j] = z.real, z.imag
        return out

    x = w["model.embed_tokens"][tokens]
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        z = norm(x, f"{name}.input_layernorm")
        q, k, v = (
            np.split(z @ p.T, len(p) // HEAD_DIM, axis=1)
            for p in (w[f"{name}.self_attn.{kind}_proj"] for kind in "qkv")
        )
        heads = []
        for head in range(HEADS):
            shared = head * len(k) // HEADS
            turned_q, turned_k = turned(q[head]), turned(k[shared])
            rows = []
            for t in range(len(tokens)):
                scores = np.exp(turned_q[t] @ turned_k[: t + 1].T / np.sqrt(HEAD_DIM))
                rows.append(scores / scores.sum() @ v[shared][: t + 1])
            heads.append(np.array(rows))
        x = x + np.concatenate(heads, axis=1) @ w[f"{name}.self_attn.o_proj"].T
        z = norm(x, f"{name}.post_attention_layernorm")
        gate = z @ w[f"{name}.mlp.gate_proj"].T
        gated = gate / (1 + np.exp(-gate)) * (z @ w[f"{name}.mlp.up_proj"].T)
        x = x + gated @ w[f"{name}.mlp.down_proj"].T
    return norm(x, "model.norm") @ w.get("lm_head", w["model.embed_tokens"]).T


def logits(loaded: LoadedLlama, tokens: list[int]) -> np.ndarray:
    return loaded.model(torch.tensor([tokens]))[0].numpy()


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    """To float32's rounding errors in two layers."""
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


SOME = [5, 200, 17, 17, 3, 99, 0, 258]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_both_files_give_the_oracles_logits(tmp_path: Path, kv_heads: int, tied: bool):
    weights = make_weights(kv_heads, tied)
    want = oracle(weights, SOME)
    for source in (
        write_folder(tmp_path / "folder", weights),
        write_gguf(tmp_path / "file.gguf", weights),
    ):
        loaded = load_llama(source)
        assert loaded.reference == "F32"
        assert_close(logits(loaded, SOME), want)


def test_layouts_need_their_permutation(tmp_path: Path):
    """Unpermuted rows in the interleaved layout are another network: the test above can fail."""
    folder = load_llama(write_folder(tmp_path / "folder", make_weights()))
    config = dataclasses.replace(folder.model.config, rope_layout="interleaved")
    other = Llama(config)
    other.load_state_dict(folder.model.state_dict())
    difference = other(torch.tensor([SOME])) - folder.model(torch.tensor([SOME]))
    assert difference[0, 0].abs().max() < 1e-5  # position 0 is not turned
    assert difference[0, 1:].abs().max() > 1e-2


def test_batch_and_causality(tmp_path: Path):
    model = load_llama(write_folder(tmp_path / "folder", make_weights())).model
    tokens = torch.tensor([SOME, SOME[::-1]])
    both = model(tokens)
    assert both.shape == (2, len(SOME), VOCABULARY)
    assert both.dtype == torch.float32
    torch.testing.assert_close(both[1:], model(tokens[1:]))
    tokens[:, 5:] = 1  # later tokens
    changed = model(tokens)
    torch.testing.assert_close(changed[:, :5], both[:, :5])
    assert (changed[:, 5:] - both[:, 5:]).abs().max() > 0.1
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_linear_layers_have_hugging_faces_names(tmp_path: Path):
    model = load_llama(write_gguf(tmp_path / "file.gguf", make_weights(tied=True))).model
    found = [name for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)]
    projections = [f"self_attn.{kind}_proj" for kind in "qkvo"]
    projections += [f"mlp.{kind}_proj" for kind in ("gate", "up", "down")]
    expected = [f"model.layers.{layer}.{name}" for layer in range(LAYERS) for name in projections]
    assert found == [*expected, "lm_head"]
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_shards_and_short_floats(tmp_path: Path):
    weights = {name: tensor.bfloat16() for name, tensor in make_weights().items()}
    folder = write_folder(tmp_path / "folder", weights)
    names = sorted(weights)
    (folder / "model.safetensors").unlink()
    for part in (0, 1):
        shard = {name: weights[name] for name in names[part::2]}
        save_file(shard, folder / f"model-0000{part + 1}-of-00002.safetensors")
    loaded = load_llama(str(folder))
    assert loaded.reference == "BF16"
    assert_close(logits(loaded, SOME), oracle(weights, SOME))


def test_dequantised_and_named_so(tmp_path: Path):
    weights = make_weights()
    kind = gguf.GGMLQuantizationType.Q8_0
    loaded = load_llama(write_gguf(tmp_path / "file.gguf", weights, quantization=kind))
    assert loaded.reference == "Q8_0 dequantised (norms F32)"
    rounded = {
        name: torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(w.numpy(), kind), kind))
        if w.ndim == 2
        else w
        for name, w in weights.items()
    }
    assert_close(logits(loaded, SOME), oracle(rounded, SOME))


def test_names_of_formats():
    mixed = {"model.layers.0.a": "Q4_K", "model.layers.1.a": "Q6_K", "model.norm": "F32"}
    mixed |= {"model.embed_tokens": "Q6_K", "lm_head": "F16"}
    said = "Q4_K+Q6_K dequantised (embeddings Q6_K, lm_head F16, norms F32)"
    assert format_name(mixed) == said
    assert format_name({"model.layers.0.a": "F16", "model.layers.0.b_norm": "F32"}) == (
        "F16 (norms F32)"
    )


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_llama3_scaling(tmp_path: Path, key: str):
    """Turns in 100 tokens 15.9, 2.8, .5, .09: kept, mixed, divided by 8, divided by 8."""
    weights = make_weights()
    scaled = write_folder(
        tmp_path / "folder", weights, rope_theta=None, **{key: {**LLAMA3, "rope_theta": THETA}}
    )
    plain = THETA ** (-np.arange(4) / 4)
    mixed = (100 * plain[1] / (2 * np.pi) - 1) / 3
    factors = 1 / np.array([1, mixed + (1 - mixed) / 8, 1 / 8, 1 / 8])
    loaded = load_llama(scaled)
    np.testing.assert_allclose(loaded.model.config.rope_frequencies, plain / factors)
    other = load_llama(write_gguf(tmp_path / "file.gguf", weights, rope_factors=factors))
    assert_close(logits(other, SOME), logits(loaded, SOME))
    assert other.reference == "F32"


def test_tokenizers_agree(tmp_path: Path):
    weights = make_weights()
    text = "the thing, 1234 — then\n\n the<|end|>é"
    ids = []
    for source in (
        write_folder(tmp_path / "folder", weights),
        write_gguf(tmp_path / "file.gguf", weights),
    ):
        tokenizer = load_llama(source).tokenizer
        ids.append(tokenizer.encode(text, add_special_tokens=False).ids)
        assert tokenizer.decode(ids[-1], skip_special_tokens=False) == text
    assert ids[0] == ids[1]
    assert [TOKENS[i] for i in ids[0][:2]] == ["the", "Ġ"]
    assert 0 in ids[0]


def test_words_of_llama3():
    words = [word for word, _ in WORDS["llama-bpe"].pre_tokenize_str("I'LL see 12345 (cats)\n")]
    assert words == ["I", "'LL", "Ġsee", "Ġ", "123", "45", "Ġ(", "cats", ")Ċ"]


def test_too_many_tokens(tmp_path: Path):
    model = load_llama(write_folder(tmp_path / "folder", make_weights())).model
    with pytest.raises(ValueError, match=r"tokens has length 17; .* context, 16"):
        model(torch.zeros((1, CONTEXT + 1), dtype=torch.int64))


@pytest.mark.parametrize("token", [-1, VOCABULARY])
def test_tokens_that_have_no_row_are_refused(tmp_path: Path, token: int):
    model = load_llama(write_folder(tmp_path / "folder", make_weights())).model
    with pytest.raises(ValueError, match=f"tokens has {token}; allowed: 0 to {VOCABULARY - 1}, th"):
        model(torch.tensor([[3, token, 5]]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "mistral"}, "config.json has model_type='mistral'; allowed: 'llama'"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'; allowed: 'silu'"),
        ({"rope_scaling": {"type": "yarn", "factor": 2}}, "rope_type='yarn'; allowed: no RoPE"),
        ({"rms_norm_eps": None}, "config.json lacks the key 'rms_norm_eps'"),
        ({"num_hidden_layers": 3}, r"layers.2.input_layernorm.weight .*it is missing.*\(32,\)"),
        ({"num_hidden_layers": 1}, "layers.1.* allowed: no such tensor"),
        ({"intermediate_size": 63}, r"mlp.down_proj.weight of shape \(32, 64\); .*\(32, 63\)"),
    ],
)
def test_folder_of_another_network(tmp_path: Path, changes: dict, said: str):
    folder = write_folder(tmp_path / "folder", make_weights(), **changes)
    with pytest.raises(ValueError, match=said) as caught:
        load_llama(folder)
    assert str(folder) in str(caught.value)


def test_folder_of_integers(tmp_path: Path):
    weights = make_weights()
    weights["lm_head.weight"] = weights["lm_head.weight"].to(torch.int8)
    with pytest.raises(ValueError, match=r"lm_head.weight='I8'; allowed: .*'BF16'"):
        load_llama(write_folder(tmp_path / "folder", weights))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_incomplete_folder(tmp_path: Path, name: str):
    folder = write_folder(tmp_path / "folder", make_weights())
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks .*{name[-11:]}; allowed: a folder with"):
        load_llama(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": "qwen2"}, "general.architecture='qwen2'; allowed: 'llama'"),
        ({"llama__rope__scaling__type": "yarn"}, "scaling.type='yarn'; allowed: 'none'"),
        ({"llama__rope__dimension_count": 4}, "dimension_count=4; allowed: 8, the whole head"),
        ({"model": "llama"}, "tokenizer.ggml.model='llama'; .*tokenizer.json"),
        ({"pre": "qwen2"}, "tokenizer.ggml.pre='qwen2'; .*'smollm'.*tokenizer.json"),
    ],
)
def test_gguf_of_another_network(tmp_path: Path, changes: dict, said: str):
    path = write_gguf(tmp_path / "file.gguf", make_weights(), **changes)
    with pytest.raises(ValueError, match=said) as caught:
        load_llama(path)
    assert str(path) in str(caught.value)


def test_gguf_that_is_broken(tmp_path: Path):
    weights = make_weights()
    path = write_gguf(tmp_path / "file.gguf", weights)
    contents = path.read_bytes()
    for broken in (b"", b"GGUF", b"PK" + contents, contents[:3000], contents[:-5000]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"file.gguf is not a complete GGUF file"):
            load_llama(path)
    del weights["model.norm.weight"]
    with pytest.raises(ValueError, match=r"file.gguf has model.norm.weight .*it is missing"):
        load_llama(write_gguf(path, weights))


def write_shards(folder: Path, weights: dict[str, torch.Tensor], names: list[str]) -> dict:
    """Weights in turn to each of the names, in place of model.safetensors; the index."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    parts = {name: dict(list(weights.items())[i :: len(names)]) for i, name in enumerate(names)}
    for name, part in parts.items():
        save_file(part, folder / name)
    return {
        "metadata": {"total_size": sum(weight.nbytes for weight in weights.values())},
        "weight_map": {tensor: name for name, part in parts.items() for tensor in part},
    }


INDEX = "model.safetensors.index.json"
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
OLDER = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]


def write_indexed(folder: Path, weights: dict[str, torch.Tensor], **changes) -> Path:
    """A folder of two shards; each change replaces an entry of the index."""
    write_folder(folder, weights)
    index = write_shards(folder, weights, SHARDS) | changes
    (folder / INDEX).write_text(json.dumps(index))
    return folder


def test_files_that_the_index_does_not_name_are_not_read(tmp_path: Path):
    weights = make_weights()
    folder = write_indexed(tmp_path / "folder", weights)
    older = {name: 1.1 * weight for name, weight in weights.items()}
    for name, part in zip(OLDER, range(3), strict=True):
        save_file(dict(list(older.items())[part::3]), folder / name)
    loaded = load_llama(folder)
    assert_close(logits(loaded, SOME), oracle(weights, SOME))
    assert np.abs(logits(loaded, SOME) - oracle(older, SOME)).max() > 0.1
    (folder / INDEX).unlink()  # now nothing says which are meant
    with pytest.raises(ValueError, match=r"model-0000.*of-0000.* and no others, or an index"):
        load_llama(folder)


def test_the_same_tensor_in_two_files_is_refused(tmp_path: Path):
    folder = write_folder(tmp_path / "folder", make_weights())
    save_file({"model.norm.weight": torch.zeros(WIDTH)}, folder / "newer.safetensors")
    with pytest.raises(ValueError, match=r"newer.safetensors holds model.norm.weight, and so does"):
        load_llama(folder)


def test_shards_without_an_index_must_be_all(tmp_path: Path):
    folder = write_indexed(tmp_path / "folder", make_weights())
    (folder / INDEX).unlink()
    (folder / SHARDS[1]).rename(folder / "model-00003-of-00003.safetensors")
    with pytest.raises(ValueError, match=r"00001-of-00002.safetensors of 2 files, and .*00003"):
        load_llama(folder)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/x.safetensors", "x.bin", 3, None, []])
def test_an_index_names_files_beside_it(tmp_path: Path, name):
    folder = write_indexed(tmp_path / "folder", make_weights())
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["model.norm.weight"] = name
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"index.json has model.norm.weight=.* beside the index"):
        load_llama(folder)


def without(index: dict) -> None:
    del index["weight_map"]["model.norm.weight"]


def exchanged(index: dict) -> None:
    other = dict(zip(SHARDS, SHARDS[::-1], strict=True))
    index["weight_map"] = {name: other[file] for name, file in index["weight_map"].items()}


def unknown(index: dict) -> None:
    index["weight_map"]["model.bias"] = SHARDS[0]


def another_size(index: dict) -> None:
    index["metadata"]["total_size"] -= 4


def no_map(index: dict) -> None:
    index["weight_map"] = []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without, r"00\d-of-00002.safetensors holds model.norm.weight; allowed: the tensors that"),
        (exchanged, r"00001-of-00002.safetensors (holds|lacks) .*; allowed: the tensors that"),
        (unknown, r"00001-of-00002.safetensors lacks model.bias; allowed"),
        (another_size, r"the index says that the tensors take \d+ bytes \(total_size\), and they"),
        (no_map, r"index.json has weight_map=\[\]; allowed: an object"),
    ],
)
def test_an_index_that_does_not_fit_its_files(tmp_path: Path, change, said: str):
    folder = write_indexed(tmp_path / "folder", make_weights())
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match=said) as caught:
        load_llama(folder)
    assert str(folder) in str(caught.value)


def test_an_index_and_a_whole_file_or_a_missing_shard(tmp_path: Path):
    weights = make_weights()
    folder = write_indexed(tmp_path / "folder", weights)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"index.json does not name model.safetensors, which"):
        load_llama(folder)
    (folder / "model.safetensors").unlink()
    (folder / "other.safetensors.index.json").write_text((folder / INDEX).read_text())
    with pytest.raises(
        ValueError, match=r"several indexes: model.safetensors.index.json, other.saf"
    ):
        load_llama(folder)
    (folder / "other.safetensors.index.json").unlink()
    (folder / SHARDS[0]).unlink()
    with pytest.raises(FileNotFoundError, match=f"names {SHARDS[0]}, which is not there"):
        load_llama(folder)


def test_a_folder_of_pickles_or_with_an_adapter(tmp_path: Path):
    folder = write_folder(tmp_path / "folder", make_weights())
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds an adapter .*; allowed: a network with its"):
        load_llama(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"\(pytorch_model.bin is a pickle, which is not r"):
        load_llama(folder)


@pytest.mark.parametrize("name", ["config.json", INDEX])
def test_a_name_with_two_values_is_refused(tmp_path: Path, name: str):
    folder = write_indexed(tmp_path / "folder", make_weights())
    text = (folder / name).read_text()
    (folder / name).write_text(text[:-1] + ', "rms_norm_eps": 0.1, "rms_norm_eps": 1}')
    with pytest.raises(ValueError, match=rf"{name} has 'rms_norm_eps' twice"):
        load_llama(folder)


def test_truncation_and_padding_of_a_tokenizer_are_switched_off(tmp_path: Path):
    folder = write_folder(tmp_path / "folder", make_weights())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert len(load_llama(folder).tokenizer.encode("abcdef").ids) == 6


def test_a_tokenizer_of_more_tokens_than_the_network_has(tmp_path: Path):
    weights = make_weights()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = weights[name][:-1].contiguous()
    folder = write_folder(tmp_path / "folder", weights, vocab_size=VOCABULARY - 1)
    with pytest.raises(ValueError, match=f"the token {VOCABULARY - 1} and vocab_size=259; allowed"):
        load_llama(folder)


@pytest.mark.parametrize("same", [True, False])
def test_tied_embeddings_and_a_head_of_its_own(tmp_path: Path, same: bool):
    weights = make_weights()
    if same:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    folder = write_folder(tmp_path / "folder", weights, tie_word_embeddings=True)
    if same:
        assert_close(logits(load_llama(folder), SOME), oracle(weights, SOME))
    else:
        with pytest.raises(
            ValueError, match=r"tie_word_embeddings=True and an lm_head.weight that"
        ):
            load_llama(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.1.mlp.up_proj.weight"])
def test_weights_that_are_not_finite(tmp_path: Path, name: str, value: float):
    weights = make_weights()
    weights[name] = weights[name].double()
    weights[name].view(-1)[5] = value
    said = rf"tensor '{name}' holds 1 values that are NaN or infinite in float32"
    with pytest.raises(ValueError, match=said):
        load_llama(write_folder(tmp_path / "folder", weights))
    weights[name] = weights[name].float()
    with pytest.raises(ValueError, match=said):
        load_llama(write_gguf(tmp_path / "file.gguf", weights))


@pytest.mark.parametrize("frequencies", [FREQUENCIES, 2 * FREQUENCIES, FREQUENCIES[:3]])
def test_frequencies_of_old_files_are_those_of_the_configuration(
    tmp_path: Path, frequencies: np.ndarray
):
    weights = make_weights()
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    old = {**weights, name: torch.from_numpy(frequencies).half()}
    folder = write_folder(tmp_path / "folder", old)
    if frequencies is FREQUENCIES:
        assert_close(logits(load_llama(folder), SOME), oracle(weights, SOME))
    else:
        with pytest.raises(ValueError, match=r"inv_freq=\[.*; allowed: the frequencies that"):
            load_llama(folder)


def test_linear_scaling(tmp_path: Path):
    """A factor without a type is linear in GGUF, as in llama.cpp; in a folder it needs the type."""
    weights = make_weights()
    want = oracle(weights, SOME, FREQUENCIES / 4)
    assert np.abs(want - oracle(weights, SOME)).max() > 0.1
    path, folder = tmp_path / "file.gguf", tmp_path / "folder"
    for key in ("rope_scaling", "rope_parameters"):
        for kind in ("type", "rope_type"):
            scaling = {kind: "linear", "factor": 4.0}
            assert_close(
                logits(load_llama(write_folder(folder, weights, **{key: scaling})), SOME), want
            )
    factor, scale, kind = (
        f"llama__rope__{key}" for key in ("scaling__factor", "scale_linear", "scaling__type")
    )
    for changes in (
        {factor: 4.0},
        {scale: 4.0},
        {factor: 4.0, kind: "linear"},
        {scale: 4.0, factor: 4.0},
    ):
        assert_close(logits(load_llama(write_gguf(path, weights, **changes)), SOME), want)
    both = write_gguf(path, weights, rope_factors=np.array([1.0, 2, 4, 8]), **{factor: 4.0})
    assert_close(
        logits(load_llama(both), SOME), oracle(weights, SOME, FREQUENCIES / [4, 8, 16, 32])
    )


SPREAD = {"rope_scaling": {"type": "linear", "factor": 2.0}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rope_scaling": {"factor": 2.0}}, "factor=2.0; allowed: a file without this key"),
        ({"rope_scaling": {"type": "linear"}}, "lacks the key 'factor', which rope_type='linear'"),
        (
            {"rope_scaling": {"type": "linear", "factor": 0}},
            "factor=0; allowed: a finite number ab",
        ),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type='dynamic'; allowed: no"),
        ({"rope_scaling": {**LLAMA3, "attention_factor": 2.0}}, "attention_factor=2.0; allowed"),
        ({"rope_scaling": {**LLAMA3, "type": "linear"}}, "rope_type in rope_scaling='linear'; all"),
        (
            {"rope_scaling": {**LLAMA3, "low_freq_factor": 4.0}},
            "low_freq_factor=4.0; allowed: less",
        ),
        (
            {**SPREAD, "rope_parameters": {"factor": 3.0}},
            "factor in rope_parameters=3.0; allowed: 2",
        ),
        (
            {"rope_parameters": {"rope_theta": 2.0}},
            "rope_theta in rope_parameters=2.0; allowed: 100",
        ),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5; allowed"),
        ({"rope_parameters": {"full_attention": {}}}, "full_attention={}; allowed"),
        ({"rope_scaling": "linear"}, "rope_scaling='linear'; allowed: an object"),
        ({"rope_theta": -1.0}, "rope_theta=-1.0; allowed: a finite number above 0"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps='1e-5'; allowed: a finite number above 0"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps=nan; allowed: a finite number above 0"),
        (
            {"num_key_value_heads": 3},
            "num_key_value_heads=3; allowed: a divisor of num_attention_h",
        ),
        ({"num_key_value_heads": 0}, "num_key_value_heads=0; allowed: an integer from 1"),
        ({"num_attention_heads": 5}, "num_attention_heads=5; allowed: a divisor of hidden_size=32"),
        ({"num_attention_heads": True}, "num_attention_heads=True; allowed: an integer from 1"),
        ({"head_dim": 0}, "head_dim=0; allowed: an integer from 1 to 65536"),
        ({"head_dim": 2**40}, "head_dim=1099511627776; allowed: an integer from 1 to 65536"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000; allowed: fewer than the fil"),
        ({"hidden_size": 32.0}, "hidden_size=32.0; allowed: an integer from 1"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings='false'; allowed: true or false"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "architectures=.*LlamaForCausalLM"),
        ({"attention_bias": True}, "attention_bias=True; allowed: False"),
        ({"mlp_bias": True}, "mlp_bias=True; allowed: False"),
        ({"sliding_window": 8}, "sliding_window=8; allowed: a file without this key"),
        ({"layer_types": ["sliding_attention"] * 2}, r"layer_types=\['sliding_.*\['full_attention"),
        ({"no_rope_layers": [1, 0]}, r"no_rope_layers=\[1, 0\]; allowed: a file without this key"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5; allowed: 1.0"),
        ({"attention_multiplier": 0.5}, "attention_multiplier=0.5; allowed"),
        ({"logits_scaling": 8.0}, "logits_scaling=8.0; allowed: 1.0"),
        ({"residual_multiplier": 0.2}, "residual_multiplier=0.2; allowed: 1.0"),
        ({"embedding_multiplier": 12.0}, "embedding_multiplier=12.0; allowed: 1.0"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping=30.0; allowed"),
        ({"num_local_experts": 8}, "num_local_experts=8; allowed"),
        ({"quantization_config": {"bits": 4}}, "quantization_config={'bits': 4}; allowed"),
        ({"is_causal": False}, "is_causal=False; allowed: True"),
        ({"rope_interleaved": True}, "rope_interleaved=True; allowed: False"),
        ({"something_newer": 0}, "something_newer=0; allowed: a file without this key"),
    ],
)
def test_keys_that_change_the_network_are_refused(tmp_path: Path, changes: dict, said: str):
    folder = write_folder(tmp_path / "folder", make_weights(), **changes)
    with pytest.raises(ValueError, match=f"config.json.* {said}|{folder} has {said}"):
        load_llama(folder)


def test_keys_without_effect_are_read(tmp_path: Path):
    weights = make_weights()
    folder = write_folder(
        tmp_path / "folder", weights,
        architectures=["LlamaForCausalLM"], attention_bias=False, mlp_bias=False, pretraining_tp=2,
        torch_dtype="bfloat16", bos_token_id=[1, 2], use_cache=True, initializer_range=0.02,
        transformers_version="4.40.1", _name_or_path="x", layer_types=["full_attention"] * LAYERS,
        partial_rotary_factor=1, rope_scaling={"rope_type": "default", "type": "default"},
        rope_parameters={"rope_theta": THETA, "partial_rotary_factor": 1.0}, head_dim=HEAD_DIM,
    )  # fmt: skip
    config = json.loads((folder / "config.json").read_text()) | {
        "sliding_window": None,
        "new": None,
    }
    (folder / "config.json").write_text(json.dumps(config))
    assert_close(logits(load_llama(folder), SOME), oracle(weights, SOME))


HONOURED = {  # keys of GGUF that a LLaMA network has
    *("vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length"),
    *("attention.head_count", "attention.head_count_kv", "attention.key_length"),
    *("attention.value_length", "attention.layer_norm_rms_epsilon", "rope.dimension_count"),
    *("rope.freq_base", "rope.scaling.factor", "rope.scaling.type"),
}
INFORMATION = {"rope.scaling.original_context_length", "rope.scaling.finetuned"}


def keys_of_the_format() -> list[str]:
    """Every key of an architecture that the package gguf knows, without the architecture."""
    found, groups = set(), [gguf.Keys]
    while groups:
        for value in vars(groups.pop()).values():
            if isinstance(value, type):
                groups.append(value)
            elif isinstance(value, str) and value.startswith("{arch}."):
                found.add(value.removeprefix("{arch}.").replace("{dense}", "dense"))
    return sorted(found)


def test_every_key_of_gguf_is_honoured_or_refused_by_name(tmp_path: Path):
    weights = make_weights()
    keys = [key for key in keys_of_the_format() if key not in HONOURED | INFORMATION]
    assert len(keys) > 80
    for key in (*keys, "rope.something_newer"):
        name = "llama." + key
        path = write_gguf(tmp_path / "file.gguf", weights, **{name: 3})
        with pytest.raises(ValueError, match=rf"file.gguf has {name}=3; allowed: "):
            load_llama(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"llama.attention.sliding_window": 8}, "sliding_window=8; allowed: 0"),
        ({"llama.attention.causal": False}, "causal=False; allowed: True"),
        ({"llama.attention.clamp_kqv": 8.0}, "clamp_kqv=8.0; allowed: 0.0"),
        ({"llama.attention.scale": 0.5}, "attention.scale=0.5; allowed: 0.353553"),
        ({"llama.logit_scale": 2.0}, "logit_scale=2.0; allowed: 1.0"),
        ({"llama.residual_scale": 0.5}, "residual_scale=0.5; allowed: 1.0"),
        ({"llama.expert_count": 8}, "expert_count=8; allowed: 0"),
        ({"llama.attention.value_length": 4}, "value_length=4; allowed: 8"),
        ({"llama.vocab_size": 300}, "vocab_size=300; allowed: 260"),
        ({"llama.rope.scaling.factor": 0.0}, "scaling.factor=0.0; allowed: a finite number above"),
        ({"llama.rope.scaling.factor": -2.0}, "factor=-2.0; allowed: a finite number above 0"),
        ({"llama.rope.scaling.factor": "2"}, "factor='2'; allowed: a finite number above 0"),
        ({"llama.rope.scaling.factor": 2.0, "llama.rope.scale_linear": 4.0}, "2.0; allowed: 4.0"),
        ({"llama.rope.scaling.factor": 1.0, "llama.rope.scale_linear": 4.0}, "1.0; allowed: 4.0"),
        ({"llama.rope.scale_linear": 0}, "scale_linear=0; allowed: a finite number above 0"),
        ({"llama.rope.scaling.factor": 2.0, "llama.rope.scaling.type": "none"}, "2.0; allowed: 1"),
        ({"llama.rope.freq_base": 0.0}, "freq_base=0.0; allowed: a finite number above 0"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "epsilon=nan; allowed"),
        ({"llama.attention.head_count": [4, 4]}, r"head_count=\[4, 4\]; allowed: an integer"),
        ({"llama.attention.head_count": 5}, "head_count=5; allowed: a divisor of embedding_leng"),
        ({"llama.attention.head_count_kv": 3}, "num_key_value_heads=3; allowed: a divisor"),
        ({"llama.attention.key_length": 2**31}, "key_length=2147483648; allowed: an integer from"),
        ({"llama.block_count": 2**30}, "num_hidden_layers=1073741824; allowed: fewer than"),
        ({"llama.context_length": True}, "context_length=True; allowed: an integer from 1"),
        ({"general.type": "adapter"}, "general.type='adapter'; allowed: 'model'"),
        ({"general.quantization_version": 1}, "quantization_version=1; allowed: 2"),
        ({"adapter.lora.alpha": 8.0}, "adapter.lora.alpha=8.0; allowed: a file without this key"),
        ({"tokenizer.ggml.add_space_prefix": True}, "add_space_prefix=True; allowed: False"),
        ({"tokenizer.ggml.tokens": [*TOKENS[1:], "t"]}, "tokens='t'; allowed: every token once"),
        ({"tokenizer.ggml.merges": ["t h e"]}, "merges=.*; allowed: two tokens with a space"),
        ({"split.count": 3, "split.no": 1}, ""),
    ],
)  # fmt: skip
def test_gguf_keys_that_change_the_network_are_refused(tmp_path: Path, changes: dict, said: str):
    path = write_gguf(tmp_path / "file.gguf", make_weights(), **changes)
    said = said or "is part 2 of a GGUF file that is split into 3; allowed: the whole"
    with pytest.raises(ValueError, match=said) as caught:
        load_llama(path)
    assert str(path) in str(caught.value)


def test_gguf_keys_without_effect_are_read(tmp_path: Path):
    weights = make_weights()
    neutral = {
        "general.name": "x", "general.file_type": 7, "general.quantization_version": 2,
        "general.type": "model", "general.sampling.temp": 0.1, "split.count": 1, "split.no": 0,
        "llama.attention.causal": True, "llama.attention.clamp_kqv": 0.0, "llama.expert_count": 0,
        "llama.logit_scale": 1.0, "llama.attention.scale": HEAD_DIM**-0.5,
        "llama.attention.value_length": HEAD_DIM, "llama.vocab_size": VOCABULARY,
        "llama.rope.scaling.type": "none", "llama.rope.scaling.original_context_length": 8,
        "llama.tensor_data_layout": "Meta AI original pth", "tokenizer.chat_template": "x",
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.eot_token_id": 2, "quantize.imatrix.file": "x",
    }  # fmt: skip
    loaded = load_llama(write_gguf(tmp_path / "file.gguf", weights, **neutral))
    assert_close(logits(loaded, SOME), oracle(weights, SOME))


def test_gguf_of_the_other_byte_order(tmp_path: Path):
    path = write_gguf(tmp_path / "file.gguf", make_weights(), endianess=gguf.GGUFEndian.BIG)
    with pytest.raises(ValueError, match=r"file.gguf is big-endian; allowed: little-endian"):
        load_llama(path)


def test_a_part_of_a_split_gguf_is_known_by_its_name_too(tmp_path: Path):
    path = write_gguf(tmp_path / "net-00002-of-00003.gguf", make_weights())
    with pytest.raises(ValueError, match=r"is part 2 of a GGUF file that is split into 3"):
        load_llama(path)
    whole = path.rename(tmp_path / "net-00001-of-00001.gguf")
    assert_close(logits(load_llama(whole), SOME), oracle(make_weights(), SOME))


@pytest.mark.parametrize(
    "name",
    [
        *("blk.0.attn_q.bias", "blk.0.attn_q_norm.weight", "blk.0.ffn_gate_exps.weight"),
        *("output.bias", "token_embd_norm.weight", "blk.0.attn_rot_embd.weight", "lm_head.weight"),
        *(
            "other.0.attn_q.weight",
            "0.attn_q.weight",
            "blk.00.attn_q.weight",
            "blk.0.output.weight",
        ),
        "model.layers.0.self_attn.q_proj.weight",
    ],
)
def test_gguf_tensors_that_are_not_used_are_refused(tmp_path: Path, name: str):
    others = {name: np.zeros((WIDTH, WIDTH), np.float32)}
    path = write_gguf(tmp_path / "file.gguf", make_weights(tied=True), others=others)
    with pytest.raises(ValueError, match=f"file.gguf has the tensor '{name}'; allowed: token_embd"):
        load_llama(path)


@pytest.mark.parametrize("name", ["q_proj.bias", "q_norm.weight", "q_proj.weight_scale"])
def test_tensors_of_a_folder_that_are_not_used_are_refused(tmp_path: Path, name: str):
    weights = make_weights() | {f"model.layers.0.self_attn.{name}": torch.zeros(WIDTH)}
    with pytest.raises(ValueError, match=f"self_attn.{name} of shape .* allowed: no such tensor"):
        load_llama(write_folder(tmp_path / "folder", weights))


@pytest.mark.parametrize(
    ("factors", "said"),
    [
        ([1.0], r"rope_freqs.weight of shape=\(1,\); allowed: \(4,\)"),
        ([1.0, 2, 0, 1], r"rope_freqs.weight=\[1.0, 2.0, 0.0, 1.0\]; allowed: finite numbers ab"),
        ([1.0, 2, np.nan, 1], "allowed: finite numbers above 0"),
    ],
)
def test_gguf_with_other_factors_of_frequencies(tmp_path: Path, factors: list, said: str):
    path = write_gguf(tmp_path / "file.gguf", make_weights(), rope_factors=np.array(factors))
    with pytest.raises(ValueError, match=said):
        load_llama(path)


def test_gguf_whose_tensors_share_data(tmp_path: Path):
    path = write_gguf(tmp_path / "file.gguf", make_weights())
    reader = gguf.GGUFReader(path, "r+")
    same = [tensor for tensor in reader.tensors if "attn_k" in tensor.name]
    same[1].field.parts[5][0] = same[0].field.parts[5][0]
    reader.data.flush()
    with pytest.raises(ValueError, match=r"file.gguf has the data of blk.1.attn_k.weight at \d+;"):
        load_llama(path)


@pytest.mark.parametrize("key", ["tokenizer.ggml.merges", "tokenizer.ggml.token_type"])
def test_gguf_that_says_more_than_it_holds(tmp_path: Path, key: str):
    """An array of 2^40 elements is refused at the file's end, not counted through."""
    path = write_gguf(tmp_path / "file.gguf", make_weights())
    reader = gguf.GGUFReader(path, "r+")
    reader.fields[key].parts[4][0] = 2**40
    reader.data.flush()
    with pytest.raises(ValueError, match=r"file.gguf is not a complete GGUF file|cannot be read"):
        load_llama(path)


def test_name_that_is_nowhere(monkeypatch: pytest.MonkeyPatch):
    def no_hub(name: str, **_):
        raise ConnectionError

    monkeypatch.setattr("huggingface_hub.snapshot_download", no_hub)
    with pytest.raises(FileNotFoundError, match=r"source='some/llama' .* allowed: a .gguf file"):
        load_llama("some/llama")


def test_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write_folder(tmp_path / "folder", make_weights())
    asked = []

    def hub(name: str, revision: str | None, **_) -> str:
        asked.append((name, revision))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    assert load_llama("some/llama").reference == "F32"
    assert load_llama("some/llama@1a2b3c").reference == "F32"
    assert asked == [("some/llama", None), ("some/llama", "1a2b3c")]


@pytest.fixture(scope="module")
def smollm2() -> LoadedLlama:
    return load_llama()


def test_reference_of_the_packaged_network(smollm2: LoadedLlama):
    assert smollm2.reference == "Q4_1 dequantised (embeddings Q8_0, norms F32)"
    assert smollm2.model.config.num_hidden_layers == 30
    assert smollm2.model.config.tie_word_embeddings


def test_perplexity_of_the_packaged_network(smollm2: LoadedLlama):
    """17.4 on the first 4 windows of 1024 tokens of Wikipedia, within 2%."""
    text = read_text("wikipedia")[:30_000]
    tokens = smollm2.tokenizer.encode(text, add_special_tokens=False).ids
    assert smollm2.tokenizer.decode(tokens) == text
    losses = []
    for window in windows(tokens, 1024, 4):
        logits = smollm2.model(window[None])[0, :-1]
        losses.append(torch.nn.functional.cross_entropy(logits, window[1:]).item())
    assert np.exp(np.mean(losses)) == pytest.approx(17.4, rel=0.02)


def test_requantising_on_the_same_grid_is_lossless(smollm2: LoadedLlama):
    """Q4_1: 4 bits, a float minimum, groups of 32 along k; every number comes back."""
    for name in ("0.self_attn.q_proj", "14.mlp.down_proj", "29.mlp.gate_proj"):
        W = smollm2.model.get_parameter(f"model.layers.{name}.weight").numpy()
        same = Uniform(bits=4, granularity="group:32", zero_point="float").quantize(W)
        np.testing.assert_array_equal(same.dequantize(), W)
        other = Uniform(bits=4, granularity="group:64", zero_point="float").quantize(W)
        assert np.abs(other.dequantize() - W).max() > 0.01 * np.abs(W).max()
