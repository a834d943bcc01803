"""Drop-in layers: what they compute, and what they refuse."""

import copy

import pytest
import torch
from torch import nn

import lrqmm
from lrqmm.nn import Linear

METHODS = [("direct", {"bits": 8}), ("lrqmm", {"bits": 4, "rank": 3}), ("lrqmm_aware", {"bits": 4})]


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(33, 17)


@pytest.mark.parametrize(("method", "params"), METHODS)
@pytest.mark.parametrize("shape", [(5, 33), (2, 3, 33), (33,)])
def test_a_layer_is_the_product_and_the_bias(layer, method, params, shape):
    x = torch.randn(shape)
    found = Linear.from_float(layer, method, **params)(x)
    rows = lrqmm.matmul(x.reshape(-1, 33), layer.weight.detach().T, method, **params)
    torch.testing.assert_close(found, (rows + layer.bias.detach()).reshape(*shape[:-1], 17))


def test_calibrated(layer):
    sample, x = torch.randn(64, 33), torch.randn(5, 33)
    found = Linear.from_float(layer, "gptq", calibration=sample, bits=4)(x)
    rows = lrqmm.matmul(x, layer.weight.detach().T, "gptq", calibration=sample, bits=4)
    torch.testing.assert_close(found, rows + layer.bias.detach())


def test_only_inference(layer):
    low = Linear.from_float(layer, "direct")
    x = torch.randn(4, 33, requires_grad=True)
    with pytest.raises(RuntimeError, match="a gradient is asked for; allowed with low-bit"):
        low(x).sum().backward()
    with torch.no_grad():
        assert not low(x).requires_grad
    with pytest.raises(RuntimeError, match="in training mode"):
        low.train()(x)


def test_compile_goes_around_it(layer):
    model = nn.Sequential(nn.Linear(20, 33), nn.ReLU(), Linear.from_float(layer, bits=4)).eval()
    x = torch.randn(6, 20)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, backend="eager")(x), model(x))


def test_what_is_around_it_is_compiled(layer):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.low = Linear.from_float(layer, bits=4)

        def forward(self, x):
            return torch.relu(self.low(torch.sin(x)) + 1)

    compiled = []

    def backend(graph, inputs):
        compiled.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    model, x = Network().eval(), torch.randn(6, 33)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, backend=backend)(x), model(x))
    assert any("sin" in name for name in compiled)
    assert any("relu" in name for name in compiled)
    assert not any("int_mm" in name for name in compiled)


def test_a_layer_that_moves_is_prepared_anew(layer):
    x = torch.randn(4, 33)
    low = Linear.from_float(layer, "direct", bits=8).to(torch.float64)
    expected = lrqmm.matmul(x, layer.weight.detach().float().T, "direct", bits=8)
    assert low.layer.weight.dtype == torch.float64
    torch.testing.assert_close(low(x.double()).float(), expected + layer.bias.detach().float())
    fitted = Linear.from_float(layer, "gptq", calibration=torch.randn(64, 33, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="allowed: to move the network first"):
        copy.deepcopy(fitted).to(torch.float32)


def test_what_is_no_linear_layer():
    with pytest.raises(TypeError, match=r"layer is a Conv2d; allowed: torch\.nn\.Linear"):
        Linear.from_float(nn.Conv2d(3, 4, 1))
    with pytest.raises(TypeError, match="parameters bits are given"):
        Linear.from_float(nn.Linear(3, 4), lrqmm.get_method("direct"), bits=4)


def test_a_network_in_one_call(layer):
    low = lrqmm.replace_layers(nn.Sequential(layer, nn.ReLU()), "direct", bits=4)
    assert "method=get_method('direct', bits=4)" in repr(low)
    with torch.no_grad():
        assert low(torch.randn(4, 33)).shape == (4, 17)
