"""The rank that a tolerance needs: met, and not much more than needed."""

import warnings

import numpy as np
import pytest
from oracle import distance, product

import lrqmm
from lrqmm.bench.sources.distributions import sample
from lrqmm.methods import preset
from lrqmm.products.adaptive import MARGIN, Search, ToleranceNotReached
from lrqmm.products.parts import Operand
from lrqmm.products.quantize import Uniform

KINDS = ("lowrank", "outliers", "correlated", "exponential", "lognormal")


def problem(seed):
    """Operands, bits and a tolerance that some rank meets."""
    rng = np.random.default_rng(seed)
    m, k, n = (int(size) for size in rng.integers(192, 513, 3))
    A, B = sample(KINDS[seed % len(KINDS)], m, k, n, seed=seed)
    bits = int(rng.choice([3, 4, 6]))
    method = ("lrqmm", "lrqmm_aware")[seed % 2]
    limit = min(m, k, n) // 8
    curve = [
        distance(lrqmm.matmul(A, B, method, bits=bits, rank=r), product(A, B)) for r in (0, limit)
    ]
    return A, B, bits, method, limit, curve[1] + rng.random() * (curve[0] - curve[1])


def test_tolerances_are_met_with_little_more_rank_than_needed():
    met, frugal, problems = 0, 0, 0
    for seed in range(100):
        A, B, bits, method, _limit, tolerance = problem(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ToleranceNotReached)
            ranks, C = [], None
            for eps in (tolerance, 0.97 * tolerance):
                found = search(A, B, bits, method)
                try:
                    C_r, _ = found.smallest(eps / MARGIN)
                except LookupError:
                    continue
                ranks.append(found.rank)
                C = C_r if C is None else C
        if C is None or len(ranks) < 2:
            continue
        problems += 1
        met += distance(C, product(A, B)) <= tolerance
        frugal += ranks[0] <= ranks[1] + 2
    assert problems >= 60
    assert met >= 0.95 * problems
    assert frugal >= 0.95 * problems


def search(A, B, bits, method):
    compensator = preset(method).compensator(rank="auto", tolerance=0.1)
    quantizer = Uniform(bits=bits)
    left = Operand.quantize(A, quantizer)
    right, state = compensator.quantize_right(B, quantizer, None)
    C = lrqmm.matmul(A, B, "direct", bits=bits)
    return Search(C, left, right, *compensator._both_factors(left, right, state), "full", 0)


def test_estimates_are_near_the_measured_error():
    off = []
    for seed in range(10):
        A, B, bits, method, _limit, _ = problem(seed)
        found = search(A, B, bits, method)
        for rank in (0, 1, found.largest // 2, found.largest):
            C, estimate = found.at(rank)
            off.append(estimate / distance(C, product(A, B)) - 1)
    assert np.abs(off).max() < 0.1
    assert np.median(np.abs(off)) < 0.02


@pytest.mark.parametrize("method", ["lrqmm", "lrqmm_aware"])
def test_the_public_face(method):
    A, B = sample("lowrank", 200, 220, 210, seed=0)
    found = lrqmm.matmul(A, B, method, bits=4, rank="auto", tolerance=0.15)
    direct = distance(lrqmm.matmul(A, B, bits=4, rank=0), product(A, B))
    if method == "lrqmm_aware":
        assert distance(found, product(A, B)) <= 0.15 < direct
    assert lrqmm.get_method(method, rank="auto", tolerance=0.1).parameters["rank"] == "auto"


def test_a_tolerance_that_no_rank_meets():
    A, B = sample("normal", 128, 160, 140, seed=0)
    with pytest.warns(ToleranceNotReached, match="the tolerance 0.001 is not reached") as caught:
        C = lrqmm.matmul(A, B, bits=4, rank="auto", tolerance=1e-3)
    (warning,) = caught
    measured = distance(C, product(A, B))
    assert warning.message.estimate == pytest.approx(measured, rel=0.1)
    enough = distance(
        lrqmm.matmul(A, B, "direct", bits=min(8, warning.message.bits)), product(A, B)
    )
    assert enough < measured / 8
    with pytest.raises(ArithmeticError, match=r"is not reached: about 0\.1"):
        lrqmm.matmul(A, B, bits=4, rank="auto", tolerance=1e-3, on_unreachable="raise")


def test_unreachable_tolerances_may_be_met_by_two_slices(recwarn):
    A, B = sample("normal", 96, 80, 72, seed=0)
    how = dict(rank="auto", on_unreachable="slices")
    C = lrqmm.matmul(A, B, bits=6, tolerance=5e-3, **how)
    assert not len(recwarn)
    np.testing.assert_array_equal(C, lrqmm.matmul(A, B, "two_slice", bits=6))
    assert distance(C, product(A, B)) < 5e-3
    with pytest.warns(ToleranceNotReached) as caught:
        again = lrqmm.matmul(A, B, bits=6, tolerance=1e-5, **how)
    np.testing.assert_array_equal(C, again)
    (warning,) = caught
    assert "with two slices" in str(warning.message)
    assert warning.message.estimate == pytest.approx(distance(C, product(A, B)), rel=0.2)
    assert warning.message.bits > 12


def test_two_slices_are_not_taken_where_they_are_worse():
    A, B = sample("uniform01", 200, 200, 200, seed=0)
    how = dict(bits=4, rounding="truncate", rank="auto", tolerance=1e-3)
    with pytest.warns(ToleranceNotReached, match="at the largest rank"):
        C = lrqmm.matmul(A, B, **how, on_unreachable="slices")
    slices = lrqmm.matmul(A, B, "two_slice", bits=4, rounding="truncate")
    assert distance(C, product(A, B)) < distance(slices, product(A, B))


def test_two_slices_of_what_was_taken_out_too():
    A, B = sample("uniform01", 90, 80, 70, seed=0)
    how = dict(bits=4, rank="auto", tolerance=2e-4, on_unreachable="slices")
    with pytest.warns(ToleranceNotReached):
        C = lrqmm.matmul(A, B, "lrqmm_first", **how)
    assert distance(C, product(A, B)) < 2e-3


def test_columns_multiplied_apart_are_refused():
    A, B = sample("normal", 64, 64, 64, seed=0)
    with pytest.raises(ValueError, match="columns apart"):
        lrqmm.matmul(A, B, "resq+lrqmm", bits=4, rank="auto", tolerance=0.1)


@pytest.mark.parametrize(
    ("given", "failure", "said"),
    [
        (dict(rank="auto"), TypeError, "tolerance is None; allowed: a number"),
        (dict(rank="auto", tolerance=2.0), ValueError, r"tolerance is 2.0; allowed: a number from"),
        (dict(rank=3, tolerance=0.1), ValueError, "allowed: with rank='auto'"),
        (dict(rank=3, on_unreachable="raise"), ValueError, "rank 3; allowed: with rank='auto'"),
        (dict(on_unreachable="slices"), ValueError, "rank None; allowed: with rank='auto'"),
        (dict(rank="much"), TypeError, "rank is 'much'; allowed: an integer"),
        (dict(on_unreachable="x"), ValueError, "'x'; allowed: 'warn', 'slices', 'raise'"),
        (
            dict(rank="auto", tolerance=0.1, execution="fused"),
            ValueError,
            "rank is 'auto'; allowed: an integer or None with execution='fused'",
        ),
    ],
)
def test_wrong_parameters(given, failure, said):
    with pytest.raises(failure, match=said):
        lrqmm.get_method("lrqmm", **given)
