"""A network whose layers multiply by a method, against the network itself."""

import numpy as np
import pytest
import torch
from torch import nn

import lrqmm
from lrqmm.nn.im2col import im2col, weight_matrix
from lrqmm.nn.left import gemm_layers
from lrqmm.nn.replace import Product, products, replace_layers


def small(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 25, 10),
    ).eval()


@pytest.fixture
def pictures():
    return torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(1))


CONVOLUTIONS = [
    dict(kernel_size=1),
    dict(kernel_size=1, stride=2, bias=False),
    dict(kernel_size=3, padding=1),
    dict(kernel_size=(3, 5), stride=(2, 1), padding=(0, 2), dilation=(2, 1)),
    dict(kernel_size=4, padding="same"),
    dict(kernel_size=3, padding="valid"),
    dict(kernel_size=3, padding=1, padding_mode="reflect"),
    dict(kernel_size=3, padding=(2, 1), padding_mode="circular"),
    dict(kernel_size=3, padding="same", padding_mode="replicate", dilation=2),
    dict(kernel_size=3, groups=2, padding=1),
    dict(kernel_size=(1, 2), groups=6, stride=(1, 2)),
]


@pytest.mark.parametrize("how", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_every_kind_of_convolution_is_a_product(how, memory):
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 12, **how)
    x = torch.randn(3, 6, 11, 8).to(memory_format=memory)
    found = replace_layers(nn.Sequential(layer), "sgemm")(x)
    with torch.no_grad():
        expected = layer(x)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_linear_layers_take_any_leading_dimensions():
    torch.manual_seed(0)
    layer = nn.Linear(7, 5)
    for shape in ((7,), (3, 7), (2, 3, 7)):
        x = torch.randn(*shape)
        found = replace_layers(nn.Sequential(layer), "sgemm")(x)
        torch.testing.assert_close(found, layer(x).detach())


def test_float_products_give_the_networks_own_answer(pictures):
    model = small()
    found, expected = replace_layers(model, "sgemm")(pictures), model(pictures).detach()
    assert torch.linalg.norm(found - expected) < 1e-6 * torch.linalg.norm(expected)


@pytest.mark.parametrize("execution", ["plain", "fused"])
@pytest.mark.parametrize("method", ["direct", "lrqmm", "lrqmm_aware"])
def test_each_layer_is_the_methods_product(pictures, method, execution):
    model = small()
    low = replace_layers(model, method, bits=4, execution=execution)
    seen = {}
    for name, layer in products(low).items():
        layer.register_forward_hook(lambda _, x, y, name=name: seen.update({name: (x[0], y)}))
    low(pictures)
    for name, layer in gemm_layers(model).items():
        x, y = seen[name]
        A, places = im2col(layer, x)
        C = lrqmm.matmul(A, weight_matrix(layer), method, bits=4, execution=execution)
        C = C if layer.bias is None else C + layer.bias.detach()
        C = C.reshape(*places, -1)
        C = C if isinstance(layer, nn.Linear) else C.permute(0, 3, 1, 2)
        torch.testing.assert_close(y, C, rtol=1e-4, atol=1e-4)
        assert products(low)[name].shape == (*A.shape, C.shape[1])


def test_layers_calibrate_on_the_float_networks_inputs(pictures, monkeypatch):
    monkeypatch.setattr("lrqmm.nn.replace.SAMPLE_ROWS", 50)
    model, others = small(), torch.randn(5, 3, 9, 9, generator=torch.Generator().manual_seed(2))
    low = replace_layers(model, "qera", bits=4, rank=2, calibration=others)
    inputs, seen = {}, {}
    for name, layer in gemm_layers(model).items():
        layer.register_forward_hook(lambda _, x, y, name=name: inputs.update({name: x[0]}))
    model(others)
    for name, layer in products(low).items():
        layer.register_forward_hook(lambda _, x, y, name=name: seen.update({name: (x[0], y)}))
    low(pictures)
    for name, layer in gemm_layers(model).items():
        sample = im2col(layer, inputs[name])[0]
        rows = torch.randperm(len(sample), generator=torch.Generator().manual_seed(0))
        sample = sample[rows[:50].sort().values]
        A, places = im2col(layer, seen[name][0])
        W = weight_matrix(layer)
        C = lrqmm.matmul(A, W, "qera", bits=4, rank=2, calibration=sample.detach())
        C = C if layer.bias is None else C + layer.bias.detach()
        C = C.reshape(*places, -1)
        C = C if isinstance(layer, nn.Linear) else C.permute(0, 3, 1, 2)
        torch.testing.assert_close(seen[name][1], C, rtol=1e-4, atol=1e-4)


def test_a_calibration_that_cannot_be_used(pictures):
    with pytest.raises(ValueError, match="calibration is given; allowed with a method"):
        replace_layers(small(), "direct", calibration=pictures)
    grouped = nn.Sequential(nn.Conv2d(4, 4, 1, groups=2))
    x = torch.randn(1, 4, 3, 3)
    with pytest.raises(ValueError, match="layer '0' is a grouped convolution"):
        replace_layers(grouped, "qera", calibration=x)
    both = nn.Sequential(nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 4, 1))
    replace_layers(both, "qera", keep=["0"], calibration=x)(x)


def test_calibrating_leaves_the_model_alone(pictures):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
                          nn.Linear(392, 5)).train()  # fmt: skip
    before = {name: value.clone() for name, value in model.state_dict().items()}
    replace_layers(model, "qera", calibration=pictures)
    assert model.training
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_the_model_is_left_alone_and_its_weights_are_shared(pictures):
    model = small().train()
    before = model(pictures).detach()
    low = replace_layers(model, "direct")
    assert model.training
    assert not low.training
    assert not products(model)
    torch.testing.assert_close(model(pictures).detach(), before)
    assert low.get_submodule("0").layer.weight.data_ptr() == model[0].weight.data_ptr()


def test_methods_by_layer(pictures):
    model = small()
    aware, direct = lrqmm.get_method("lrqmm_aware", rank=2), lrqmm.get_method("direct", bits=2)
    low = replace_layers(model, {"3": aware, "*": direct}, keep=["0"])
    assert [product.method.name for product in products(low).values()] == [
        "sgemm", "lrqmm_aware", "direct",
    ]  # fmt: skip
    with torch.no_grad():
        assert not low(pictures).requires_grad
    with pytest.raises(RuntimeError, match="a gradient is asked for"):
        low(pictures).sum().backward()
    with pytest.raises(RuntimeError, match="training mode; allowed with low-bit products: eval"):
        low.train()(pictures)
    cost = products(low)["3"].cost
    assert cost.operand_bits == aware.cost(4 * 25, 8, 16).operand_bits


def test_costs_of_groups_add_up():
    layer = nn.Sequential(nn.Conv2d(6, 12, 3, groups=3))
    low = replace_layers(layer, "direct")
    with pytest.raises(ValueError, match="no product was computed yet"):
        _ = products(low)["0"].cost
    low(torch.randn(2, 6, 5, 5))
    one = lrqmm.get_method("direct").cost(2 * 9, 2 * 9, 4)
    assert products(low)["0"].cost.integer_operations == 3 * one.integer_operations


def test_ten_pictures_in_a_gemm_are_a_batch_of_ten(pictures):
    layer = nn.Sequential(nn.Conv2d(3, 8, 3))
    low = replace_layers(layer, "lrqmm", bits=3, rank=2)
    together, apart = low(pictures), torch.cat([low(x[None]) for x in pictures])
    assert isinstance(low[0], Product)
    assert low[0].shape == (49, 27, 8)
    exact = layer(pictures).detach()
    errors = [float(torch.linalg.norm(y - exact)) for y in (together, apart)]
    assert not torch.equal(together, apart)  # the low-rank part of the activations is shared
    assert np.isclose(*errors, rtol=0.5)


@pytest.mark.parametrize(
    ("method", "how", "error", "message"),
    [
        ("direkt", {}, ValueError, "direkt"),
        ("direct", dict(bits=9), ValueError, "bits is 9"),
        ("direct", dict(keep=["conv1"]), ValueError, "'conv1' fits no layer; there are 0, 3, 6"),
        ({"3": lrqmm.get_method("direct")}, {}, ValueError, "layer '0' fits no pattern"),
        (lrqmm.get_method("direct"), dict(bits=4), TypeError, "bits are given"),
    ],
)
def test_mistakes(method, how, error, message):
    with pytest.raises(error, match=message):
        replace_layers(small(), method, **how)
    with pytest.raises(ValueError, match="no layer to replace"):
        replace_layers(nn.Sequential(nn.ReLU()), "direct")
