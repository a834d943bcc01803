"""Pictures at one bit a coordinate: what each method leaves of them, side by side."""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.run.read import Run


def draw(run: Run) -> Figure:
    """A row a picture, the picture itself first; under each its error, from the whole picture."""
    table = _data.arrays(run, "pictures")
    scores = _data.settings(run, "images")
    cases = list(table["input"].unique())
    methods = _style.order(set(table["name"]) - {"sgemm"})
    shown = ["sgemm", *methods]
    figure, axes = plt.subplots(
        len(cases), len(shown), figsize=(_style.WIDTH, 1.7 * len(cases)), squeeze=False
    )
    for row, case in zip(axes, cases, strict=True):
        for axis, method in zip(row, shown, strict=True):
            own = table[(table["input"] == case) & (table["name"] == method)]
            axis.axis("off")
            if own.empty:
                continue
            picture = own.pivot(index="row", columns="column", values="value").to_numpy()
            axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
            if method == "sgemm":
                axis.set_title(_style.CASES.get(case, case))
                continue
            asked = json.loads(own["parameters"].iloc[0])
            asked.pop("method")
            found = scores[(scores["layer"] == case) & (scores["method"] == method)]
            matching = [all(p.get(k) == v for k, v in asked.items()) for p in found["parameters"]]
            words = _style.label(method)
            for score in found[matching].itertuples():
                words += f"\n{score.each_bits:.2f} bits, error {score.relative_error:.2f}"
                words += f"\n{score.psnr:.1f} dB, SSIM {score.ssim:.2f}"
                break
            axis.set_title(words, fontsize=_style.SMALL)
    return figure
