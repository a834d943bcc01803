"""Figure 4: relative error of each ResNet-50 layer, by method and bits."""

from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.run.read import Run

NEEDS = ("resnet50",)


def draw(run: Run) -> Figure:
    """A panel for each number of bits; layers in the order in which they run."""
    table = _data.variants(_data.errors(run, "resnet50"))
    table = table[~table["variant"].str.contains("zero point, truncated")]
    table = table[table["method"] != "sgemm"]  # 1e-7: it would flatten all the rest
    layers = list(dict.fromkeys(table["layer"]))
    position = {layer: i for i, layer in enumerate(layers)}
    bits = sorted(table["bits"].dropna().unique())
    figure, axes = _style.panels(len(bits), 1, 2.4 * len(bits) + 0.8, sharex=True)
    for axis, width in zip(axes[:, 0], bits, strict=True):
        panel = table[(table["bits"] == width) | table["bits"].isna()]
        for method, of_method in _style.by_method(panel):
            for variant, line in of_method.groupby("variant"):
                line = line.assign(x=line["layer"].map(position)).sort_values("x")
                usual = variant == method
                dashes = {"truncated": ":", "levels": "-."}
                other = [ls for word, ls in dashes.items() if word in str(variant)]
                axis.plot(
                    line["x"], line["value"], color=_style.colour(method),
                    marker=_style.marker(method) if usual else None, ms=2.5, lw=0.9,
                    ls="-" if usual else [*other, "--"][0],
                    label=str(variant).replace(method, _style.short_label(method), 1),
                )  # fmt: skip
        axis.set_title(f"ResNet-50, {_data.setting(panel)}")
        axis.set_xlim(-1, len(layers))
        _style.log(axis, "y")
        axis.set_ylabel("relative error")
    axes[-1, 0].set_xticks(range(len(layers)), layers, rotation=90, fontsize=_style.SMALL)
    _style.label_ends(axes.flat)
    return figure
