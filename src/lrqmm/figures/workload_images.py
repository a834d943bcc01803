"""Pictures at one bit a coordinate: what each method leaves of them, side by side."""

import json

from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.run.read import Run

NEEDS = ("pictures", "images")


def draw(run: Run) -> Figure:
    """One row per picture, the picture itself first; under each its error, from the whole
    picture."""
    table = _data.arrays(run, "pictures")
    scores = _data.settings(run, "images")
    cases = list(table["input"].unique())
    methods = _style.order(set(table["name"]) - {"sgemm"})
    shown = ["sgemm", *methods]
    figure, axes = _style.panels(len(cases), len(shown), 1.7 * len(cases))
    for row, case in zip(axes, cases, strict=True):
        for axis, method in zip(row, shown, strict=True):
            pixels = table[(table["input"] == case) & (table["name"] == method)]
            axis.axis("off")
            if pixels.empty:
                continue
            axis.imshow(_data.matrix(pixels), cmap="gray", vmin=0, vmax=1)
            if method == "sgemm":
                axis.set_title(_style.CASES.get(case, case))
                continue
            setting = json.loads(pixels["parameters"].iloc[0])
            setting.pop("method")
            measured = scores[(scores["layer"] == case) & (scores["method"] == method)]
            matching = [
                all(p.get(k) == v for k, v in setting.items()) for p in measured["parameters"]
            ]
            title = _style.label(method)
            for score in measured[matching].itertuples():
                title += f"\n{score.each_bits:.2f} bits, error {score.relative_error:.2f}"
                title += f"\n{score.psnr:.1f} dB, SSIM {score.ssim:.2f}"
                break
            axis.set_title(title, fontsize=_style.SMALL)
    return figure
