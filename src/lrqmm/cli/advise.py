"""`lrqmm advise`: which method to take for two matrices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from lrqmm.cli._app import AsJson, Device, Library, Matrix, Transposed, app, ending
from lrqmm.cli._console import console, new_table, one_error, print_json, show_progress
from lrqmm.cli._files import read_matrices

if TYPE_CHECKING:
    from lrqmm.advice import Advice


@app.command(
    epilog=ending(
        "lrqmm advise A.npy W.npy --transpose-b --max-error 0.01",
        two="no candidate is that exact",
    )
)
def advise(
    a: Matrix,
    b: Matrix,
    max_error: Annotated[float, typer.Option(help="Largest relative error.", show_default=False)],
    goal: Annotated[str, typer.Option(help="What is to be least: time, bits or memory.")] = "time",
    weights: Annotated[
        bool, typer.Option("--weights", help="B is a weight, made ready ahead of time.")
    ] = False,
    peers: Annotated[
        bool, typer.Option("--peers", help="Try products of other libraries too.")
    ] = False,
    transpose_b: Transposed = False,
    library: Library = "torch",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure which method to take for two matrices.

    Candidates multiply them; those that keep the error are listed, the best first.
    """
    from lrqmm.advice import advise as measure

    with one_error(), show_progress(as_json) as progress:
        A, B, values = read_matrices(a, b, transpose_b, library, device, progress)
        options: Any = {"goal": goal, "prepared": weights, "peers": peers}
        options |= {"values": values, "progress": progress}
        advice = measure(A, B, max_error=max_error, **options)
    if as_json:
        _print_json(advice)
    else:
        _show(advice)
    raise typer.Exit(0 if advice.found else 2)


def _print_json(advice: Advice) -> None:
    candidates = [
        {**it, "error": it["error"] if math.isfinite(it["error"]) else None}
        for it in advice.candidates
    ]
    best = {"python": advice.python, "config": advice.config} if advice.found else None
    document = {"best": best, "candidates": candidates, "left_out": dict(advice.left_out)}
    print_json({**document, "loaded": advice.loaded})


def _show(advice: Advice) -> None:
    """The candidates that keep the error and were measured whole, then what to write."""
    out = console()
    every = len(advice.candidates)
    if advice.found:
        keep = sum(it["keeps"] for it in advice.candidates)
        out.print(
            f"Take {advice.best['method']}: its error is {advice.best['error']:.2g}. Of {every} "
            f"candidates {keep} keep {advice.max_error:g} on a sample; these were measured on the "
            "whole matrices.",
            soft_wrap=True,
        )
        table = new_table("method", numbers=("error", "ms", "range", "bits", "MB of B"))
        table.title = "best first"
        for it in advice.candidates:
            if it["keeps"] and it["whole"]:
                parameters = " ".join(f"{key}={value}" for key, value in it["parameters"].items())
                table.add_row(
                    f"{it['method']} {parameters}", f"{it['error']:.2g}",
                    f"{1e3 * it['seconds']:.3g}",
                    f"{1e3 * it['low']:.3g} to {1e3 * it['high']:.3g}", f"{it['bits']:.2f}",
                    f"{it['megabytes']:.3g}",
                )  # fmt: skip
        out.print(table)
        if advice.loaded:
            out.print("Others used the machine meanwhile: times may be too long.")
        out.print("\nPython:", advice.python, soft_wrap=True)
        out.print("Study:", advice.config.replace("\n", "; "), soft_wrap=True)
    else:
        out.print(
            f"none of {every} candidates keeps an error of {advice.max_error:g}; the least is "
            f"{advice.closest['error']:.2g}, by {advice.closest['method']}",
            soft_wrap=True,
        )
    for name, reason in advice.left_out.items():
        out.print(Text(f"left out: {name}: {reason}", style="dim"), soft_wrap=True)
