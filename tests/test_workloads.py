"""Workloads: their matrices, and scores against what libraries and formulas say."""

import numpy as np
import pytest
from oracle import product

from lrqmm.bench.sources import features, images, list_workloads, neighbours, precoding, workload

MADE_HERE = [name for name in list_workloads() if not workload(name).packaged]


@pytest.mark.parametrize("name", MADE_HERE)
def test_matrices_have_the_shapes_that_are_said_and_are_the_same_each_time(name):
    for case, (m, k, n) in workload(name).cases.items():
        A, B = workload(name).make(case, 3)
        assert (A.shape, B.shape) == ((m, k), (k, n))
        assert A.dtype == B.dtype == np.float32
        again = workload(name).make(case, 3)
        np.testing.assert_array_equal(A, again[0])
        np.testing.assert_array_equal(B, again[1])


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


def test_an_unknown_workload():
    with pytest.raises(ValueError, match="workload is 'imags'"):
        workload("imags")
