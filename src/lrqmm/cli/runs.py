"""Commands on the folders of runs: explore, compare, verify, merge and keep them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrqmm._progress import Report
from lrqmm.cli._app import AsJson, RunFolder, RunFolders, app, ending
from lrqmm.cli._console import answer, console, new_table, one_error, print_json, show_progress
from lrqmm.cli._files import check_new_file

if TYPE_CHECKING:
    from lrqmm.run.read import Run


@app.command(epilog=ending("lrqmm explore results/ours results/theirs --out both.html"))
def explore(
    runs: RunFolders,
    out: Annotated[
        Path | None, typer.Option(help="An .html file; else explorer.html of the first run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write one page that shows runs beside each other.

    It opens from disk, in any browser.
    """
    from lrqmm import explorer

    path = runs[0] / "explorer.html" if out is None else out
    with one_error(), show_progress(as_json) as progress:
        if out is not None:
            check_new_file(out, ".html")
        read = _read(runs, progress)
        progress(f"writing {path}", 0.8)
        explorer.write(read, path)
    answer(as_json, {"out": str(path), "bytes": path.stat().st_size}, f"written: {path}")


@app.command(epilog=ending("lrqmm compare results/ours results/theirs"))
def compare(left: RunFolder, right: RunFolder, as_json: AsJson = False) -> None:
    """Set errors and times of two runs beside each other.

    Settings that both have are compared: one line per method and metric.
    """
    from lrqmm.run.compare import by_method
    from lrqmm.run.compare import compare as beside

    with one_error(), show_progress(as_json) as progress:
        both = beside(*_read([left, right], progress))
    if as_json:
        print_json(json.loads(both.to_json(orient="records")))
        return
    table = new_table("metric", "method", numbers=("settings", "equal", "right / left", "range"))
    table.title = f"{right} against {left}"
    for row in by_method(both).itertuples():
        table.add_row(
            row.metric.replace("_", " "), row.method, str(row.settings), str(row.equal),
            f"{row.ratio:.3g}", f"{row.least:.3g} to {row.most:.3g}",
        )  # fmt: skip
    console().print(table)


@app.command(epilog=ending("lrqmm verify results/ours --again 20", one="refused"))
def verify(
    run: RunFolder,
    again: Annotated[int, typer.Option(metavar="N", min=0, help="Errors to measure again.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Check a run as the checker of a submission would.

    Its hashes, schema, completeness and values; with --again some errors are measured again here.
    """
    from lrqmm.bench.verify import verify as check
    from lrqmm.bench.verify import words

    with one_error(), show_progress(as_json) as progress:
        verdict = check(run, again=again, progress=progress)
    answer(as_json, asdict(verdict), *words(verdict))
    raise typer.Exit(bool(verdict.refusals))


@app.command(epilog=ending("lrqmm merge results/ours results/theirs --into results/both"))
def merge(
    runs: RunFolders,
    into: Annotated[Path, typer.Option(help="The merged run's folder.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Merge runs of several machines, or parts of a study.

    Nothing is averaged: what two machines measured is kept twice.
    """
    from lrqmm.run.merge import merge as merge_runs

    with one_error(), show_progress(as_json) as progress:
        merge_runs(runs, into, progress=progress)
    document = {"runs": [str(run) for run in runs], "into": str(into)}
    answer(as_json, document, f"merged {len(runs)} runs into {into}")


@app.command(epilog=ending("lrqmm keep results/ours results/reference/my-machine"))
def keep(
    run: RunFolder,
    folder: Annotated[Path, typer.Argument(help="Of the reference run.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Keep a run as a reference.

    It must be verified, of one clean commit, and timed on an idle machine.
    """
    from lrqmm.bench.keep import keep as keep_run

    with one_error(), show_progress(as_json) as progress:
        keep_run(run, folder, progress=progress)
    answer(as_json, {"run": str(run), "folder": str(folder)}, f"kept: {folder}")


def _read(folders: Sequence[Path], progress: Report) -> list[Run]:
    from lrqmm.run.read import read_run

    runs = []
    for number, folder in enumerate(folders):
        progress(f"reading {folder}", 0.8 * number / len(folders))
        runs.append(read_run(folder))
    return runs
