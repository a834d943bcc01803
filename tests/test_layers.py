"""Errors by layer, and ranks chosen by layer."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import lrqmm
from lrqmm.nn import ranks as layers
from lrqmm.nn.im2col import im2col, weight_matrix
from lrqmm.nn.left import gemm_layers
from lrqmm.nn.ranks import choose_ranks, layer_errors, total_cost
from lrqmm.nn.replace import Product, products, replace_layers


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 20, 2), nn.ReLU(), nn.Flatten(),
        nn.Linear(20 * 16, 24), nn.ReLU(), nn.Linear(24, 10),
    ).eval()  # fmt: skip


@pytest.fixture
def batch():
    return torch.rand(6, 3, 7, 7, generator=torch.Generator().manual_seed(1))


def relative(y, exact):
    return float(torch.linalg.norm(y - exact) / torch.linalg.norm(exact))


def test_errors_by_layer(model, batch):
    low = replace_layers(model, "direct", bits=4, keep=["0"])
    found = layer_errors(low, model, [batch])
    assert list(found) == ["0", "2", "5", "7"]
    x, exact = batch, batch
    with torch.no_grad():
        for name, layer in model.named_children():
            own, alone = layer(x), low.get_submodule(name)(exact)
            x, exact = low.get_submodule(name)(x), layer(exact)
            if name in found:
                assert np.isclose(found[name].alone, relative(alone, exact), rtol=1e-4, atol=1e-6)
                assert np.isclose(found[name].own, relative(x, own), rtol=1e-4, atol=1e-6)
                assert np.isclose(found[name].accumulated, relative(x, exact), rtol=1e-4, atol=1e-6)
    assert found["0"].own < 1e-6
    assert found["7"].own > 0.01


def test_errors_over_batches_are_pooled(model, batch):
    low = replace_layers(model, "direct", bits=4)  # rows do not depend on each other
    whole, parts = layer_errors(low, model, [batch]), layer_errors(low, model, batch.split(2))
    for name, error in whole.items():
        assert np.isclose(error.accumulated, parts[name].accumulated, rtol=1e-4)


def test_hooks_are_gone_after_a_failure(model, batch):
    low = replace_layers(model, "direct")
    with pytest.raises(RuntimeError):
        layer_errors(low, model, [batch[:, :2]])
    assert not any(m._forward_hooks for net in (low, model) for m in net.modules())


def aware(rank):
    return lrqmm.get_method("lrqmm_aware", bits=3, rank=rank)


def brute_force(model, batch, ranks):
    """Predicted error and bits of every layer at every rank, one product at a time."""
    seen, hooks = {}, []
    for name, layer in gemm_layers(model).items():
        keep = lambda layer, x, _, name=name: seen.update({name: (layer, x[0])})  # noqa: E731
        hooks.append(layer.register_forward_hook(keep))
    model(batch)
    for hook in hooks:
        hook.remove()
    table = {}
    for name, (layer, x) in seen.items():
        A, B = im2col(layer, x.detach())[0], weight_matrix(layer)
        m, k, n = *A.shape, B.shape[1]
        alone = replace_layers(model, {name: aware(ranks[0]), "*": lrqmm.get_method("sgemm")})
        effect = relative(alone(batch), model(batch))
        first = relative(aware(ranks[0]).matmul(A, B), A @ B)
        table[name] = {
            rank: (
                effect * relative(aware(rank).matmul(A, B), A @ B) / first,
                aware(rank).cost(m, k, n).operand_bits,
            )
            for rank in ranks
            if rank <= max(min(m, k), min(k, n))
        }
    return table


def test_a_target_error_is_reached_with_few_bits(model, batch):
    ranks = (0, 2, 4)
    table = brute_force(model, batch, ranks)
    first, last = (np.hypot.reduce([steps[r][0] for steps in table.values()]) for r in (0, 4))
    target = 0.7 * first + 0.3 * last
    plan = choose_ranks(model, batch, aware, ranks=ranks, error=target)
    chosen = [table[name][rank] for name, rank in plan.ranks.items()]
    assert np.isclose(plan.error, np.hypot.reduce([e for e, _ in chosen]), rtol=1e-3)
    assert plan.error <= target
    # within the bits of one step of the cheapest choice that reaches it
    cheapest = min(
        sum(bits for _, bits in choice)
        for choice in itertools.product(*(t.values() for t in table.values()))
        if np.hypot.reduce([e for e, _ in choice]) <= target
    )
    step = max(t[2][1] - t[0][1] for t in table.values())
    assert sum(bits for _, bits in chosen) <= cheapest + step
    low = replace_layers(model, {name: aware(rank) for name, rank in plan.ranks.items()})
    low(batch)
    assert np.isclose(total_cost(low)[1], plan.average_bits)


def test_a_budget_is_never_exceeded(model, batch):
    least = choose_ranks(model, batch, aware, ranks=(0, 1, 2, 4), average_bits=0)
    assert set(least.ranks.values()) == {0}
    tight = choose_ranks(
        model, batch, aware, ranks=(0, 1, 2, 4), average_bits=1.1 * least.average_bits
    )
    loose = choose_ranks(model, batch, aware, ranks=(0, 1, 2, 4), average_bits=1e9)
    assert least.average_bits < tight.average_bits <= 1.1 * least.average_bits
    assert loose.error < tight.error < least.error
    assert set(loose.ranks.values()) == {4}


def test_kept_layers_count_in_the_budget_and_have_no_rank(model, batch):
    every = choose_ranks(model, batch, aware, average_bits=1e9, keep=["0"])
    assert list(every.ranks) == ["2", "5", "7"]
    plan = choose_ranks(model, batch, aware, average_bits=0.8 * every.average_bits, keep=["0"])
    assert plan.average_bits <= 0.8 * every.average_bits
    ranks = {name: aware(rank) for name, rank in plan.ranks.items()}
    low = replace_layers(model, ranks, keep=["0"])
    low(batch)
    assert np.isclose(total_cost(low)[1], plan.average_bits)
    with pytest.raises(ValueError, match="every layer; allowed: to leave some"):
        choose_ranks(model, batch, aware, average_bits=5, keep=["*"])


def test_no_rank_is_bought_that_makes_the_prediction_worse(monkeypatch):
    options = {
        "flat": [layers._Option(r, e, b, 1) for r, e, b in [(0, 4, 0), (1, 4.1, 1), (2, 1, 2)]],
        "bad": [layers._Option(0, 3, 0, 1), layers._Option(1, 3.5, 1, 1)],
    }
    monkeypatch.setattr(layers, "_options", lambda *_: options)
    monkeypatch.setattr(layers, "_effects", lambda *_: {"flat": 4, "bad": 3})
    monkeypatch.setattr(layers, "gemm_layers", lambda _: {"flat": None, "bad": None})
    plan = choose_ranks(nn.Identity(), None, aware, average_bits=10)
    assert plan.ranks == {"flat": 2, "bad": 0}
    assert plan.error == np.hypot(1, 3)


def test_a_layer_that_runs_twice_and_one_with_two_names():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first = nn.Linear(6, 6)
            self.second = nn.Linear(6, 6)
            self.other = self.first

        def forward(self, x):
            return self.other(self.second(self.first(x).relu()).relu())

    model, x = Twice(), torch.rand(5, 6)
    low = replace_layers(model, "direct", bits=3)
    assert low.other is low.first
    assert isinstance(low.first, Product)
    found = layer_errors(low, model, [x])
    assert list(found) == ["first", "second"]
    outputs = []
    for network in (low, model):
        first = network.first(x)
        outputs.append(torch.cat([first, network(x)]).detach())
    assert np.isclose(found["first"].accumulated, relative(*outputs), rtol=1e-4)


def test_what_is_asked_for_must_be_one_thing(model, batch):
    for how in ({}, dict(error=0.1, average_bits=5)):
        with pytest.raises(ValueError, match="one of error and average_bits"):
            choose_ranks(model, batch, aware, **how)
    with pytest.raises(ValueError, match="rising ranks"):
        choose_ranks(model, batch, aware, ranks=(4, 2), error=0.1)


def test_total_cost_is_the_sum_over_layers(model, batch):
    low = replace_layers(model, "direct", bits=4, keep=["7"])
    low(batch)
    cost, bits = total_cost(low)
    each = [product.cost for product in products(low).values()]
    assert cost.integer_operations == sum(c.integer_operations for c in each)
    assert cost.float_operations == 2 * 6 * 24 * 10
    assert 4 < bits < 32
