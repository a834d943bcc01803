"""One look for all figures and tables: colours and markers of methods, sizes, writing."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, Formatter, LogLocator, NullLocator

from lrqmm import methods
from lrqmm.figures import _page
from lrqmm.products.method import Recipe

_PALETTE = sns.color_palette("colorblind", 10)
MUTED = ("#332288", "#aa4499", "#44aa99", "#999933", "#882255", "#117733", "#cc6677", "#88ccee")
"""Colours that colour-blind readers tell apart (Paul Tol), none of them in `_PALETTE`."""
LOOKS: dict[str, tuple[Any, str]] = {
    "direct": ("black", "o"),
    "lrqmm": (_PALETTE[0], "s"),
    "lrqmm_aware": (_PALETTE[3], "D"),
    "mean_fix": (_PALETTE[2], "^"),
    "midpoint": (_PALETTE[1], "v"),
    "two_slice": (_PALETTE[4], "P"),
    "full_residual": (_PALETTE[7], "X"),
    "sgemm": ("#5b6b7a", "*"),
    "bf16": (_PALETTE[9], "h"),
    "fp8": (_PALETTE[6], "d"),
    "tf32": (_PALETTE[8], "p"),
    "naive": ("0.45", "o"),
    "dsvd": (MUTED[3], "v"),
    "lplr": (MUTED[5], "^"),
    "lplr_svd": (MUTED[4], "P"),
    "caldera": (MUTED[6], "h"),
    "lramm": (MUTED[2], "^"),
    "sign": (MUTED[0], "o"),
    "sigma_delta": (MUTED[1], "s"),
    "beta": (MUTED[7], "v"),
}
"""Colours and markers of methods, in the order of the legend; others' come from their names."""
CASES = {"digits": "MNIST digits", "sentences": "sentences (MiniLM)", "china": "temple"}
"""Cases of workloads that have a name of their own in figures."""
NETWORKS = ("resnet50", "llama", "minilm")
"""Networks in the order of the figures' rows; others come after them."""
WIDTH = 7.0  # inches: two columns of a paper
COLUMN = 3.4  # one column
SMALL = 6.5  # points: the smallest text


def use() -> None:
    """Set the style of every figure drawn after."""
    sns.set_theme(style="whitegrid")
    plt.rcParams.update(
        {
            "figure.constrained_layout.use": True,
            "savefig.dpi": 200,
            "pdf.fonttype": 42,
            "font.size": 7,
            "figure.titlesize": 8,
            "figure.labelsize": 7.5,
            "axes.titlesize": 8,
            "axes.labelsize": 7.5,
            "axes.linewidth": 0.6,
            "axes.labelpad": 3,
            "xtick.labelsize": 7,
            "ytick.labelsize": 7,
            "xtick.major.pad": 2,
            "ytick.major.pad": 2,
            "legend.fontsize": 7,
            "legend.frameon": False,
            "grid.linewidth": 0.4,
            "lines.linewidth": 1.2,
            "lines.markersize": 4,
            "lines.markeredgewidth": 0.8,
        }
    )


@cache
def is_usual(method: str) -> bool:
    """Whether a method is shown in every figure; one that is unknown here is."""
    recipe = _recipe(method)
    return recipe is None or recipe.usual


def label(method: str) -> str:
    """A method's title; of a composition its parts' short ones."""
    return short_label(method) if "+" in method else _titles(method)[0]


def short_label(method: str) -> str:
    """A method's title where there is little room."""
    return "+".join(_titles(part)[1] for part in method.split("+"))


def _titles(method: str) -> tuple[str, str]:
    """A method's title, and the short one; without any, its name."""
    recipe = _recipe(method)
    title = getattr(recipe, "title", "") or method.replace("_", " ")
    return title, getattr(recipe, "short", "") or title


def _recipe(method: str) -> Recipe | None:
    """What a method's file says of it; None of one that is unknown here, as in others' runs."""
    try:
        return methods.preset(method)
    except ValueError:
        return None


def panels(rows: int, columns: int, height: float, **more: Any) -> tuple[Figure, Any]:
    """A figure of the whole width, so many inches high, and its rows x columns of panels."""
    return plt.subplots(rows, columns, figsize=(WIDTH, height), squeeze=False, **more)


def wrapped(count: int, columns: int, row: float, rest: float, **more: Any) -> tuple[Figure, Any]:
    """A figure and so many panels of it, in rows of at most `columns`, each `row` inches high;
    `rest` is the height of what is around them."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, axes = panels(rows, columns, row * rows + rest, **more)
    for axis in axes.flat[count:]:
        axis.axis("off")
    return figure, axes.flat[:count]


def label_at_right(axis: Axes, points: Sequence[tuple[float, float, str, Any]]) -> None:
    """Name points (x, y, words, colour) in a column beside a panel, a line of that colour from each
    name to its point; call it when the y axis has its scale and all points are drawn."""
    axis.autoscale_view()
    axis.set_ylim(axis.get_ylim())
    panel = axis.bbox.height / axis.figure.dpi  # inches
    place = axis.transAxes.inverted().transform
    heights = [float(place(axis.transData.transform(point[:2]))[1]) for point in points]
    places = _apart(sorted(heights), 1.25 * SMALL / 72 / panel)
    by_height = [points[number] for number in np.argsort(heights, kind="stable")]
    for at, (x, y, text, colour) in zip(places, by_height, strict=True):
        axis.annotate(
            text, (x, y), xytext=(1.03, at), textcoords="axes fraction", fontsize=SMALL,
            va="center", annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "lw": 0.6, "color": colour, "relpos": (0, 0.5), "shrinkA": 0,
                "shrinkB": 2,
            },
        )  # fmt: skip


def _apart(wanted: list[float], gap: float) -> list[float]:
    """The places nearest to the wanted ones, which ascend, that are a gap apart; within 0 and 1
    where there is room. Neighbours that are too near form a block around their mean."""
    blocks: list[list[float]] = []
    for number, place in enumerate(wanted):
        blocks.append([place - number * gap])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    starts = np.array([np.mean(block) for block in blocks for _ in block])
    room = 1 - (len(wanted) - 1) * gap
    starts = starts.clip(min(0, room / 2), max(room, room / 2))
    return [float(start) + number * gap for number, start in enumerate(starts)]


def label_ends(axes: Iterable[Axes]) -> None:
    """Name every line of every panel beside its right end, in the place of a legend."""
    for axis in axes:
        right = max(axis.get_xlim())
        ends: dict[str, tuple[float, float, str, Any]] = {}
        for handle, text in zip(*axis.get_legend_handles_labels(), strict=True):
            line: Any = handle.lines[0] if isinstance(handle, ErrorbarContainer) else handle
            x, y = (float(np.ma.getdata(values)[-1]) for values in line.get_data())
            across = line.get_transform() == axis.get_yaxis_transform()
            for method in LOOKS:
                text = text.replace(label(method), short_label(method))
            ends.setdefault(text, (right if across else x, y, text, line.get_color()))
        label_at_right(axis, list(ends.values()))


def colour(method: str) -> Any:
    """A method's colour, the same in every figure; a new method's comes from its name."""
    return LOOKS[method][0] if method in LOOKS else MUTED[_number(method) % len(MUTED)]


def marker(method: str) -> str:
    """A method's marker; a new method's comes from its name."""
    return LOOKS[method][1] if method in LOOKS else "<>8Hp"[_number(method) // 64 % 5]


def _number(method: str) -> int:
    return int(hashlib.sha256(method.encode()).hexdigest(), 16)


def line(
    axis: Axes, method: str, middle: pd.Series, low: pd.Series, high: pd.Series, **more: Any
) -> None:
    """A method's line through its medians, whose index is x, in a band from `low` to `high`."""
    x = middle.index.astype(float)
    look = {"color": colour(method), "marker": marker(method), "label": label(method)} | more
    axis.plot(x, middle, **look)
    axis.fill_between(x, low, high, color=look["color"], alpha=0.12, lw=0)


def spread_line(axis: Axes, method: str, values: Any, **more: Any) -> None:
    """`line` of grouped values: their median, least and most."""
    line(axis, method, values.median(), values.min(), values.max(), **more)


def timed_line(axis: Axes, method: str, values: Any, loaded: bool, **more: Any) -> None:
    """A method's line through the medians of grouped times or ratios, bars from the 5th to the 95th
    percentile; hollow where the machine was loaded."""
    middle = values.median()
    low, high = middle - values.quantile(0.05), values.quantile(0.95) - middle
    bars = [low.clip(lower=0), high.clip(lower=0)]
    axis.errorbar(middle.index.astype(float), middle, yerr=bars, **bar_look(method, loaded) | more)


def bar_look(method: str, hollow: bool) -> dict[str, Any]:
    """How a method's points with bars look."""
    return {
        "color": colour(method), "marker": marker(method), "label": label(method), "capsize": 1.5,
        "elinewidth": 0.7, "capthick": 0.7, "markerfacecolor": "white" if hollow else None,
    }  # fmt: skip


def level(axis: Axes, method: str, height: float, **more: Any) -> None:
    """A dashed line across a panel for a method that the x axis says nothing of."""
    look = {"color": colour(method), "label": label(method), "ls": "--", "lw": 1}
    axis.axhline(height, **look | more)


def order(names: Any) -> list[str]:
    """Methods in the order of the legend: known ones first, new ones after them by name."""
    legend = list(LOOKS)
    return sorted(names, key=lambda name: (legend.index(name) if name in legend else 99, name))


def by_method(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each method and its rows, in the order of the legend."""
    for method in order(table["method"].unique()):
        yield method, table[table["method"] == method]


def networks(names: Any) -> list[str]:
    """Networks in the order of the figures' rows."""
    return sorted(set(names), key=lambda name: (*NETWORKS, name).index(name))


class _Plain(LogLocator):
    """Ticks at 1, 2 and 5, on a short axis at all digits, on more than three decades at 1 alone."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        subs = range(1, 10) if vmax < 6 * vmin else (1, 2, 5) if vmax < 1000 * vmin else (1,)
        self.set_params(subs=subs)
        return super().tick_values(vmin, vmax)


class _PlainNumbers(Formatter):
    """0.1, 0.2, 0.5, 1; powers of ten where an axis goes further than five digits do."""

    axis: Axis

    def __call__(self, x: float, pos: int | None = None) -> str:
        low, high = self.axis.get_view_interval()
        if low > 5e-5 and high < 5e5:
            return f"{x:g}"
        digit, power = f"{x:.0e}".split("e")
        return f"${'' if digit == '1' else digit + chr(92) + 'times'}10^{{{int(power)}}}$"


def log(axis: Axes, name: str, ticks: Iterable[float] | None = None) -> None:
    """Make the 'x' or 'y' axis logarithmic, with plain numbers: these or fitting ticks."""
    getattr(axis, f"set_{name}scale")("log")
    ticked = getattr(axis, f"{name}axis")
    ticked.set_major_locator(_Plain() if ticks is None else FixedLocator(sorted(set(ticks))))
    ticked.set_major_formatter(_PlainNumbers())
    ticked.set_minor_locator(NullLocator())


def figure_legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend above all panels, each entry once; below them is the name of the x axis."""
    entries: dict[str, Any] = {}
    for panel in axes:
        for handle, text in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(text, handle)
    usual = [label(method) for method in LOOKS]
    texts = sorted(entries, key=lambda text: usual.index(text) if text in usual else len(usual))
    columns = _columns(texts, figure.get_figwidth())
    figure.legend(
        [entries[text] for text in texts], texts, loc="outside upper center", ncols=columns
    )


def _columns(texts: list[str], width: float) -> int:
    """Number of columns of a legend of these texts that is `width` inches wide."""
    for rows in range(1, len(texts)):
        columns = [texts[start : start + rows] for start in range(0, len(texts), rows)]
        if sum(0.5 + 0.055 * max(map(len, column)) for column in columns) <= width:
            return len(columns)
    return 1


def notice(text: str) -> Figure:
    """A figure that says why there is nothing to show."""
    figure, axis = plt.subplots(figsize=(WIDTH, 1))
    axis.axis("off")
    axis.text(0.5, 0.5, text, ha="center", va="center", wrap=True)
    return figure


def write(content: Any, path: Path, suffix: str) -> None:
    """Write a figure as png or pdf, a table as csv or html, a page as html, whatever the path."""
    if isinstance(content, Figure):
        metadata = {"CreationDate": None} if suffix == "pdf" else None
        content.savefig(path, format=suffix, metadata=metadata)
    elif suffix == "csv":
        content.to_csv(path, index=False)
    else:
        path.write_text(_page.text(content))


def close(content: Any) -> None:
    """Free a figure's memory."""
    if isinstance(content, Figure):
        plt.close(content)
