"""Scores of a network beside its reference, against plain NumPy; coverage of their intervals."""

import math

import numpy as np
import pytest
import torch

from lrqmm._intervals import bootstrap, wilson
from lrqmm.bench.scores import STATISTICS, Scores


def rows(scores: Scores) -> dict[str, dict]:
    return {str(row["metric"]): row for row in scores.rows()}


def random_logits(items: int, classes: int, noise: float, seed: int = 0):
    random = torch.Generator().manual_seed(seed)
    reference = 2 * torch.randn(items, classes, generator=random)
    logits = reference + noise * torch.randn(items, classes, generator=random)
    return logits, reference, torch.randint(classes, (items,), generator=random)


def test_scores_are_their_definitions():
    logits, reference, labels = random_logits(600, 12, 1.0)
    labels[:300] = reference[:300].argmax(1)
    scores = Scores()
    for part in torch.arange(600).split(257):
        scores.add(logits[part], reference[part], labels[part])
    z, y, right = (x.double().numpy() for x in (logits, reference, labels))
    right = right.astype(int)
    hits, top5, reference_hits, same, kl, relative = [], [], [], [], [], []
    for i in range(600):
        order = np.argsort(-z[i])
        hits.append(order[0] == right[i])
        top5.append(right[i] in order[:5])
        reference_hits.append(np.argmax(y[i]) == right[i])
        same.append(order[0] == np.argmax(y[i]))
        p, q = np.exp(y[i]) / np.exp(y[i]).sum(), np.exp(z[i]) / np.exp(z[i]).sum()
        kl.append((p * np.log(p / q)).sum())
        relative.append(np.linalg.norm(z[i] - y[i]) / np.linalg.norm(y[i]))
    want = {
        "top1": np.mean(hits),
        "top5": np.mean(top5),
        "agreement": np.mean(same),
        "top1_drop": np.mean(reference_hits) - np.mean(hits),
        "kl": np.mean(kl),
        "relative_error": np.linalg.norm(z - y) / np.linalg.norm(y),
        "relative_error_median": np.median(relative),
    }
    found = rows(scores)
    assert found.keys() == want.keys()
    for metric, value in want.items():
        assert found[metric]["value"] == pytest.approx(value, rel=1e-9)
        assert found[metric]["low"] < value < found[metric]["high"]
        assert found[metric]["items"] == 600
    assert rows(scores) == found  # the same intervals at every call


def test_tokens_without_labels():
    logits, reference, _ = random_logits(60, 7, 0.5)
    tokens, flat = Scores(), Scores()
    tokens.add(logits.reshape(3, 20, 7), reference.reshape(3, 20, 7))
    flat.add(logits, reference)
    assert tokens.rows() == flat.rows()
    assert set(rows(flat)) == {"agreement", "kl", "relative_error", "relative_error_median"}


def test_the_reference_itself_loses_nothing():
    _, reference, labels = random_logits(50, 9, 0)
    scores = Scores()
    scores.add(reference, reference, labels.tolist())
    found = rows(scores)
    assert found["agreement"]["value"] == 1
    for metric in ("top1_drop", "kl", "relative_error", "relative_error_median"):
        assert [found[metric][key] for key in ("value", "low", "high")] == [0, 0, 0]


def test_small_divergences_are_resolved():
    """KL is quadratic in the error: a tenth of it, a hundredth of the divergence."""
    logits, reference, _ = random_logits(20, 1000, 1e-3)
    values = []
    for factor in (1, 0.1):
        scores = Scores()
        scores.add(reference + factor * (logits - reference), reference)
        values.append(rows(scores)["kl"]["value"])
    assert values[1] == pytest.approx(values[0] / 100, rel=0.02)


def test_equal_logits_are_a_miss():
    scores = Scores()
    scores.add(torch.zeros(4, 10), torch.randn(4, 10), [0, 1, 2, 3])
    assert rows(scores)["top1"]["value"] == rows(scores)["top5"]["value"] == 0


def test_what_cannot_be_scored():
    scores, x = Scores(), torch.randn(3, 5)
    with pytest.raises(ValueError, match="no scores yet; allowed: after add"):
        scores.rows()
    with pytest.raises(ValueError, match=r"\(3, 5\); allowed: the reference's shape, \(3, 4\)"):
        scores.add(x, x[:, :4])
    with pytest.raises(ValueError, match="not finite"):
        scores.add(x / 0, x)
    with pytest.raises(ValueError, match="a label is 5; allowed: 0 to 4"):
        scores.add(x, x, [0, 5, 1])
    with pytest.raises(ValueError, match="a label is -1"):
        scores.add(x, x, torch.tensor([0, -1, 1]))
    with pytest.raises(ValueError, match="labels are 2; allowed: one an item, 3"):
        scores.add(x, x, [0, 1])
    scores.add(x, x, [0, 1, 2])
    with pytest.raises(ValueError, match="allowed: for all or for none"):
        scores.add(x, x)


def test_wilson_is_the_root_of_its_quadratic():
    """(p - share)² = z² share (1 - share) / n at both ends, z = 1.96."""
    for hits, count in ((0, 1), (0, 20), (19, 20), (20, 20), (450, 500)):
        low, high = wilson(hits, count)
        assert 0 <= low <= hits / count <= high <= 1
        for end in (low, high):
            distance = (hits / count - end) ** 2
            assert distance == pytest.approx(1.959964**2 * end * (1 - end) / count, abs=1e-6)
    assert wilson(19, 20) == pytest.approx((0.764, 0.991), abs=1e-3)


@pytest.mark.parametrize("count", [20, 100, 500])
def test_wilson_covers(count):
    """Exact coverage, by the binomial distribution: about 95% on average over the share."""
    coverage = []
    for share in np.linspace(0.05, 0.95, 37):
        inside = [
            h for h in range(count + 1) if wilson(h, count)[0] <= share <= wilson(h, count)[1]
        ]
        coverage.append(
            sum(
                math.exp(
                    math.lgamma(count + 1) - math.lgamma(h + 1) - math.lgamma(count - h + 1)
                    + h * math.log(share) + (count - h) * math.log(1 - share)
                )
                for h in inside
            )
        )  # fmt: skip
    assert np.mean(coverage) == pytest.approx(0.95, abs=0.01)
    assert min(coverage) > 0.9


def test_bootstrap_covers():
    """Intervals of 100 samples hold the value of the whole population in 95% of 300 cases."""
    random = np.random.default_rng(0)
    population = {
        "drop": random.choice([-1.0, 0.0, 1.0], p=[0.05, 0.75, 0.2], size=200_000),
        "kl": random.gamma(2.0, size=200_000),
        "norm": 1 + random.gamma(4.0, size=200_000),
    }
    population["error"] = population["norm"] * random.gamma(3.0, size=200_000)
    for columns, statistic in STATISTICS.values():
        true = statistic(*(population[column] for column in columns))
        inside = 0
        for _ in range(300):
            index = random.integers(200_000, size=100)
            low, high = bootstrap(statistic, *(population[column][index] for column in columns))
            inside += low <= true <= high
        assert 0.90 <= inside / 300 <= 0.98
