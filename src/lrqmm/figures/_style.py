"""One look for all figures and tables: colours and names of methods, sizes, writing."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from lrqmm.inputs.distributions import DISTRIBUTIONS

_PALETTE = sns.color_palette("colorblind", 10)
METHODS: dict[str, tuple[str, Any, str]] = {
    "direct": ("direct", "black", "o"),
    "lrqmm": ("LRQMM (paper)", _PALETTE[0], "s"),
    "lrqmm_aware": ("product-aware LRQMM (ours)", _PALETTE[3], "D"),
    "mean_fix": ("mean fix", _PALETTE[2], "^"),
    "midpoint": ("midpoint", _PALETTE[1], "v"),
    "two_slice": ("two slices", _PALETTE[4], "P"),
    "full_residual": ("full residual (ceiling)", _PALETTE[7], "X"),
    "sgemm": ("SGEMM (float32)", _PALETTE[5], "*"),
    "bf16": ("bfloat16", _PALETTE[9], "h"),
    "fp8": ("float8 (e4m3)", _PALETTE[6], "d"),
    "tf32": ("TF32", _PALETTE[8], "p"),
    "naive": ("naive rounding", "0.45", "o"),
    "dsvd": ("SVD, then rounded", _PALETTE[1], "v"),
    "lplr": ("LPLR", _PALETTE[2], "^"),
    "lplr_svd": ("LPLR-SVD", _PALETTE[4], "P"),
    "caldera": ("CALDERA", _PALETTE[5], "h"),
    "lramm": ("LRAMM", _PALETTE[2], "^"),
    "sign": ("memoryless (1 bit: sign)", "black", "o"),
    "sigma_delta": ("sigma-delta", _PALETTE[0], "s"),
    "beta": ("beta encoding", _PALETTE[1], "v"),
}
CASES = {
    "digits": "MNIST digits",
    "sentences": "sentences (MiniLM)",
    "phantom": "phantom",
    "camera": "camera",
    "china": "temple",
    "flower": "flower",
}
"""Cases of workloads that have a name of their own in figures."""
INPUTS = {name: title for name, (title, _) in DISTRIBUTIONS.items()} | {
    "resnet50": "ResNet-50",
    "llama": "LLaMA",
    "minilm": "MiniLM",
}
WIDTH = 7.2  # inches: two columns of a paper


def use() -> None:
    """Set the style of every figure drawn after."""
    sns.set_theme(context="paper", style="whitegrid", font_scale=0.9)
    plt.rcParams.update(
        {
            "figure.constrained_layout.use": True,
            "savefig.dpi": 200,
            "pdf.fonttype": 42,
            "grid.linewidth": 0.4,
            "lines.linewidth": 1.3,
            "lines.markersize": 4,
            "legend.frameon": False,
        }
    )


def label(method: str) -> str:
    """A method's name in figures."""
    return METHODS[method][0] if method in METHODS else method.replace("_", " ")


def short_label(method: str) -> str:
    """A method's name where there is little room."""
    short = {"lrqmm": "LRQMM", "lrqmm_aware": "product-aware"}
    return "+".join(short.get(part, label(part)) for part in method.split("+"))


def label_at_right(axis: Axes, points: Iterable[tuple[float, float, str]]) -> None:
    """Name points (x, y, words) in a column beside a panel, a thin line from each name to its
    point; call it when the y axis has its scale and all points are drawn."""
    axis.autoscale_view()
    low, high = axis.get_ylim()
    axis.set_ylim(low, high)
    height = 0.075  # of a name, in heights of a panel
    wanted = []
    for x, y, words in points:
        place = axis.transAxes.inverted().transform(axis.transData.transform((x, y)))[1]
        wanted.append((float(place), x, y, words))
    wanted.sort()
    places = [place for place, *_ in wanted]
    for _ in range(200):  # neighbours that are too near push each other away
        for i in range(len(places) - 1):
            push = (places[i] + height - places[i + 1]) / 2
            if push > 0:
                places[i], places[i + 1] = places[i] - push, places[i + 1] + push
    for at, (_, x, y, words) in zip(places, wanted, strict=True):
        axis.annotate(
            words, (x, y), xytext=(1.03, at), textcoords="axes fraction", fontsize=6.5,
            va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": "0.6", "shrinkA": 0, "shrinkB": 2},
        )  # fmt: skip


def colour(method: str) -> Any:
    """A method's colour, the same in every figure; a new method's comes from its name."""
    if method in METHODS:
        return METHODS[method][1]
    return plt.get_cmap("tab20")(int(hashlib.sha256(method.encode()).hexdigest(), 16) % 20)


def marker(method: str) -> str:
    """A method's marker."""
    return METHODS[method][2] if method in METHODS else "."


def order(names: Any) -> list[str]:
    """Methods in the order of the legend: known ones first, new ones after them by name."""
    known = list(METHODS)
    return sorted(names, key=lambda name: (known.index(name) if name in known else 99, name))


def networks(names: Any) -> list[str]:
    """Networks in the order of the figures' rows."""
    known = list(INPUTS)
    return sorted(set(names), key=lambda name: known.index(name) if name in known else 99)


class _Plain(LogLocator):
    """Three ticks a decade, of more than three decades one."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        self.set_params(subs=(1, 2, 5) if vmax < 1e3 * vmin else (1,))
        return super().tick_values(vmin, vmax)


def plain_log(axis: Any) -> None:
    """Label a logarithmic x or y axis with plain numbers: 0.1, 0.2, 0.5, 1, ..."""
    axis.set_major_locator(_Plain())
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def input_label(name: str) -> str:
    """An input's name in figures."""
    return INPUTS.get(name, name)


def figure_legend(figure: Figure, axes: Any, columns: int = 4) -> None:
    """One legend above all panels, each entry once; below them is the name of the x axis."""
    entries: dict[str, Any] = {}
    for panel in axes:
        for handle, text in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(text, handle)
        if panel.get_legend():
            panel.get_legend().remove()
    usual = [title for title, _, _ in METHODS.values()]
    texts = sorted(entries, key=lambda text: usual.index(text) if text in usual else len(usual))
    figure.legend(
        [entries[text] for text in texts], texts, loc="outside upper center", ncols=columns
    )


def notice(text: str, *, table: bool) -> Any:
    """A figure or table that says why there is nothing to show."""
    if table:
        return pd.DataFrame({"note": [text]})
    figure, axis = plt.subplots(figsize=(WIDTH, 1))
    axis.axis("off")
    axis.text(0.5, 0.5, text, ha="center", va="center", wrap=True)
    return figure


def write(made: Any, path: Path) -> None:
    """Write a figure (png, pdf) or a table (csv, html) by the path's suffix."""
    if isinstance(made, Figure):
        made.savefig(path, metadata={"CreationDate": None} if path.suffix == ".pdf" else None)
    elif path.suffix == ".csv":
        made.to_csv(path, index=False)
    else:
        path.write_text(_page(made))


def close(made: Any) -> None:
    """Free a figure's memory."""
    if isinstance(made, Figure):
        plt.close(made)


def _page(frame: pd.DataFrame) -> str:
    cells = frame.astype(object).where(frame.notna(), "")
    shown = cells.to_html(index=False, escape=True, border=0, float_format=lambda x: f"{x:.3g}")
    title = html.escape(str(frame.attrs.get("title", "")))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 1.5em; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25em .7em; border: 0; border-bottom: 1px solid #ddd; text-align: left; }}
th {{ position: sticky; top: 0; background: #fff; border-bottom: 2px solid #888; }}
tr:hover td {{ background: #f3f6fa; }}
</style></head><body><h1 style="font-size:1.2em">{title}</h1>{shown}</body></html>
"""
