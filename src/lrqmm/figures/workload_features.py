"""Random Fourier features: error of the kernel matrix against the number of features."""

from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.run.read import Run

NEEDS = ("features",)

GAINS = {"unit": "naive gain", "fitted": "fitted gain"}


def variant(method: str, parameters: dict[str, object]) -> str:
    """A method with its gain and the blocks that it condenses."""
    parts = [_style.short_label(method)]
    if "gain" in parameters:
        parts.append(GAINS[str(parameters["gain"])])
    if parameters.get("condense", 1) != 1:
        parts.append(f"λ={parameters['condense']}")
    return ", ".join(parts)


def draw(run: Run) -> Figure:
    """A panel for the bits of a feature; the band is the range over seeds."""
    table = _data.settings(run, "features")
    table = table.assign(
        count=table["layer"].astype(int),
        variant=list(map(variant, table["method"], table["parameters"])),
    )
    bits = sorted(table["bits"].dropna().unique())
    figure, axes = _style.panels(1, len(bits), 2.6, sharey=True)
    for axis, b in zip(axes[0], bits, strict=True):
        of_bits = table[table["bits"].eq(b) | table["bits"].isna()]
        for method, rows in _style.by_method(of_bits):
            variants = rows.groupby("variant", sort=False)
            for style, (name, of_variant) in zip(("-", "--", ":"), variants, strict=False):
                _style.spread_line(
                    axis, method, of_variant.groupby("count")["gram_error"], ls=style, label=name
                )
        axis.set_title(f"{int(b)} bit{'s' if b > 1 else ''} a feature")
        _style.log(axis, "x", of_bits["count"])
        _style.log(axis, "y")
    axes[0, 0].set_ylabel("error of the kernel, off the diagonal")
    figure.supxlabel("random Fourier features")
    _style.label_ends(axes.flat)
    return figure
