"""Factorisers at one budget: error by how the bits are split between the two factors."""

from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.run.read import Run

NEEDS = ("images_split",)

SCALES = {"tensor": "one scale per factor", "vector": "one scale per vector"}


def draw(run: Run) -> Figure:
    """A column for the bits of R, a row for a picture and the scales; the lowest budget."""
    table = _data.settings(run, "images_split")
    table = table[table["bits"] == table["bits"].min()]
    budget = int(table["bits"].iloc[0])
    table = table.assign(
        left=[p.get("bits_left") for p in table["parameters"]],
        right=[p.get("bits_right") for p in table["parameters"]],
    )
    rights = sorted(table["right"].dropna().unique())
    rows = [
        (case, scales)
        for case in table["layer"].unique()
        for scales in SCALES
        if (table["granularity"] == scales).any()
    ]
    height = 1.45 * len(rows) + 0.6
    figure, axes = _style.panels(len(rows), len(rights), height, sharex=True, sharey="row")
    for number, (case, scales) in enumerate(rows):
        shown = table[(table["layer"] == case) & (table["granularity"] == scales)]
        naive = shown[shown["method"] == "naive"]["relative_error"]
        for axis, right in zip(axes[number], rights, strict=True):
            at_right = shown[shown["right"] == right]
            for method, line in _style.by_method(at_right.sort_values("left")):
                axis.plot(
                    line["left"], line["relative_error"], color=_style.colour(method),
                    marker=_style.marker(method), label=_style.label(method),
                )  # fmt: skip
            if len(naive):
                _style.level(axis, "naive", naive.iloc[0])
            _style.log(axis, "y")
            axis.set_xticks(sorted(table["left"].dropna().unique()))
            if number == 0:
                axis.set_title(f"R at {int(right)} bits")
        axes[number, 0].set_ylabel(f"{_style.CASES.get(case, case)}\n{SCALES[scales]}")
    figure.supxlabel(f"bits of an element of L; {budget} bit a coordinate in all")
    figure.supylabel("relative error")
    _style.figure_legend(figure, axes.flat)
    return figure
