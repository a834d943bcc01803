"""What a replaced layer promises: the float layer's face, the weight as it is, no silence."""

import copy
import io
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import lrqmm
from lrqmm.bench.compare import compare
from lrqmm.nn import Linear
from lrqmm.nn.im2col import im2col, weight_matrix
from lrqmm.nn.left import gemm_layers, left_out
from lrqmm.nn.ranks import choose_ranks, layer_errors, total_cost, weight_bits
from lrqmm.nn.replace import Product, products, replace_layers


def error(y, exact):
    exact = exact.detach()
    return float(torch.linalg.norm(y.detach() - exact) / torch.linalg.norm(exact))


def rows(count=5, width=64, seed=1):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def linear(k=64, n=32, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(k, n).eval()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10)).eval()


@pytest.fixture(autouse=True)
def no_unforeseen_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")  # torch's own
        yield


# a network that is a layer


@pytest.mark.parametrize("layer", [linear(), nn.Conv2d(3, 8, 3)], ids=["linear", "conv"])
def test_a_network_that_is_a_layer_is_replaced(layer):
    x = rows() if isinstance(layer, nn.Linear) else torch.randn(2, 3, 9, 9)
    low = replace_layers(layer, "direct", bits=2)
    assert isinstance(low, Product)
    assert 0.05 < error(low(x), layer(x)) < 1
    assert list(products(low)) == [""]
    assert total_cost(low)[0].integer_operations > 0
    assert replace_layers(layer, {"*": "direct"}).method.name == "direct"
    kept = replace_layers(layer, "direct", keep=["*"])
    assert type(kept) is type(layer)
    torch.testing.assert_close(kept(x), layer(x))
    with pytest.raises(ValueError, match="fits no layer; there are '' \\(the network itself\\)"):
        replace_layers(layer, "direct", keep=["fc"])


# layers that do more


class Tripled(nn.Linear):
    def forward(self, input):
        return 3 * super().forward(input)


class LoRA(nn.Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.down, self.up = nn.Linear(sizes[0], 4, bias=False), nn.Linear(4, sizes[1], bias=False)

    def forward(self, input):
        return super().forward(input) + self.up(self.down(input))


class Standardised(nn.Conv2d):
    def forward(self, input):
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / w.std((1, 2, 3), keepdim=True)
        return self._conv_forward(input, w, self.bias)


class StandardisedInside(nn.Conv2d):
    def _conv_forward(self, input, weight, bias):
        return super()._conv_forward(input, weight / weight.norm(), bias)


class HalfWeight(nn.Linear):
    @property
    def weight(self):
        if "weight" not in self._parameters:
            raise AttributeError("weight")
        return self._parameters["weight"] / 2


def half_weight():
    layer = HalfWeight(64, 32)
    nn.init.normal_(layer._parameters["weight"])
    return layer


class SameThing(nn.Linear):
    def extra_repr(self):
        return "the same"


def patched():
    layer = linear()
    inner = layer.forward
    layer.forward = lambda input: 3 * inner(input)
    return layer


def pruned_bias():
    return prune.random_unstructured(linear(), "bias", 0.5)


MORE = {
    "tripled": (lambda: Tripled(64, 32), "Tripled has a forward of its own"),
    "lora": (lambda: LoRA(64, 32), "LoRA has a forward of its own"),
    "standardised": (lambda: Standardised(3, 8, 3), "Standardised has a forward of its own"),
    "inside": (lambda: StandardisedInside(3, 8, 3), "has a _conv_forward of its own"),
    "property": (half_weight, "its weight is computed at each call"),
    "patched": (patched, "its forward was replaced"),
    "weight norm": (
        lambda: parametrizations.weight_norm(linear()), "its weight is computed at each call",
    ),
    "spectral norm": (
        lambda: nn.utils.spectral_norm(linear()).eval(), "its weight is computed at each call",
    ),
    "pruned": (
        lambda: prune.l1_unstructured(linear(), "weight", 0.5),
        "its weight is computed at each call",
    ),
    "pruned bias": (pruned_bias, "its bias is computed at each call"),
}  # fmt: skip


@pytest.mark.parametrize("name", MORE)
def test_a_layer_that_does_more_stays_and_is_told(name):
    make, reason = MORE[name]
    torch.manual_seed(0)
    layer = make()
    x = rows() if isinstance(layer, nn.Linear) else torch.randn(2, 3, 9, 9)
    exact = layer(x)
    model = nn.Sequential(layer).eval()
    with pytest.warns(UserWarning, match=reason):
        low = replace_layers(model, "direct", bits=8)
    assert error(low(x), exact) < 0.02
    assert reason in left_out(model)["0"]
    assert left_out(low)["0"] == left_out(model)["0"]
    quiet = replace_layers(model, "direct", bits=8, keep=["0"])  # no warning
    assert error(quiet(x), exact) < 0.02
    assert left_out(quiet)["0"] == "kept"


def test_layers_inside_a_layer_that_does_more_are_replaced():
    model = nn.Sequential(LoRA(64, 32)).eval()
    with pytest.warns(UserWarning, match="0: LoRA"):
        low = replace_layers(model, "direct", bits=4)
    assert [type(layer).__name__ for layer in products(low).values()] == [
        "Kept", "Product", "Product",
    ]  # fmt: skip
    assert error(low(rows()), model(rows())) > 1e-4


def test_a_subclass_that_computes_the_same_is_replaced():
    torch.manual_seed(0)
    layer = SameThing(64, 32)
    low = replace_layers(nn.Sequential(layer), "direct", bits=8)
    assert isinstance(low[0], Product)
    assert 0 < error(low(rows()), layer(rows())) < 0.02


def test_a_single_layer_that_does_more_is_refused():
    for make, reason in (MORE["tripled"], MORE["weight norm"]):
        with pytest.raises(TypeError, match=reason):
            Linear.from_float(make(), "direct")
    with pytest.raises(TypeError, match="which is replaced already"):
        Linear.from_float(Linear.from_float(linear(), "direct"), "direct")


def test_lazy_layers_are_replaced_once_they_have_a_weight():
    model = nn.Sequential(nn.LazyLinear(32), nn.LazyConv2d(4, 1)).eval()
    with pytest.raises(ValueError, match="layer '0': layer has no weight yet"):
        replace_layers(model, "direct")
    layer = nn.Sequential(nn.LazyLinear(32)).eval()
    exact = layer(rows())
    low = replace_layers(layer, "direct", bits=8)
    assert isinstance(low[0], Product)
    assert 0 < error(low(rows()), exact) < 0.02


# other kinds


def test_other_kinds_of_layer_are_told():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix = nn.Parameter(torch.randn(4, 4))

    model = nn.ModuleDict(
        {
            "a": nn.Conv1d(3, 4, 1), "b": nn.ConvTranspose2d(3, 4, 1), "c": nn.LSTM(3, 4),
            "d": nn.Bilinear(3, 3, 2), "e": nn.MultiheadAttention(8, 2), "f": Bare(),
            "g": nn.Embedding(5, 3), "h": nn.LayerNorm([3, 4]), "i": nn.Linear(3, 4),
            "j": parametrizations.weight_norm(nn.Conv3d(3, 4, 1)), "k": nn.GRUCell(3, 4),
        }
    )  # fmt: skip
    left = left_out(model)
    assert list(left) == ["a", "b", "c", "d", "e", "e.out_proj", "f", "j", "k"]
    assert left["c"] == "a LSTM, which is not replaced"
    assert left["f"] == "a Bare with parameters of its own (matrix)"
    with pytest.warns(UserWarning, match=r"not every layer is replaced.*a: a Conv1d.*e.out_proj"):
        low = replace_layers(model, "direct")
    assert left_out(low) == left
    replace_layers(model, "direct", keep=[*"abcdefjk", "e.*"])
    with pytest.raises(ValueError, match="no layer to replace"):
        replace_layers(nn.Conv1d(3, 4, 1), "direct")


# attention


def encoder_layer(**how):
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, **how).eval()


def sequences(length=7):
    return torch.randn(3, length, 32, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_an_encoder_layer_multiplies_by_the_method(context, activation):
    model, x = encoder_layer(activation=activation), sequences()
    with pytest.warns(UserWarning, match="self_attn: a MultiheadAttention, which is not replaced"):
        low, fine = (replace_layers(model, "direct", bits=b) for b in (2, 8))
    with context():
        y, close, exact = low(x), fine(x), model(x)
    assert error(y, exact) > 0.02  # and not torch's own pass over the float weights
    assert error(close, exact) < 0.01
    assert low.linear1.shape == (21, 32, 64)
    assert low.linear2.shape == (21, 64, 32)


def test_a_layer_put_in_by_hand_is_called_too():
    model, x = encoder_layer(), sequences()
    low = copy.deepcopy(model)
    low.linear1 = Linear.from_float(model.linear1, "direct", bits=2)
    with torch.no_grad():
        assert error(low(x), model(x)) > 0.01
    assert low.linear1.shape == (21, 32, 64)
    with pytest.raises(TypeError, match="MultiheadAttention multiplies by its weight itself"):
        Linear.from_float(model.self_attn.out_proj, "direct")


def test_encoders_decoders_and_attention_run():
    torch.manual_seed(0)
    x, keep = sequences(), ["*self_attn*", "*multihead_attn*"]
    mask = torch.zeros(3, 7, dtype=torch.bool)
    mask[0, 5:] = True
    encoder = nn.TransformerEncoder(encoder_layer(), 2).eval()
    low, fine = (replace_layers(encoder, "direct", bits=b, keep=keep[:1]) for b in (2, 8))
    with torch.no_grad():
        exact = encoder(x, src_key_padding_mask=mask)  # 0 where it is masked
        assert error(low(x, src_key_padding_mask=mask), exact) > 0.02
        assert low.layers[1].linear1.shape == (19, 32, 64)
        assert error(fine(x, src_key_padding_mask=mask), exact) < 0.02
        every = replace_layers(encoder, "direct", keep=["*"])
        assert error(every(x, src_key_padding_mask=mask), exact) < 1e-5
        assert products(every)["layers.1.linear1"].shape == (19, 32, 64)
    run = lambda network, x: network(x, src_key_padding_mask=mask)  # noqa: E731
    assert len(layer_errors(fine, encoder, [x], run)) == 4
    decoder = nn.TransformerDecoderLayer(32, 4, 64, batch_first=True).eval()
    low = replace_layers(decoder, "direct", bits=2, keep=keep)
    assert error(low(x, x), decoder(x, x)) > 0.02
    attention = nn.MultiheadAttention(32, 4, batch_first=True).eval()
    for how in (dict(keep=["*"]), dict(keep=["", "out_proj"])):
        low = replace_layers(attention, "direct", bits=2, **how)
        torch.testing.assert_close(low(x, x, x)[0], attention(x, x, x)[0])
    with pytest.warns(UserWarning, match="no layer is replaced"):
        low = replace_layers(attention, "direct", bits=2)
    torch.testing.assert_close(low(x, x, x)[0], attention(x, x, x)[0])
    with pytest.raises(ValueError, match="no product was computed"):
        total_cost(low)


def test_an_encoder_layer_that_keeps_all_is_the_float_layer():
    model, x = encoder_layer(), sequences()
    low = replace_layers(model, "direct", keep=["linear1", "linear2", "self_attn*"])
    assert type(low.linear1) is nn.Linear
    with torch.no_grad():
        assert error(low(x), model(x)) < 1e-5
    assert total_cost(low)[1] == 32


# hooks


def test_hooks_of_the_float_layers_still_run(model):
    seen = []
    model[0].register_forward_pre_hook(lambda layer, args: (2 * args[0],))
    model[0].register_forward_hook(
        lambda layer, args, kwargs, y: seen.append(layer.in_features) or y + 1, with_kwargs=True
    )
    model[2].register_forward_hook(lambda layer, args, y: -y)
    x = rows()
    low = replace_layers(model, "direct", bits=8)
    assert error(low(x), model(x)) < 0.03
    assert seen == [64, 64]
    errors = layer_errors(low, model, [x])
    assert max(e.own for e in errors.values()) < 0.03
    assert max(e.accumulated for e in errors.values()) < 0.05
    plan = choose_ranks(
        model, x, lambda rank: lrqmm.get_method("lrqmm", bits=8, rank=rank), average_bits=9
    )
    assert plan.error < 0.05
    layer = model[2]
    low = Linear.from_float(layer, "direct", bits=8)
    x = rows(width=48)
    assert error(low(x), layer(x)) < 0.03
    assert len(layer._forward_hooks) == 1


# replaced before


def test_what_was_replaced_before_is_told(model):
    x = rows()
    once = replace_layers(model, "direct", bits=8)
    with pytest.raises(ValueError, match="replaced before: 0, 2; allowed: the float network"):
        replace_layers(once, "direct", bits=2)
    half = replace_layers(model, {"2": lrqmm.get_method("direct", bits=2)}, keep=["0"])
    both = replace_layers(half, "lrqmm", bits=8, rank=1, keep=["2"])
    assert [layer.method.name for layer in products(both).values()] == ["lrqmm", "direct"]
    torch.testing.assert_close(both[2](rows(width=48)), half[2](rows(width=48)))
    both(x)
    expected = sum(layer.cost.operand_bits for layer in products(both).values())
    assert total_cost(both)[0].operand_bits == expected
    with pytest.raises(ValueError, match="reference has no float layers '0', '2'; allowed"):
        layer_errors(once, once, [x])
    with pytest.raises(ValueError, match="no layer to replace; allowed: the float network"):
        choose_ranks(once, x, lambda rank: lrqmm.get_method("lrqmm", rank=rank), error=0.1)
    mine = nn.Sequential(Linear.from_float(model[0], "direct"), nn.Linear(48, 10)).eval()
    with pytest.raises(ValueError, match="replaced before: 0;"):
        replace_layers(mine, "direct")
    assert list(gemm_layers(mine)) == ["1"]


def test_tracing_is_refused(model):
    low = replace_layers(model, "direct")
    low(rows())
    with torch.no_grad(), pytest.raises(RuntimeError, match="traced; allowed with low-bit"):
        torch.jit.trace(low, rows())


def test_a_compiled_network_is_refused(model):
    with pytest.raises(ValueError, match="the network is compiled"):
        replace_layers(torch.compile(model, backend="eager"), "direct")


# kept layers, attributes


def test_kept_layers_stay_as_they_are_and_count(model):
    x = rows()
    low = replace_layers(model, "direct", bits=4, keep=["0"])
    assert type(low[0]) is nn.Linear
    torch.testing.assert_close(low[0](x), model[0](x), rtol=0, atol=0)
    low(x)
    float_bits = 32 * (5 * 64 + 64 * 48)
    assert products(low)["0"].cost.operand_bits == float_bits
    direct = lrqmm.get_method("direct", bits=4).cost(5, 48, 10).operand_bits
    assert total_cost(low)[0].operand_bits == float_bits + direct
    assert total_cost(low)[1] == (float_bits + direct) / (5 * 64 + 64 * 48 + 5 * 48 + 48 * 10)
    assert 4 < weight_bits(low) < 32
    assert not model[0]._forward_hooks
    every = replace_layers(model, "direct", keep=["*"])
    every(x)
    assert total_cost(every)[1] == weight_bits(every) == 32
    with pytest.raises(TypeError, match=r"keep is '02'; allowed: a list of patterns, as \['02'\]"):
        replace_layers(model, "direct", keep="02")


def test_a_kept_convolution_counts():
    layer = nn.Conv2d(6, 12, 3, groups=3, stride=2, padding=1)
    model, x = nn.Sequential(layer, nn.Conv2d(12, 2, 1)), torch.randn(2, 6, 9, 9)
    low = replace_layers(model, "direct", keep=["0"])
    low(x)
    kept = products(low)["0"]
    A = im2col(layer, x)[0]
    assert kept.shape == (*A.shape[1:], weight_matrix(layer).shape[-1])
    assert kept.elements == A.numel() + layer.weight.numel()
    assert kept.weight_bits == 32 * layer.weight.numel()


def test_a_layer_that_runs_twice_counts_twice_and_one_that_does_not_counts_not():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.twice, self.kept, self.never = (nn.Linear(6, 6) for _ in range(3))

        def forward(self, x):
            return self.kept(self.kept(self.twice(self.twice(x))[:2]))

    low = replace_layers(Network(), "direct", keep=["kept"])
    direct, x = lrqmm.get_method("direct"), torch.rand(5, 6)
    for _ in range(2):  # the latest pass alone
        low(x)
        cost, _ = total_cost(low)
        assert cost.integer_operations == 2 * direct.cost(5, 6, 6).integer_operations
        assert cost.float_operations == 2 * 2 * 2 * 6 * 6
    low.twice(x)
    part = nn.Sequential(low.twice)
    with pytest.raises(ValueError, match="no product was computed yet"):
        total_cost(replace_layers(nn.Sequential(nn.Linear(3, 3)), "direct"))
    assert products(part)["0"].cost.operand_bits == direct.cost(5, 6, 6).operand_bits
    plan = choose_ranks(
        Network(), x, lambda rank: lrqmm.get_method("lrqmm", rank=rank), average_bits=1e9
    )
    assert plan.ranks["never"] == 0


def test_attributes_are_the_float_layers():
    layer = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    low = replace_layers(nn.Sequential(layer), "direct")[0]
    assert low.weight is low.layer.weight
    assert low.weight.data_ptr() == layer.weight.data_ptr()
    assert (low.in_channels, low.kernel_size, low.stride) == (3, (3, 3), (2, 2))
    low.stride = (1, 1)
    assert low.layer.stride == (1, 1)
    assert low(torch.randn(1, 3, 8, 8)).shape == (1, 8, 8, 8)
    assert not hasattr(low, "in_features")
    with pytest.raises(AttributeError, match="'Product' object has no attribute 'in_features'"):
        _ = low.in_features
    assert list(low.state_dict()) == ["layer.weight", "layer.bias"]


def test_a_network_that_moves_leaves_the_float_one_alone(model):
    low = replace_layers(model, "direct", bits=8)
    low.half()
    assert model[0].weight.dtype == torch.float32
    assert low[0].weight.dtype == torch.float16
    y = low(rows().half())
    assert y.dtype == torch.float16
    assert error(y.float(), model(rows())) < 0.02


# what a layer takes


def test_empty_batches():
    layer = linear()
    for shape in ((0, 64), (2, 0, 64), (0, 3, 64)):
        low = replace_layers(layer, "lrqmm", rank=2)
        assert low(torch.randn(shape)).shape == layer(torch.randn(shape)).shape
    for how in (dict(), dict(groups=2), dict(padding=1, padding_mode="circular")):
        layer = nn.Conv2d(4, 8, 3, **how)
        x = torch.randn(0, 4, 6, 6)
        assert replace_layers(layer, "lrqmm", rank=2)(x).shape == layer(x).shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's initialisation
        narrow = (nn.Linear(0, 3), nn.Linear(3, 0))
    for layer in narrow:
        x = torch.randn(2, layer.in_features)
        torch.testing.assert_close(replace_layers(layer, "direct")(x), layer(x).detach())


PICTURES = [
    dict(), dict(groups=2), dict(padding="same"), dict(stride=2, padding=1),
    dict(padding=1, padding_mode="reflect"), dict(padding=1, padding_mode="circular"),
]  # fmt: skip


@pytest.mark.parametrize("how", PICTURES, ids=str)
def test_a_picture_alone(how):
    torch.manual_seed(0)
    layer, x = nn.Conv2d(4, 8, 3, **how), torch.randn(4, 7, 6)
    torch.testing.assert_close(
        replace_layers(layer, "sgemm")(x), layer(x).detach(), rtol=1e-4, atol=1e-5
    )


def test_inputs_by_name_and_odd_layouts():
    layer, x = linear(), rows()
    low = replace_layers(layer, "direct", bits=8)
    torch.testing.assert_close(low(input=x), low(x))
    torch.testing.assert_close(low(x.T.contiguous().T), low(x))
    torch.testing.assert_close(low(x[:1].expand(5, 64)), low(x[:1].repeat(5, 1)))
    torch.testing.assert_close(
        low(torch.cat([x, x], 1)[:, ::2]), low(torch.cat([x, x], 1)[:, ::2] + 0)
    )
    layer = nn.Conv2d(3, 4, 3)
    low, x = replace_layers(layer, "direct", bits=8), torch.randn(1, 1, 8, 8)
    torch.testing.assert_close(low(input=x.expand(2, 3, 8, 8)), low(x.repeat(2, 3, 1, 1)))
    with torch.inference_mode():
        inside = low(x.expand(2, 3, 8, 8))
    torch.testing.assert_close(inside, low(x.expand(2, 3, 8, 8)))


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
def test_nested_inputs_of_linear_layers(layout):
    layer, parts = linear(), [rows(3), rows(5)]
    low = replace_layers(layer, "direct", bits=8)
    x = torch.nested.nested_tensor(parts, layout=layout)
    y = low(x)
    assert y.is_nested
    for mine, part in zip(y.unbind(), parts, strict=True):
        torch.testing.assert_close(mine, low(part))
    (y + layer(x)).unbind()  # of the same parts as the float layer's


def test_a_network_that_was_replaced_in_inference_mode_runs_outside(model):
    with torch.inference_mode():
        low = replace_layers(model, "lrqmm", bits=8, rank=2)
        inside = low(rows())
    torch.testing.assert_close(low(rows()), inside)


@pytest.mark.parametrize(
    ("layer", "x", "kind", "message"),
    [
        (linear(), torch.randn(3, 5), RuntimeError, r"shape 3 x 5; allowed: \.\.\. x 64"),
        (linear(), torch.tensor(1.0), RuntimeError, r"shape \(\); allowed"),
        (linear(), torch.zeros(3, 64, dtype=torch.int64), RuntimeError, "dtype torch.int64; allow"),
        (linear(), torch.zeros(3, 64).double(), RuntimeError, "allowed: torch.float32"),
        (linear(), [[0.0] * 64], TypeError, "input is a list; allowed: a torch tensor"),
        (linear(), torch.eye(64).to_sparse(), RuntimeError, "input is sparse or nested; allowed"),
        (linear(), torch.empty(3, 64, device="meta"), RuntimeError, "input is on meta; allowed: c"),
        (nn.Conv2d(3, 4, 3), torch.randn(2, 4, 8, 8), RuntimeError, "allowed: pictures x 3 x hei"),
        (nn.Conv2d(3, 4, 3), torch.randn(8, 8), RuntimeError, "shape 8 x 8; allowed"),
        (nn.Conv2d(3, 4, 3), torch.randn(1, 3, 2, 8), RuntimeError, "smaller than the filter of 3"),
        (nn.Conv2d(3, 4, 3, padding=2), torch.randn(1, 3, 0, 8), RuntimeError, "x 0 x 8; allowed"),
    ],
)  # fmt: skip
def test_what_the_float_layer_refuses_is_refused_in_words(layer, x, kind, message):
    if not getattr(x, "is_sparse", False):  # which it takes
        with pytest.raises((RuntimeError, TypeError)):
            layer(x).sum().item()
    low = replace_layers(layer, "direct")
    with pytest.raises(kind, match=message):
        low(x)


def test_float16_bfloat16_and_float64_networks(model):
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        low = replace_layers(copy.deepcopy(model).to(dtype), "direct", bits=8)
        y = low(rows().to(dtype))
        assert y.dtype == dtype
        assert error(y.float(), model(rows())) < 0.02


def test_autocast_gives_what_the_float_layer_gives(model):
    low = replace_layers(model, "lrqmm", bits=8, rank=2)
    expected = low(rows())
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        y, exact = low(rows()), model(rows())
    assert y.dtype == exact.dtype == torch.bfloat16
    assert error(y.float(), expected) < 0.01
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        first = low[0](rows())
    torch.testing.assert_close(first, low[0](rows()).bfloat16())  # inside it is float32


# NaN, infinity, large values

METHODS = [
    ("direct", dict(bits=4)), ("direct", dict(bits=4, granularity="tensor")),
    ("direct", dict(bits=4, granularity="tensor", zero_point="float")), ("nvfp4", {}),
    ("lrqmm", dict(bits=4, rank=2)), ("lrqmm_aware", dict(bits=4, rank=2)),
    ("mean_fix", dict(bits=4)), ("two_slice", dict(bits=4)), ("sgemm", {}), ("naive", dict(bits=4)),
    ("smoothquant", dict(bits=4)), ("mxfp4", {}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "params"), METHODS, ids=str)
def test_a_row_that_is_not_finite_stays_alone(method, params):
    layer = linear()
    low = replace_layers(layer, method, **params)
    x = rows(8) + 3
    for value in (float("nan"), float("inf"), -float("inf"), 3e38, -(2.0**121)):
        spoiled = x.clone()
        spoiled[2, 5], spoiled[6] = value, value
        y, others = low(spoiled), [0, 1, 3, 4, 5, 7]
        torch.testing.assert_close(y[others], low(x[others]))
        torch.testing.assert_close(
            y[[2, 6]], layer(spoiled[[2, 6]]).detach(), equal_nan=True, rtol=1e-4, atol=1e-4
        )
    nothing = torch.full((3, 64), torch.nan)
    assert low(nothing).isnan().all()
    assert low(nothing[0]).isnan().all()


def test_the_nan_of_the_issue():
    torch.manual_seed(0)
    layer = nn.Linear(2, 3)
    x = torch.tensor([[1.0, 2], [torch.nan, 2]])
    y = Linear.from_float(layer, "direct", bits=8)(x)
    assert y[1].isnan().all()
    assert error(y[:1], layer(x[:1])) < 0.02


@pytest.mark.parametrize("groups", [1, 2])
def test_a_pixel_that_is_not_finite_stays_in_its_places(groups):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 8, 3, padding=1, groups=groups)
    x = torch.randn(2, 4, 7, 7)
    x[1, 0, 3, 3] = torch.nan
    y = replace_layers(layer, "direct", bits=8, granularity="tensor")(x)
    nan = y.isnan()
    assert torch.equal(nan, layer(x).isnan())
    assert nan.sum() == 9 * 8 // groups
    assert error(y[~nan], layer(x)[~nan]) < 0.03


def test_half_precision_infinities():
    layer = linear().half()
    x = rows().half()
    x[1, 0] = torch.inf
    y = replace_layers(layer, "direct", bits=8)(x)
    assert torch.equal(y.isfinite().all(1), torch.tensor([True, False, True, True, True]))


def test_a_weight_that_is_not_finite_is_refused(model):
    with torch.no_grad():
        model[2].weight[0, 1] = torch.nan
    with pytest.raises(ValueError, match=r"layer '2': B holds nan at \(1, 0\); allowed: finite"):
        replace_layers(model, "direct")
    calibration = torch.full((4, 64), torch.nan)
    with pytest.raises(ValueError, match="layer '0': calibration holds nan"):
        replace_layers(model, "qera", keep=["2"], calibration=calibration)


# the weight as it is


def doubled(layer):
    with torch.no_grad():
        layer.weight.mul_(2)


def loaded(layer):
    layer.load_state_dict({name: 2 * t for name, t in layer.state_dict().items()})


def assigned(layer):
    layer.load_state_dict({name: 2 * t for name, t in layer.state_dict().items()}, assign=True)


def new_data(layer):
    layer.weight.data = 2 * layer.weight.data


def new_parameter(layer):
    layer.weight = nn.Parameter(2 * layer.weight.detach())


def in_inference_mode(layer):
    with torch.inference_mode():
        layer.weight.mul_(2)


CHANGES = [doubled, loaded, assigned, new_data, new_parameter, in_inference_mode]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("at", ["product", "layer"])
@pytest.mark.parametrize("layer", [linear(), nn.Conv2d(3, 8, 3)], ids=["linear", "conv"])
def test_a_weight_that_changes_is_prepared_anew(change, at, layer):
    x = rows() if isinstance(layer, nn.Linear) else torch.randn(2, 3, 9, 9)
    low = replace_layers(copy.deepcopy(layer), "direct", bits=8)
    low(x)
    for _ in range(2):
        change(low if at == "product" else low.layer)
        assert error(low(x), low.layer(x)) < 0.02
    assert error(low(x), layer(x)) > 0.5


def test_a_weight_made_in_inference_mode_is_followed_too():
    with torch.inference_mode():
        for layer, x in ((linear(), rows()), (nn.Conv2d(3, 8, 3), torch.randn(2, 3, 9, 9))):
            low = replace_layers(layer, "direct", bits=8)
            first = low(x)
            for change in (doubled, loaded, lambda own: own.weight.copy_(own.weight.flip(0))):
                change(low.layer)
                assert error(low(x), low.layer(x)) < 0.02
            assert error(low(x), first) > 0.5


@pytest.mark.parametrize("change", CHANGES)
def test_a_weight_that_changes_after_a_calibration_is_refused(change):
    low = Linear.from_float(linear(), "gptq", calibration=rows(64), bits=4)
    low(rows())
    change(low.layer)
    with pytest.raises(RuntimeError, match="calibrated has changed; allowed: to replace the layer"):
        low(rows())
    with pytest.raises(RuntimeError, match="calibrated has changed"):
        copy.deepcopy(low)(rows())


def test_a_state_dict_is_what_is_multiplied_by(model):
    other = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10)).eval()
    low = replace_layers(model, "direct", bits=8)
    low(rows())
    low.load_state_dict(replace_layers(other, "direct").state_dict())
    assert error(low(rows()), other(rows())) < 0.02


def test_training_the_float_network_is_followed(model):
    low = replace_layers(model, "direct", bits=8)
    low(rows())
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    before = model(rows()).detach()
    model(rows()).square().sum().backward()
    optimizer.step()
    assert error(before, model(rows())) > 0.1
    assert error(low(rows()), model(rows())) < 0.02


def test_what_torch_does_not_count_is_prepared_on_demand():
    low = Linear.from_float(linear(), "direct", bits=8)
    low.layer.weight.data.mul_(2)
    low.prepare_again()
    assert error(low(rows()), low.layer(rows())) < 0.02
    fitted = Linear.from_float(linear(), "gptq", calibration=rows(64))
    with pytest.raises(RuntimeError, match="calibrated"):
        fitted.prepare_again()


@pytest.mark.parametrize(
    ("method", "calibration"), [("direct", None), ("lrqmm", None), ("gptq", rows(64))]
)
def test_copies_and_files_are_the_same_layer(model, method, calibration):
    how = {} if calibration is None else {"calibration": calibration}
    low = replace_layers(model, method, bits=4, **how)
    expected = low(rows())
    file = io.BytesIO()
    torch.save(low, file)
    file.seek(0)
    copies = [copy.deepcopy(low), torch.load(file, weights_only=False), low.to(torch.float32)]
    shared = copy.deepcopy(low)
    shared.share_memory()
    for other in (*copies, shared, copy.deepcopy(copies[0])):
        torch.testing.assert_close(other(rows()), expected)
        assert total_cost(other)[1] == total_cost(low)[1]
    with torch.no_grad():
        copies[0][0].weight.zero_()
    torch.testing.assert_close(low(rows()), expected)
    if calibration is not None:
        low.load_state_dict(copy.deepcopy(low.state_dict()))  # the same values
        torch.testing.assert_close(low(rows()), expected)


def test_a_parametrization_after_the_fact_is_not_silent():
    low = Linear.from_float(linear(), "direct", bits=8)

    class Twice(nn.Module):
        def forward(self, w):
            return 2 * w

    with pytest.raises(ValueError, match="does not have a parameter"):
        parametrize.register_parametrization(low, "weight", Twice())


def test_comparing_leaves_the_network_in_its_mode(model):
    model.train()
    model[2].eval()
    compare(model, rows(), [lrqmm.get_method("direct")])
    assert [module.training for module in model.modules()] == [True, True, True, False]


def test_a_layer_that_the_calibration_misses_is_told():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(64, 8), nn.Linear(64, 8)

        def forward(self, x):
            return self.a(input=x)

    with pytest.warns(UserWarning, match="did not run on the calibration.*: b"):
        low = replace_layers(Network(), "qera", rank=2, calibration=rows(70))
    low(rows())


def test_layers_called_by_name_are_measured(model):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            return self.inner[2](input=self.inner[0](input=x).relu())

    low = replace_layers(Named(), "direct", bits=3)
    assert list(layer_errors(low, Named(), [rows()])) == ["inner.0", "inner.2"]
