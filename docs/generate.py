"""What the site takes from the repository: figures, a table, the command line's reference.

`python docs/generate.py` draws the README's picture.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from lrqmm.figures import NothingToDraw, _data, _style, list_figures, make
from lrqmm.run.read import Run, read_run

logging.getLogger("matplotlib").setLevel(logging.WARNING)
ROOT = Path(__file__).parent.parent
GALLERY = """# Gallery

Every figure, drawn from a committed run (`results/reference`). `snakemake figures` draws them all
from a run of yours, and a notebook each family.

"""


GAIN = """Error of the direct product over that of the method, {bits} bits, n = {n}, rank {rank},
medians of seeds [least, most] (`results/reference/{run}`):

{table}
"""


def write(folder: Path) -> None:
    """gallery.md with its figures, gain.md and cli.md."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    runs = [read_run(path) for path in sorted((ROOT / "results/reference").iterdir())]
    runs.sort(key=lambda run: run.folder.name != "cpu-2core")  # the study before the others
    sections = [
        _section(drawing.name, runs, folder / "figures")
        for drawing in list_figures()
        if drawing.folder == "figures"
    ]
    (folder / "gallery.md").write_text(GALLERY + "\n".join(sections))
    (folder / "gain.md").write_text(_gain(runs[0]))
    describe = [sys.executable, "-m", "typer", "lrqmm.cli", "utils", "docs", "--name", "lrqmm"]
    describe += ["--title", "Command line", "--output", str(folder / "cli.md")]
    subprocess.run(describe, check=True, stdout=subprocess.DEVNULL)


def _gain(run: Run) -> str:
    """The ablation's gains at its least rank, with all terms and the ones column."""
    table = _data.ablation_gains(run)
    least = int(table["rank"].min())
    low = table[
        table["rank"].eq(least).fillna(False)
        & table["terms"].eq("full").fillna(False)
        & table["sketch"].eq("ones+gaussian").fillna(False)
    ]
    fix = table[table["method"] == "mean_fix"]
    table = pd.concat([fix, low])
    table = table.assign(
        method=table["method"].map(_style.label),
        input=table["input"].map(run.title),
        gain=[
            f"{row.gain:.3g} [{row.least_gain:.3g}, {row.largest_gain:.3g}]"
            for row in table.itertuples()
        ],
    )
    wide = table.pivot_table("gain", ["rounding", "input"], "method", "first", sort=False)
    wide = wide.reset_index()
    lines = [wide.columns, ["---"] * len(wide.columns), *wide.itertuples(index=False)]
    return GAIN.format(
        bits=table["bits"].iloc[0],
        n=table["n"].iloc[0],
        rank=least,
        run=run.folder.name,
        table="\n".join(f"| {' | '.join(line)} |" for line in lines),
    )


def _section(name: str, runs: list[Run], folder: Path) -> str:
    """One figure from the first run that has its measurements."""
    for run in runs:
        try:
            figure = make(name, run)
        except NothingToDraw:
            continue
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)
        words = " ".join((ROOT / f"workflow/report/{name}.rst").read_text().split())
        alt = words.split(". ")[0].replace("``", "").rstrip(".")
        return (
            f"## {name}\n\n![{alt}](figures/{name}.svg)\n\n{words.replace('``', '`')}\n\n"
            f"Run: `{run.folder.relative_to(ROOT)}`.\n"
        )
    raise ValueError(f"no reference run has the measurements of {name}")


def picture() -> None:
    """That of the README: what 4 bits leave of ResNet-50, and what they cost."""
    figure = make("figure8_accuracy", read_run(ROOT / "results/reference/imagenet-cpu-2core"))
    figure.savefig(ROOT / "docs/picture.png", dpi=160, metadata={"Software": None})


if __name__ == "__main__":
    picture()
