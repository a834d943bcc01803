"""The packaged MiniLM: against a slow oracle, and what its vectors mean."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from lrqmm.bench.networks.minilm.model import EPS, HEADS, WIDTH, MiniLM, load_minilm

SENTENCES = [
    "The cat sat on the mat.",
    "A cat was sitting on a rug.",
    "The stock market fell sharply today.",
]


@pytest.fixture(scope="module")
def model() -> MiniLM:
    return load_minilm()


def oracle(model: MiniLM, sentence: str) -> np.ndarray:
    """The vector of one sentence, in float64, head by head."""
    w = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(1, keepdims=True) + EPS)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    ids = model.tokenizer.encode(sentence).ids
    kinds = [f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")]
    x = w[kinds[0]][ids] + w[kinds[1]][: len(ids)] + w[kinds[2]][0]
    x = norm(x, "embeddings.LayerNorm")
    for layer in range(6):
        name = f"encoder.layer.{layer}"
        q, k, v = (
            np.split(linear(x, f"{name}.attention.self.{kind}"), HEADS, axis=1)
            for kind in ("query", "key", "value")
        )
        heads = []
        for head in range(HEADS):
            scores = np.exp(q[head] @ k[head].T / math.sqrt(WIDTH / HEADS))
            heads.append(scores / scores.sum(1, keepdims=True) @ v[head])
        y = linear(np.concatenate(heads, axis=1), f"{name}.attention.output.dense")
        y = norm(x + y, f"{name}.attention.output.LayerNorm")
        z = linear(y, f"{name}.intermediate.dense")
        z = z * (1 + np.vectorize(math.erf)(z / math.sqrt(2))) / 2
        x = norm(y + linear(z, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def test_vectors_are_the_oracles(model: MiniLM):
    vectors = model.embed(SENTENCES)
    assert vectors.shape == (3, WIDTH)
    assert vectors.dtype == torch.float32
    for vector, sentence in zip(vectors.numpy(), SENTENCES, strict=True):
        np.testing.assert_allclose(vector, oracle(model, sentence), atol=1e-6)


def test_paraphrase_and_unrelated(model: MiniLM):
    cosines = model.embed(SENTENCES) @ model.embed(SENTENCES).T
    torch.testing.assert_close(cosines.diagonal(), torch.ones(3))
    assert cosines[0, 1] == pytest.approx(0.742, abs=0.005)
    assert cosines[:2, 2].abs().max() < 0.3


def test_sentences_of_a_batch_do_not_mix(model: MiniLM):
    alone = torch.cat([model.embed([sentence]) for sentence in SENTENCES])
    torch.testing.assert_close(model.embed(SENTENCES), alone, atol=1e-6, rtol=0)
    assert model.embed([]).shape == (0, WIDTH)


def test_long_sentence_is_cut(model: MiniLM):
    long, longer = ("word " * 254, "word " * 300 + "end")  # 254 and two special tokens
    torch.testing.assert_close(model.embed([long]), model.embed([longer]))


def test_linear_layers_can_be_replaced_in_a_copy(model: MiniLM):
    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    assert len(names) == 36
    assert names[0] == "encoder.layer.0.attention.self.query"
    other = copy.deepcopy(model)
    parent = other.get_submodule("encoder.layer.0.attention.self")
    parent.query = nn.Linear(WIDTH, WIDTH)
    assert (other.embed(SENTENCES) - model.embed(SENTENCES)).abs().max() > 1e-3
    assert not any(parameter.requires_grad for parameter in model.parameters())
