"""Where a network on low-bit products goes wrong: errors by layer, and ranks that follow them."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from lrqmm.method import Method, get_method
from lrqmm.nn.im2col import Layer, first_input, im2col, watched, weight_matrix
from lrqmm.nn.layer import Product
from lrqmm.nn.left import gemm_layers, left_out
from lrqmm.nn.replace import Run, call, products
from lrqmm.products.cost import Cost


@dataclass(frozen=True)
class LayerError:
    """Relative errors (Frobenius) of one layer's output.

    Attributes
    ----------
    alone : of its product on the float network's input of this layer
    own : against the float layer on the same input as it had: what this layer's product adds
    accumulated : against the float network's output of this layer: what all up to here have added
    """

    alone: float
    own: float
    accumulated: float


@torch.no_grad()
def layer_errors(
    low: nn.Module,
    reference: nn.Module,
    batches: Iterable[Any],
    run: Run = call,
) -> dict[str, LayerError]:
    """Errors of every replaced layer over batches, in running order.

    Parameters
    ----------
    low : of `replace_layers`
    reference : the network that it was made from
    batches : inputs of both, one batch in memory at a time
    run : how a network takes them

    Raises
    ------
    ValueError : a reference that lacks a layer, as one that was replaced itself
    """
    sums: dict[str, list[float]] = {}
    outputs: dict[str, list[Tensor]] = {}  # a layer may run several times
    replaced = products(low)
    float_layers = gemm_layers(reference)
    missing = [name for name in replaced if name not in float_layers]
    if missing:
        raise ValueError(
            f"reference has no float layers {', '.join(map(repr, missing))}; allowed: the network "
            "that the other was made from"
        )

    def add(name: str, first: int, y: Tensor, exact: Tensor) -> None:
        totals = sums.setdefault(name, [0.0] * 6)
        totals[first] += float(torch.linalg.norm(y - exact)) ** 2
        totals[first + 1] += float(torch.linalg.norm(exact)) ** 2

    def alone(name: str, x: Tensor, y: Tensor) -> None:
        outputs.setdefault(name, []).append(y)
        product = replaced[name]
        add(name, 0, product.aside(x) if isinstance(product, Product) else y, y)

    def beside(name: str, x: Tensor, y: Tensor) -> None:
        product = replaced[name]
        add(name, 2, y, product.layer.forward(x) if isinstance(product, Product) else y)
        add(name, 4, y, outputs[name].pop(0))

    called = {n: it if isinstance(it, Product) else it.layer for n, it in replaced.items()}
    for batch in batches:
        with watched({name: float_layers[name] for name in replaced}, alone):
            run(reference, batch)
        with watched(called, beside):
            run(low, batch)
    return {
        name: LayerError(*(_ratio(*totals[i : i + 2]) for i in (0, 2, 4)))
        for name, totals in sums.items()
    }


def _ratio(error: float, size: float) -> float:
    return math.sqrt(error / size) if size else 0.0


@dataclass(frozen=True)
class RankPlan:
    """Ranks by layer that a budget was spent on; from `choose_ranks`.

    Attributes
    ----------
    ranks : by layer name
    error : predicted relative error of the network's output
    average_bits : bits that hold codes, scales and factors, over the elements of all operands
    """

    ranks: dict[str, int]
    error: float
    average_bits: float


@torch.no_grad()
def choose_ranks(
    model: nn.Module,
    batch: Any,
    method: Callable[[int], Method],
    *,
    ranks: Sequence[int] = (0, 1, 2, 4, 8, 16, 32, 64),
    error: float | None = None,
    average_bits: float | None = None,
    keep: Iterable[str] = (),
    run: Run = call,
) -> RankPlan:
    """Spend rank where it wins most: greedily, the step that removes most squared error a bit.

    With e_l(r) the relative error of layer l's product at rank r on the float network's activations
    and E_l the relative error of the network's output where layer l alone is low-bit, at the first
    of the ranks r_0, the squared error of the output is predicted as

        sum_l (E_l e_l(r_l) / e_l(r_0))²

    which takes the layers' errors as independent and small. It takes a pass over the network a
    layer, and one with every rank. Source: this project.

    Parameters
    ----------
    model : float network
    batch : a sample of its inputs, on which every layer's product is tried at every rank
    method : a rank to a method: `lambda rank: get_method("lrqmm_aware", bits=4, rank=rank)`
    ranks : to choose from, rising; a layer goes up to its own limit
    error : stop once the predicted relative error of the output is this small
    average_bits : never exceed this many bits per element
    keep : patterns of layers that stay in float32; their bits count, as do those of layers that
        `replace_layers` leaves as they are. One that does not run on the batch takes the first rank
    run : how the network takes the batch

    Raises
    ------
    TypeError : `keep` that is a string
    ValueError : neither or both of `error` and `average_bits`, ranks that do not rise, every layer
        kept; activations that are not finite

    Examples
    --------
    >>> import torch, lrqmm
    >>> from torch import nn
    >>> from lrqmm.nn.ranks import choose_ranks
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))
    >>> def method(rank):
    ...     return lrqmm.get_method("lrqmm_aware", bits=4, rank=rank)
    >>> plan = choose_ranks(model, torch.randn(40, 64), method, average_bits=8.0)
    >>> sorted(plan.ranks), plan.average_bits <= 8
    (['0', '2'], True)
    """
    if (error is None) == (average_bits is None):
        raise ValueError("allowed: one of error and average_bits")
    if isinstance(keep, str):
        raise TypeError(f"keep is {keep!r}; allowed: a list of patterns, as [{keep!r}]")
    if list(ranks) != sorted(set(ranks)):
        raise ValueError(f"ranks is {tuple(ranks)}; allowed: rising ranks")
    patterns = tuple(keep)
    layers, left = gemm_layers(model), left_out(model)
    if not layers:
        raise ValueError("the network has no layer to replace; allowed: the float network")
    ranked = {
        name: layer
        for name, layer in layers.items()
        if name not in left and not any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    if not ranked:
        raise ValueError(f"keep is {patterns}, which is every layer; allowed: to leave some")
    tried = [(rank, method(rank)) for rank in ranks]
    in_float = [(0, get_method("sgemm"))]
    options = _options(
        layers,
        {name: tried if name in ranked else in_float for name in layers},
        lambda: run(model, batch),
    )
    running = {name: layer for name, layer in ranked.items() if name in options}
    effects = _effects(running, method(ranks[0]), lambda: run(model, batch))
    for name, steps in options.items():
        weight = effects.get(name, 0.0) / steps[0].error if steps[0].error else 0.0
        options[name] = [replace(step, error=weight * step.error) for step in steps]
    elements = sum(steps[0].elements for steps in options.values())
    level = dict.fromkeys(options, 0)

    def total(name: str) -> _Option:
        return options[name][level[name]]

    while True:
        squared = sum(total(name).error ** 2 for name in options)
        bits = sum(total(name).bits for name in options)
        reached = math.sqrt(squared)
        if error is not None and reached <= error:
            break
        gains = {
            (name, to): (total(name).error ** 2 - step.error**2)
            / max(step.bits - total(name).bits, 1)
            for name, steps in options.items()
            for to, step in enumerate(steps)
            if to > level[name] and step.error < total(name).error
            if average_bits is None
            or bits - total(name).bits + step.bits <= average_bits * elements
        }
        if not gains:
            break
        name, to = max(gains, key=lambda step: gains[step])
        level[name] = to
    chosen = {name: total(name).rank if name in options else ranks[0] for name in ranked}
    return RankPlan(chosen, reached, bits / elements)


@dataclass(frozen=True)
class _Option:
    rank: int
    error: float
    bits: int
    elements: int


def _options(
    layers: Mapping[str, Layer],
    tried: Mapping[str, Sequence[tuple[int, Method]]],
    run: Callable[[], Any],
) -> dict[str, list[_Option]]:
    """Error and bits of each layer's product, as it first runs, at each rank that fits it."""
    options: dict[str, list[_Option]] = {}

    def measure(name: str, x: Tensor, y: Tensor) -> None:
        if name in options:
            return
        layer = layers[name]
        A, B = im2col(layer, x)[0], weight_matrix(layer)
        exact = get_method("sgemm").matmul(A, B)
        m, k, n = A.shape[-2], A.shape[-1], B.shape[-1]
        groups = math.prod(A.shape[:-2])
        for rank, candidate in tried[name]:
            if rank > max(min(m, k), min(k, n)):
                break
            missed = torch.linalg.norm(candidate.matmul(A, B) - exact)
            bits = groups * candidate.cost(m, k, n).operand_bits
            relative = _ratio(float(missed) ** 2, float(torch.linalg.norm(exact)) ** 2)
            elements = groups * (m * k + k * n)
            options.setdefault(name, []).append(_Option(rank, relative, bits, elements))

    with watched(layers, measure):
        run()
    return options


def _effects(
    layers: Mapping[str, Layer], method: Method, run: Callable[[], Tensor]
) -> dict[str, float]:
    """Relative error of the network's output where one layer alone multiplies by a method."""
    exact, effects = run(), {}
    for name, layer in layers.items():
        product = Product(layer, method)
        hook = layer.register_forward_hook(
            lambda _, args, kwargs, y, product=product: product.aside(first_input(args, kwargs)),
            prepend=True, with_kwargs=True,
        )  # fmt: skip
        try:
            missed = run() - exact
        finally:
            hook.remove()
        effects[name] = _ratio(float(missed.norm()) ** 2, float(exact.norm()) ** 2)
    return effects


def total_cost(low: nn.Module) -> tuple[Cost, float]:
    """Cost of the latest forward pass, and average bits per element of the products' operands.

    Every product since the network was last called counts, those of kept layers in float too, and a
    layer that runs twice counts twice. Products that are no `nn.Conv2d`'s or `nn.Linear`'s do not
    count: those of attention and of other kinds of layer (`lrqmm.nn.left.left_out`).

    Parameters
    ----------
    low : of `replace_layers`

    Raises
    ------
    ValueError : no product yet
    """
    totals = [layer.total() for layer in products(low).values()]
    cost = sum((cost for cost, _ in totals), Cost())
    elements = sum(elements for _, elements in totals)
    if not elements:
        raise ValueError("no product was computed yet; allowed: after a forward pass")
    return cost, cost.operand_bits / elements


def weight_bits(low: nn.Module) -> float:
    """Bits per element of the weights of all its convolutions and linear layers, kept ones' too.

    Raises
    ------
    ValueError : a network that is not of `replace_layers`
    """
    layers = products(low).values()
    if not layers:
        raise ValueError("the network has no product; allowed: what replace_layers returns")
    elements = sum(layer.weight_elements for layer in layers)
    return sum(layer.weight_bits for layer in layers) / elements
