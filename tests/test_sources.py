"""Sources: their matrices, scores against what libraries and formulas say, a new one in a study."""

import re
import subprocess

import numpy as np
import pandas as pd
import pytest
from oracle import product

from lrqmm.bench import sources
from lrqmm.bench.sources import features, images, input_sources, neighbours, precoding, source_of
from lrqmm.run.metrics import PRODUCTS

MADE_HERE = [name for name, source in input_sources({}).items() if not source.packaged]
CHOICE = {"sizes": [8, "9x10x11"], "seeds": 2}


@pytest.mark.parametrize("name", MADE_HERE)
def test_matrices_have_the_shapes_that_are_said_and_are_the_same_each_time(name):
    source = source_of(name)
    pairs = list(source.pairs(name, CHOICE, {}))
    assert {pair.input for pair in pairs} == {name}
    assert len({pair.path for pair in pairs}) == len(pairs)
    again = source.make(pairs, {})
    for pair, A, B, about in source.make(pairs, {}):
        assert (A.shape, B.shape) == ((pair.m, pair.k), (pair.k, pair.n))
        assert A.dtype == B.dtype == np.float32
        same = next(again)
        np.testing.assert_array_equal(A, same.A)
        np.testing.assert_array_equal(B, same.B)
        assert same.about == about
        assert source.megabytes(pair) >= 500


@pytest.mark.parametrize("name", MADE_HERE)
def test_scores_are_the_metrics_that_are_said(name):
    source = source_of(name)
    if source.metrics:
        pair = next(source.pairs(name, CHOICE, {}))
        (made,) = source.make([pair], {})
        C = product(made.A, made.B) + np.float32(0.01)
        scores = source.score(pair.layer, pair.input_seed, C.astype(np.float32))
        assert set(scores) == set(source.metrics) <= set(PRODUCTS)


def test_pictures_are_grey_and_scored_by_scikit_image():
    from skimage.metrics import structural_similarity

    for case in images.SHAPES:
        B = images.picture(case)
        assert B.min() >= 0
        assert 0.8 < B.max() <= 1
    worse = images.picture("camera") + np.float32(0.1)
    scores = images.score("camera", 0, worse)
    assert scores["psnr"] == pytest.approx(20, abs=1e-3)
    assert scores["ssim"] == pytest.approx(
        structural_similarity(images.picture("camera"), worse, data_range=1), abs=1e-3
    )
    assert images.score("camera", 0, images.picture("camera")) == {"ssim": 1.0}


def test_features_approach_the_kernel():
    x = features.points(0)
    K = features.kernel(0)
    assert K[3, 8] == pytest.approx(np.exp(-np.sum((x[3] - x[8]) ** 2) / 2))
    errors = [
        features.score(case, 0, product(*features.make(case, 0)))["gram_error"]
        for case in ("1024", "16384")
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.4)  # as 1 / sqrt(count)
    assert features.score("1024", 0, 512 * K)["gram_error"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("case", precoding.DISTANCES)
def test_users_receive_the_symbols(case):
    H, X = precoding.make(case, 0)
    assert np.abs(X).max() == 1
    received = product(H, X)
    largest = np.abs(received).max(axis=0)  # of a symbol that is 3 or 1 at the most
    of_three, of_one = 3 * received / largest, received / largest
    whole = np.minimum(*(np.abs(y - np.round(y)).max(axis=0) for y in (of_three, of_one)))
    assert whole.max() < 1e-3
    np.testing.assert_allclose(np.abs(np.linalg.norm(H[:, 0])), np.sqrt(8), rtol=1e-5)


def test_neighbours_are_those_of_scikit_learn():
    from sklearn.neighbors import KNeighborsClassifier

    A, B = neighbours.make("digits", 0)
    asking, asked = neighbours._split("digits", 0)
    labels = neighbours.labels("digits")
    nearest = KNeighborsClassifier(1).fit(B.T, labels[asked])
    expected = nearest.score(A, labels[asking])
    found = neighbours.score("digits", 0, product(A, B))["accuracy"]
    assert found == pytest.approx(expected, abs=0.002)
    assert found > 0.9
    assert not set(asking) & set(asked)


def test_sentences_of_three_texts():
    found = neighbours.sentences()
    assert len(found) == 3 * neighbours.EACH == len(neighbours.labels("sentences"))
    assert len(set(found)) > 0.95 * len(found)
    queries, database, _ = neighbours.CASES["sentences"]
    assert queries + database == len(found)


@pytest.mark.parametrize(
    ("name", "choice", "said"),
    [
        (
            "images",
            {"cases": ["fantom"]},
            r"cases is 'fantom' \(did you mean 'phantom'\?\)",
        ),
        ("resnet50", {"layers": ["fc100"]}, r"layers is 'fc100' \(did you mean 'fc1000'\?\)"),
        ("normal", {"seeds": 2}, "sizes is missing, and normal needs it"),
    ],
)
def test_what_a_source_does_not_have_is_told(name, choice, said):
    with pytest.raises(ValueError, match=said):
        list(source_of(name).pairs(name, choice, {"pictures": 4}))


def test_two_inputs_of_one_name_are_refused(tmp_path, monkeypatch):
    assert source_of("mine") is None
    assert list(input_sources({"matrices": {"mine": {}}}))[-1] == "mine"
    with pytest.raises(ValueError, match=r"matrices\.normal: the name is taken; allowed: any but"):
        input_sources({"matrices": {"normal": {}}})
    (tmp_path / "chi2.py").write_text(NEW.replace("stripes", "chi2"))
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path)])
    with pytest.raises(ValueError, match="the name is taken"):
        input_sources({})


# a new source

NEW = '''"""Stripes: the identity times a pattern of ones and zeros. Source: none."""

import numpy as np

from lrqmm.bench.sources import Workload

WIDTHS = {"thin": 1, "thick": 4}


def make(case, seed):
    rows = (np.arange(16) + seed) // WIDTHS[case] % 2
    return np.eye(16, dtype=np.float32), np.outer(rows, np.ones(8)).astype(np.float32)


def score(case, seed, C):
    return {"black_and_white": float(np.mean(C.round() == make(case, seed)[1]))}


SOURCE = Workload(
    name="stripes",
    title="stripes",
    cases=dict.fromkeys(WIDTHS, (16, 16, 8)),
    matrices=make,
    scores=score,
    metrics=("black_and_white",),
)
'''
NEW_AT_ONCE = '''"""Two pairs that one job makes. Source: none."""

from dataclasses import dataclass

import numpy as np

from lrqmm.bench.sources import Matrices, Pair, Source


@dataclass(frozen=True, kw_only=True)
class Twins(Source):
    def pairs(self, name, choice, section):
        for layer in ("first", "second"):
            yield Pair(name, layer, None, 8, 8, 8, f"twins/{layer}.safetensors")

    def make(self, pairs, section):
        for pair in pairs:
            yield Matrices(pair, *np.eye(8, dtype=np.float32)[None].repeat(2, 0), {})


SOURCE = Twins(name="twins", title="twins", at_once=True)
'''
STUDY = """
run: results/stripes
device: cpu
experiments:
  stripes:
    measure: error
    inputs: [stripes]
    seeds: 2
    methods: [direct, lrqmm]
    settings: {bits: 8, rank: 2}
    cost: true
  other:
    measure: error
    inputs: [normal, twins]
    sizes: [8]
    methods: [direct]
"""


NEW_METRIC = """
from lrqmm.run.metrics._metric import Metric

PRODUCTS = (Metric("black_and_white", "black and white", "higher", most=1, score=True),)
"""


DRAW = """
import sys
from lrqmm import figures
from lrqmm.run.read import read_run
print(figures.make("table7_workloads", read_run(sys.argv[1])).to_csv())
"""


def test_a_new_source_or_metric_is_one_file_and_a_change_remakes_its_matrices_only(project):
    file = project.folder / "src/lrqmm/bench/sources/stripes.py"
    file.write_text(NEW)
    (project.folder / "src/lrqmm/run/metrics/stripes.py").write_text(NEW_METRIC)
    file.with_name("twins.py").write_text(NEW_AT_ONCE)
    (project.folder / "stripes.yaml").write_text(STUDY)
    run = project.folder / "results/stripes"
    study = ("measurements", "--configfile", "stripes.yaml")
    project.run(*study)
    table = pd.concat(pd.read_parquet(path) for path in run.glob("measurements/*.parquet"))
    scores = table[table["metric"] == "black_and_white"]
    assert len(scores) == 2 * 2 * 2
    assert set(scores["layer"]) == {"thin", "thick"}
    assert (scores["value"] == 1).all()
    assert {"normal", "stripes", "twins"} == set(table["input"])
    assert project.log.count("rule make_twins:") == 1
    drawn = subprocess.run(
        [project.python, "-c", DRAW, run], env=project.environment, capture_output=True, text=True
    )
    assert "black and white" in drawn.stdout, drawn.stderr
    assert "Nothing to be done" in project.run(*study)
    file.write_text(NEW + "\n# changed\n")
    project.run(*study)
    assert set(re.findall(r"wildcards: pair=(\S+)/", project.log)) == {"stripes"}
