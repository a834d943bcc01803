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

from lrqmm.networks.llama import Llama, LoadedLlama, load_llama
from lrqmm.networks.llama_files import format_name
from lrqmm.networks.llama_gguf import NAMES, WORDS
from lrqmm.networks.text import perplexity, read_text, windows
from lrqmm.quantize import Uniform

HEADS, HEAD_DIM, WIDTH, FEED_FORWARD, LAYERS, CONTEXT = 4, 8, 32, 64, 2, 16
THETA, EPS = 1000.0, 1e-5
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
    **changes,
) -> Path:
    """A GGUF file; each change sets a key, with "__" for its dots."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(len(weights["model.layers.0.self_attn.k_proj.weight"]) // HEAD_DIM)
    writer.add_context_length(CONTEXT)
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_rope_freq_base(THETA)
    writer.add_tokenizer_model(changes.pop("model", "gpt2"))
    writer.add_tokenizer_pre(changes.pop("pre", "smollm"))
    writer.add_token_list(TOKENS)
    writer.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (VOCABULARY - 1))
    writer.add_token_merges([" ".join(merge) for merge in MERGES])
    for key, value in changes.items():
        if isinstance(value, str):
            writer.add_string(key.replace("__", "."), value)
        else:
            writer.add_uint32(key.replace("__", "."), value)
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
    if rope_factors is not None:
        writer.add_tensor("rope_freqs.weight", rope_factors.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def oracle(weights: dict[str, torch.Tensor], tokens: list[int]) -> np.ndarray:
    """Logits, in float64: every head, token and pair of elements by itself."""
    w = {name.removesuffix(".weight"): tensor.double().numpy() for name, tensor in weights.items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS) * w[name]

    def turned(x: np.ndarray) -> np.ndarray:
        out = x.copy()
        for position in range(len(x)):
            for i in range(HEAD_DIM // 2):
                j = i + HEAD_DIM // 2
                z = np.exp(1j * position * THETA ** (-2 * i / HEAD_DIM))
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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "mistral"}, "config.json has model_type='mistral'; allowed: 'llama'"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'; allowed: 'silu'"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "rope_type='linear'; allowed: no RoPE"),
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
    assert perplexity(smollm2.model, windows(tokens, 1024, 4)) == pytest.approx(17.4, rel=0.02)


def test_requantising_on_the_same_grid_is_lossless(smollm2: LoadedLlama):
    """Q4_1: 4 bits, a float minimum, groups of 32 along k; every number comes back."""
    for name in ("0.self_attn.q_proj", "14.mlp.down_proj", "29.mlp.gate_proj"):
        W = smollm2.model.get_parameter(f"model.layers.{name}.weight").numpy()
        same = Uniform(bits=4, granularity="group:32", zero_point="float").quantize(W)
        np.testing.assert_array_equal(same.dequantize(), W)
        other = Uniform(bits=4, granularity="group:64", zero_point="float").quantize(W)
        assert np.abs(other.dequantize() - W).max() > 0.01 * np.abs(W).max()
