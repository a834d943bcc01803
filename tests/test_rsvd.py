"""The randomised SVD against the exact one and scikit-learn's."""

import numpy as np
import pytest
from oracle import LIBRARIES, distance, low_rank, to, to_numpy
from sklearn.utils.extmath import randomized_svd

from lrqmm.products.rsvd import SKETCHES, range_basis, rsvd, sketch_matrix

SHAPES = [(60, 40), (40, 60), (200, 5), (1, 30), (30, 1), (1, 1)]


def spectrum(m, n, s, seed=0):
    """An m x n matrix with singular values s."""
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((size, len(s))))[0] for size in (m, n))
    return ((U * s) @ V.T).astype(np.float32)


def rebuilt(factors):
    U, s, Vt = (to_numpy(x).astype(np.float64) for x in factors)
    return (U * s) @ Vt


@pytest.fixture(params=LIBRARIES)
def library(request):
    return request.param


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sketch", SKETCHES)
def test_low_rank_matrices_are_found_exactly(library, shape, sketch):
    true_rank = min(3, *shape)
    M = spectrum(*shape, np.array([5.0, 3.0, 0.5])[:true_rank])
    for rank in (true_rank, true_rank + 2):
        factors = rsvd(to(library, M), rank, sketch=sketch, oversampling=4)
        assert distance(rebuilt(factors), M) < 1e-5
        exact = np.linalg.svd(M.astype(np.float64))[1]
        np.testing.assert_allclose(to_numpy(factors[1])[:true_rank], exact[:true_rank], rtol=1e-5)


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_decaying_spectra_near_the_optimum(library, decay):
    M = spectrum(120, 90, decay ** np.arange(90))
    for rank in (1, 5, 20):
        best = np.linalg.norm(M - low_rank(M, rank))
        found = np.linalg.norm(M - rebuilt(rsvd(to(library, M), rank)))
        assert best * (1 - 1e-3) - 1e-6 <= found <= 1.02 * best + 1e-6


def test_power_iterations_sharpen_a_flat_spectrum():
    M = np.random.default_rng(0).standard_normal((300, 300), np.float32)
    best = np.linalg.norm(low_rank(M, 5))
    kept = [
        np.linalg.norm(rebuilt(rsvd(M, 5, power_iterations=q, sketch="gaussian"))) / best
        for q in (0, 1, 2, 8)
    ]
    assert kept == sorted(kept)
    assert kept[0] < 0.85
    assert 0.98 < kept[-1] < 1 + 1e-5


@pytest.mark.parametrize("sketch", ["gaussian", "sign"])
def test_as_good_as_scikit_learn(sketch):
    M = spectrum(150, 100, 1 / (1 + np.arange(100.0)))
    for rank in (3, 10):
        U, s, Vt = randomized_svd(
            M, rank, n_oversamples=8, n_iter=2, power_iteration_normalizer="QR", random_state=0
        )
        theirs = np.linalg.norm(M - (U * s) @ Vt)
        factors = rsvd(M, rank, oversampling=8, power_iterations=2, sketch=sketch)
        assert np.linalg.norm(M - rebuilt(factors)) <= 1.01 * theirs
        np.testing.assert_allclose(factors[1], s, rtol=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_factors_are_orthonormal_and_ordered(library, shape):
    M = np.random.default_rng(2).standard_normal(shape, np.float32)
    rank = min(4, *shape)
    U, s, Vt = map(to_numpy, rsvd(to(library, M), rank, oversampling=2))
    assert (U.shape, s.shape, Vt.shape) == ((shape[0], rank), (rank,), (rank, shape[1]))
    assert U.dtype == s.dtype == Vt.dtype == np.float32
    np.testing.assert_allclose(U.T @ U, np.eye(rank), atol=2e-6)
    np.testing.assert_allclose(Vt @ Vt.T, np.eye(rank), atol=2e-6)
    assert (s >= 0).all()
    assert (np.diff(s) <= 0).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_rank_above_the_limit_is_capped_and_exact(library, shape):
    M = np.random.default_rng(3).standard_normal(shape, np.float32)
    factors = rsvd(to(library, M), 1000)
    assert len(to_numpy(factors[1])) == min(shape)
    assert distance(rebuilt(factors), M) < 1e-5


def test_rank_zero_and_zero_matrices(library):
    U, s, Vt = rsvd(to(library, np.ones((6, 4), np.float32)), 0, oversampling=0)
    assert (tuple(U.shape), tuple(s.shape), tuple(Vt.shape)) == ((6, 0), (0,), (0, 4))
    np.testing.assert_array_equal(rebuilt(rsvd(to(library, np.zeros((6, 4), np.float32)), 2)), 0)


def test_one_pass_with_ones_finds_the_row_means():
    """What the ones column is for: a mean buried in noise, found without power iterations."""
    rng = np.random.default_rng(4)
    M = (0.2 + rng.standard_normal((500, 500))).astype(np.float32)
    mean_alone = np.full((500, 500), 0.2)
    how = dict(oversampling=0, power_iterations=0)
    with_ones, without = (
        rebuilt(rsvd(M, 1, sketch=sketch, **how)) for sketch in ("ones+gaussian", "gaussian")
    )
    overlap = [
        np.vdot(X, mean_alone) / np.vdot(mean_alone, mean_alone) for X in (with_ones, without)
    ]
    assert overlap[0] > 0.9
    assert overlap[1] < 0.5


@pytest.mark.parametrize("sketch", SKETCHES)
def test_sketches(library, sketch):
    omega = sketch_matrix(to(library, np.ones((1, 1), np.float32)), 4000, 5, sketch, (7, 1))
    assert type(omega) is type(to(library, np.ones(1)))
    omega = to_numpy(omega)
    np.testing.assert_array_equal(
        omega, sketch_matrix(np.ones((1, 1), np.float32), 4000, 5, sketch, (7, 1))
    )
    assert omega.dtype == np.float32
    assert (omega[:, 0] == 1).all() == sketch.startswith("ones")
    rest = omega[:, 1:]
    assert abs(rest.mean()) < 0.05
    assert abs(rest.std() - 1) < 0.05
    assert set(np.unique(rest)) == {-1, 1} if sketch.endswith("sign") else np.unique(rest).size > 9


@pytest.mark.parametrize("sketch", SKETCHES)
def test_seeds(sketch):
    M = np.random.default_rng(5).standard_normal((50, 40), np.float32)

    def values(seed):
        return rsvd(M, 4, sketch=sketch, seed=seed)[1]

    np.testing.assert_array_equal(values(3), values(3))
    np.testing.assert_array_equal(values(3), values((3,)))
    assert (values(3) != values(4)).any()
    assert (values((3, 0)) != values((3, 1))).any()


@pytest.mark.parametrize("power_iterations", [0, 1, 2])
def test_range_basis_of_a_map(library, power_iterations):
    M = spectrum(50, 30, [3.0, 2.0, 1.0])
    X = to(library, M)
    omega = to(library, np.random.default_rng(6).standard_normal((30, 3), np.float32))
    Q = to_numpy(range_basis(lambda V: X @ V, lambda U: X.T @ U, omega, power_iterations))
    np.testing.assert_allclose(Q.T @ Q, np.eye(3), atol=2e-6)
    assert distance(Q @ (Q.T @ M), M) < 5e-5


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"rank": -1}, ValueError, "rank is -1; allowed: an integer of at least 0"),
        ({"rank": 1.5}, TypeError, "rank is 1.5; allowed: an integer"),
        ({"oversampling": -1}, ValueError, "oversampling is -1; allowed: an integer of at least 0"),
        ({"power_iterations": -1}, ValueError, "power_iterations is -1; allowed"),
        ({"sketch": "gausian"}, ValueError, r"sketch is 'gausian' \(did you mean 'gaussian'\?\)"),
    ],
)
def test_arguments_are_checked(how, error, message):
    with pytest.raises(error, match=message):
        rsvd(np.ones((3, 3), np.float32), **{"rank": 1, **how})
