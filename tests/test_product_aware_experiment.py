"""The formulas of docs/experiments/product_aware.py, at small size."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import lrqmm
from lrqmm.bench.sources.distributions import sample
from lrqmm.methods.lrqmm_aware import LRQMMAware
from lrqmm.products.lowrank import LEFT, RIGHT

M, K, N = 50, 60, 40
SHAPES = [(512, 512, 512), (6272, 576, 64), (392, 1024, 256)]


@pytest.fixture(scope="module")
def experiment():
    path = Path(__file__).parents[1] / "docs" / "experiments" / "product_aware.py"
    spec = importlib.util.spec_from_file_location("product_aware", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclass looks for its annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["plain", "zero point", "Hadamard"])
def setting(request):
    return request.param


@pytest.fixture
def operands():
    A, B = sample("exponential", 2 * M, K, N, seed=3)
    return A[:M], A[M:], B


@pytest.fixture
def case(experiment, setting, operands):
    return experiment.quantised(*operands, **experiment.SETTINGS[setting])


def library(case_setting, A, B, rank, **how):
    name = "hadamard+lrqmm_aware" if case_setting == "Hadamard" else "lrqmm_aware"
    how |= {"zero_point_a": "integer"} if case_setting == "zero point" else {}
    return lrqmm.matmul(A, B, name, bits=4, rank=rank, **how)


def whole_error(case):
    """R_A B + Ã R_B, float64."""
    left, right = case.left, case.right
    parts = (left.residual, right.exact), (left.approx, right.residual)
    return sum(X.astype(np.float64) @ Y.astype(np.float64) for X, Y in parts)


def test_equal_shares_are_the_librarys_method(experiment, case, setting, operands):
    A, _, B = operands
    C = library(setting, A, B, 5)
    assert np.allclose(case.C + experiment.split(case, 5, 5), C, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("sides", "ranks"), [("a", (10, 0)), ("b", (0, 10))])
def test_all_on_one_side_is_the_library_on_that_side(
    experiment, case, setting, operands, sides, ranks
):
    A, _, B = operands
    C = library(setting, A, B, 10, sides=sides)
    assert np.allclose(case.C + experiment.split(case, *ranks), C, rtol=1e-4, atol=1e-4)


def test_joint_correction_at_full_rank_removes_the_error(experiment, case):
    assert case.error() > 0.02
    assert case.error(experiment.joint(case, min(M, N))) < 1e-5


def test_joint_correction_is_a_near_best_projection_of_the_error(experiment, case):
    E, rank = whole_error(case), 6
    assert np.allclose(E, case.exact - case.C, atol=1e-3)
    correction = experiment.joint(case, rank)
    assert np.linalg.matrix_rank(correction, tol=1e-3) == rank
    squares = [np.linalg.norm(X) ** 2 for X in (correction, E - correction, E)]
    assert np.isclose(squares[0] + squares[1], squares[2], rtol=1e-4)
    best = experiment.smallest_error(case, rank)
    assert best <= case.error(correction) < 1.05 * best


def test_the_bound_is_the_tail_of_the_errors_singular_values(experiment, case):
    s = np.linalg.svd(case.exact - case.C, compute_uv=False)
    tail = np.linalg.norm(s[7:]) / np.linalg.norm(case.exact)
    assert np.isclose(experiment.smallest_error(case, 7), tail, rtol=1e-6)
    assert experiment.smallest_error(case, N) == 0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [4, 16])
def test_ranks_of_equal_cost_are_the_largest(experiment, shape, rank):
    m, k, n = shape
    most = LRQMMAware(rank=rank).cost(m, k, n).float_operations
    for operations in (experiment.joint_operations, experiment.kept_operations):
        s = experiment.largest_rank(operations, m, k, n, rank)
        assert operations(m, k, n, s) <= most < operations(m, k, n, s + 1)
    s = experiment.rank_of_equal_storage(m, k, n, rank)
    factors = LRQMMAware(rank=rank).cost(m, k, n).operand_bits // 32
    assert s * (m + n) <= factors < (s + 1) * (m + n)


def test_a_joint_correction_is_four_thin_passes_and_an_update(experiment):
    m, k, n, width, rank = 12, 200, 30, 10, 2
    once = 2 * width * (k * n + m * k + m * n)  # A (B V) - C V, or its transpose
    assert experiment.joint_operations(m, k, n, rank) == 4 * once + 2 * m * n * rank
    k = 5  # where passes over C would take more than passes over the residuals
    by_residuals = 2 * width * 2 * (k * n + m * k)  # R_A (B V) + Ã (R_B V)
    assert experiment.joint_operations(m, k, n, rank) == 4 * by_residuals + 2 * m * n * rank


@pytest.mark.parametrize("shape", SHAPES)
def test_kept_factors_cost_their_use_alone(experiment, shape):
    m, k, n = shape
    one_side = LRQMMAware(rank=4, sides="a").cost(m, k, n).float_operations
    use = 2 * (m * k * 4 + m * 4 * n) + 2 * 4 * 4 * (k + m)
    assert experiment.kept_operations(m, k, n, 4) == one_side + use


def test_shares_take_the_largest(experiment):
    assert experiment.shares(np.array([5, 4, 1]), np.array([3, 2, 0.5]), 4) == (2, 2)
    assert experiment.shares(np.array([5, 4, 3]), np.array([2, 1]), 3) == (3, 0)
    assert experiment.shares(np.array([1.0]), np.array([3, 2]), 2) == (0, 2)


def test_the_rule_finds_the_side_that_needs_it(experiment, operands):
    A, other, _ = operands
    coarse = np.random.default_rng(0).integers(-7, 8, (K, N)).astype(np.float32)
    coarse[0] = 7  # every column's scale is then 1, and B is quantised without error
    case = experiment.quantised(A, other, coarse)
    (left, right), correction = experiment.chosen_split(case, 4, 8 + experiment.OVERSAMPLING)
    assert (left, right) == (8, 0)
    assert experiment.storage_ratio(case, 4, 8, 0) == 8 * (M + K) / (4 * (M + 2 * K + N))
    assert case.error(correction) < case.error(experiment.split(case, 4, 4))


@pytest.mark.parametrize("way", ["beside", "deflated", "basis"])
def test_means_are_taken_out_exactly(experiment, case, way):
    R, X = case.left.residual, case.right.exact
    U, V = experiment.mean_factors(R, X, 3, LEFT, way)
    assert U.shape == (M, 4)
    assert V.shape == (4, K)
    assert np.allclose((R - U @ V).sum(1), 0, atol=1e-4 * abs(R).sum(1).max())
    if way != "deflated":
        assert np.allclose(U[:, :1].T @ U[:, 1:], 0, atol=1e-5)
    if way == "basis":
        assert np.allclose(U.T @ U, np.eye(4), atol=1e-5)


def test_all_directions_beside_the_mean_remove_the_error(experiment, case):
    R = case.right.residual.T
    U, V = experiment.mean_factors(R, case.left.approx.T, N - 1, RIGHT, "basis")
    assert np.allclose(U @ V, R, atol=1e-4)
    assert case.error(experiment.mean_first(case, N, "basis")) < 1e-5


def test_factors_found_on_the_operand_itself_are_the_method(experiment, case):
    same = experiment.Case(case.left, case.right, case.left, case.C, case.exact)
    aware = experiment.split(case, 5, 5)
    for found_on in ("operand", "other rows"):
        assert np.allclose(experiment.kept(same, 5, found_on), aware, rtol=1e-4, atol=1e-4)
    left = [experiment.remaining(case, 5, way) for way in ("operand", "other rows", "none")]
    assert left[0] < left[1] < left[2] == 1


def test_every_table_is_filled(experiment):
    found, shapes = experiment.measure(size=48, seeds=1, ranks=(2,), layers=False)
    assert set(shapes.values()) == {(48, 48, 48)}
    for table, (default, columns) in experiment.COMPARED.items():
        assert len(found[table]) == len(experiment.DISTRIBUTIONS) * len(experiment.SETTINGS)
        for values in found[table].values():
            assert {default, *columns} <= set(values)
            assert np.isfinite(list(values.values())).all()
        lines = experiment.summary_table(found[table], default, columns, (2,)).splitlines()
        assert len(lines) == 2 + len(columns)
        assert len(experiment.values_table(found[table], 2).splitlines()) == 2 + len(found[table])
    assert "distributions" in experiment.cost_table(shapes, (2,))
    assert "free rule" in experiment.regret_table(found["split"], (2,))


def test_a_cell_is_the_median_and_the_range(experiment):
    assert experiment.cell([3.0, 1.0, 2.0]) == "2 [1, 3]"
    assert experiment.cell([0.12341, 0.12342]) == "0.123"
