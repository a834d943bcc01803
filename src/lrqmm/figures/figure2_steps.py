"""Figure 2: LRQMM step by step on a piece of a convolution's output."""

import json

import numpy as np
from matplotlib.figure import Figure

from lrqmm.figures import _data, _style
from lrqmm.run.read import Run

NEEDS = ("steps",)

STEPS = ("matrix", "codes", "dequantized", "residual", "low-rank part", "what is left")
SHARED = {"matrix": "X", "dequantized": "X", "residual": "R", "low-rank part": "R",
          "what is left": "R"}  # fmt: skip


def draw(run: Run) -> Figure:
    """One row per setting: the matrix, its integers, dequantised, residual, its low-rank part,
    rest."""
    table = _data.arrays(run, "steps")
    settings = list(table["parameters"].unique())
    figure, axes = _style.panels(len(settings), 6, 1.5 * len(settings) + 0.25)
    for row, parameters in zip(axes, settings, strict=True):
        setting = json.loads(parameters)
        panel = table[table["parameters"] == parameters]
        matrices = {
            name: _data.matrix(panel[panel["name"] == name]).to_numpy(float) for name in STEPS
        }
        limits = {
            "X": np.abs(matrices["matrix"]).max(),
            "R": np.abs(matrices["residual"]).max(),
            "codes": 2.0 ** (setting["bits"] - 1) - 1,
        }
        norm = np.linalg.norm(matrices["matrix"])
        for axis, name in zip(row, STEPS, strict=True):
            limit = limits[SHARED.get(name, "codes")]
            axis.imshow(matrices[name], cmap="RdBu_r", vmin=-limit, vmax=limit)
            axis.set(xticks=[], yticks=[])
            title = name if name != "low-rank part" else f"rank-{setting['rank']} part"
            axis.set_title(title)
            share = np.linalg.norm(matrices[name]) / norm
            text = f"{setting['bits']} bits" if name == "codes" else f"norm {share:.2g}"
            axis.set_xlabel(f"{text}, ±{limit:.2g}", fontsize=_style.SMALL)
        row[0].set_ylabel(setting["rounding"])
    layer = table["input"].iloc[0]
    figure.suptitle(f"32 x 32 piece of the output of ResNet-50's {layer}; norms relative to it")
    return figure
