"""Figure 4 of transformers: relative error of each linear layer, by kind of layer and depth."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrqmm.figures import NothingToDraw, _data, _style
from lrqmm.run.read import Run

NEEDS = ("network: llama or network: minilm",)

GAP = 2  # between kinds, in layers


def draw(run: Run) -> Figure:
    """One panel per network and number of bits; kinds of layers side by side, each by depth.

    Each layer is fed with its float activations, so that errors do not add up. Shown are the
    settings of `_data.usual`.
    """
    table = _data.networks(run, "alone_error")
    table = _data.usual(table[table["method"] != "sgemm"])
    table = table.join(_data.blocks(table["layer"]))
    table = table[table.groupby("network")["block"].transform("count") > 0]
    if table.empty:
        raise NothingToDraw("this run has no layers of transformers (measure: network)")
    parts = dict(list(table.groupby(["network", "bits"])))
    panels = [
        (setting, parts[setting])
        for network in _style.networks(table["network"])
        for setting in parts
        if setting[0] == network
    ]
    figure, axes = _style.panels(len(panels), 1, 1.9 * len(panels) + 0.4)
    for axis, ((network, bits), panel) in zip(axes[:, 0], panels, strict=True):
        _panel(axis, panel)
        data, ranks = panel["data"].iloc[0], _data.rank(panel)
        axis.set_title(f"{run.title(network)}, {data}: {bits} bits{ranks}")
        axis.set_ylabel("relative error")
        _style.log(axis, "y")
    axes[-1, 0].set_xlabel("kind of layer; within it, from the first block to the last")
    _style.figure_legend(figure, axes[:, 0])
    return figure


def _panel(axis: Axes, table: pd.DataFrame) -> None:
    start, ticks = 0, {}
    names = _short(list(dict.fromkeys(table["kind"])))
    for kind, layers in table.groupby("kind", sort=False):
        places = layers["block"].fillna(0).astype(int)
        for method, rows in _style.by_method(layers):
            line = rows.drop_duplicates("layer")
            axis.plot(
                start + places[line.index], line["value"], color=_style.colour(method), lw=1,
                marker=_style.marker(method), ms=2, label=_style.label(method),
            )  # fmt: skip
        count = int(places.max()) + 1
        ticks[start + (count - 1) / 2] = names[str(kind)]
        start += count + GAP
        axis.axvline(start - (GAP + 1) / 2, color="0.85", lw=0.6)
    axis.set_xticks(list(ticks), list(ticks.values()))
    axis.grid(axis="x", visible=False)
    axis.set_xlim(-GAP, start)


def _short(kinds: list[str]) -> dict[str, str]:
    """The last words of kinds' names that no other kind ends with: 'up', 'attention output'."""
    parts = {kind: kind.removesuffix(".dense").removesuffix("_proj").split(".") for kind in kinds}
    short = {}
    for kind, ending in parts.items():
        others = [other for name, other in parts.items() if name != kind]
        length = next(
            (n for n in range(1, len(ending)) if all(x[-n:] != ending[-n:] for x in others)),
            len(ending),
        )
        short[kind] = " ".join(ending[-length:])
    return short
