"""The command line: `lrqmm --help`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

if TYPE_CHECKING:
    from lrqmm.advice import Advice

app = typer.Typer(
    help="Low-bit matrix multiplication: what to pick, products, checks of machines and of runs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunFolder = Annotated[Path, typer.Argument(help="A run folder.", show_default=False)]
Matrix = Annotated[
    str,
    typer.Argument(help="A .npy file, or FILE.safetensors:KEY, FILE.npz:KEY.", show_default=False),
]
Transposed = Annotated[
    bool, typer.Option("--transpose-b", help="B is stored as (n, k), as a torch weight is.")
]
Library = Annotated[str, typer.Option(help="numpy, torch or cupy.")]
Device = Annotated[str, typer.Option(help="Of torch: auto, cpu or cuda.")]


@contextmanager
def _one_error() -> Iterator[None]:
    """An expected error is one line and exit code 1."""
    try:
        yield
    except (ValueError, OSError) as error:
        Console(stderr=True).print(f"error: {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None


@app.command()
def advise(
    a: Matrix,
    b: Matrix,
    max_error: Annotated[float, typer.Option(help="Largest relative error.", show_default=False)],
    goal: Annotated[str, typer.Option(help="What is to be least: time, bits or memory.")] = "time",
    weights: Annotated[
        bool, typer.Option("--weights", help="B is a weight, made ready ahead of time.")
    ] = False,
    transpose_b: Transposed = False,
    library: Library = "torch",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure the candidates on two matrices: which to take. Exit code 2: none is that exact."""
    from lrqmm.advice import advise as ask

    with _one_error(), _progress(as_json) as progress:
        A, B = _matrices(a, b, transpose_b, library, device)
        advice = ask(A, B, max_error=max_error, goal=goal, prepared=weights, progress=progress)
    if as_json:
        rows = json.loads(advice.table.to_json(orient="records"))
        best = {"python": advice.python, "config": advice.config} if advice.found else None
        print(json.dumps({"best": best, "candidates": rows, "left_out": dict(advice.left_out)}))
    else:
        _show(advice)
    raise typer.Exit(0 if advice.found else 2)


def _show(advice: Advice) -> None:
    """The candidates that keep the error and were measured whole, then what to write."""
    kept = advice.table[advice.table["keeps"] & advice.table["whole"]]
    table = Table("method", "error", "ms", "range", "bits", "MB of B", title="best first")
    for row in kept.itertuples():
        words = " ".join(f"{key}={value}" for key, value in row.parameters.items())
        table.add_row(
            f"{row.method} {words}", f"{row.error:.2g}", f"{1e3 * row.seconds:.3g}",
            f"{1e3 * row.low:.3g} to {1e3 * row.high:.3g}", f"{row.bits:.2f}",
            f"{row.megabytes:.3g}",
        )  # fmt: skip
    console = Console()
    if len(kept):
        console.print(table)
        console.print("\nPython:", escape(advice.python), soft_wrap=True)
        console.print("Study:", escape(advice.config.replace("\n", "; ")), soft_wrap=True)
    else:
        least = advice.table.loc[advice.table["error"].idxmin()]
        console.print(
            f"none of {len(advice.table)} candidates keeps an error of {advice.max_error:g}; the "
            f"least is {least['error']:.2g}, by {least['method']}",
            soft_wrap=True,
        )
    for words, why in advice.left_out.items():
        console.print(f"[dim]left out: {escape(words)}: {escape(why)}[/]", soft_wrap=True)


@app.command()
def matmul(
    a: Matrix,
    b: Matrix,
    out: Annotated[Path, typer.Option(help="A .npy file.", show_default=False)],
    method: Annotated[str, typer.Option(help="As `lrqmm methods` lists them.")] = "lrqmm",
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", help="NAME=VALUE, once or more.")
    ] = None,
    transpose_b: Transposed = False,
    library: Library = "torch",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Multiply two matrices, write the product, and say its error."""
    import numpy as np

    from lrqmm.backends import to_numpy
    from lrqmm.measure.error import exact_product, relative_error
    from lrqmm.method import get_method

    with _one_error():
        if out.suffix != ".npy":
            raise ValueError(f"out is {str(out)!r}; allowed: a .npy file")
        own = get_method(method, **_parameters(parameter or []))
        A, B = _matrices(a, b, transpose_b, library, device)
        C = to_numpy(own.matmul(A, B))
        part = out.with_name(out.name + ".part")
        with part.open("wb") as stream:
            np.save(stream, C)
        part.replace(out)
    error = relative_error(C, exact_product(to_numpy(A), to_numpy(B)))
    if as_json:
        about = {"method": method, "parameters": own.parameters, "relative_error": error}
        print(json.dumps({**about, "shape": list(C.shape), "out": str(out)}))
    else:
        words = f"{own!r}: {C.shape[0]} x {C.shape[1]}, relative error {error:.3g}, in {out}"
        Console().print(escape(words), soft_wrap=True)


@app.command(name="methods")
def list_all(
    name: Annotated[str | None, typer.Argument(help="One of them.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """The methods: what each does, needs and takes."""
    from lrqmm.describe import describe
    from lrqmm.method import get_method
    from lrqmm.methods import list_methods

    with _one_error():
        found = [describe(each) for each in (list_methods() if name is None else [name])]
    if as_json:
        print(json.dumps([asdict(each) for each in found]))
    elif name is None:
        table = Table("method", "part", "what it does")
        for each in found:
            table.add_row(each.name, each.part, escape(each.about))
        Console().print(table)
    else:
        (only,) = found
        for words in (only.about, f"needs: {only.needs}", f"cites: {', '.join(only.cites)}"):
            Console().print(escape(words), soft_wrap=True)
        Console().print(escape(repr(get_method(only.name))), soft_wrap=True)


@app.command()
def explore(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="An .html file; else explorer.html of the first run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """One page that shows these runs beside each other; it opens from disk."""
    from lrqmm import explorer
    from lrqmm.store import read_run

    path = runs[0] / "explorer.html" if out is None else out
    with _one_error():
        explorer.write([read_run(run) for run in runs], path)
    if as_json:
        print(json.dumps({"out": str(path), "bytes": path.stat().st_size}))
    else:
        Console().print(f"written: {escape(str(path))}", soft_wrap=True)


@app.command()
def compare(left: RunFolder, right: RunFolder, as_json: AsJson = False) -> None:
    """Two runs beside each other: errors and times of the settings that both have."""
    from lrqmm.comparison import by_method
    from lrqmm.comparison import compare as beside
    from lrqmm.store import read_run

    with _one_error():
        both = beside(read_run(left), read_run(right))
    if as_json:
        print(both.to_json(orient="records"))
        return
    titles = ("metric", "method", "settings", "equal", "right / left", "range")
    table = Table(*titles, title=f"{escape(str(right))} against {escape(str(left))}")
    for row in by_method(both).itertuples():
        table.add_row(
            row.metric.replace("_", " "), escape(row.method), str(row.settings), str(row.equal),
            f"{row.ratio:.3g}", f"{row.least:.3g} to {row.most:.3g}",
        )  # fmt: skip
    Console().print(table)


@app.command()
def new_method(
    name: Annotated[str, typer.Argument(help="Lower case, words joined by _.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Begin a method: its file and its test, in a checkout."""
    from lrqmm.template import new_method as begin

    with _one_error():
        paths = [str(path) for path in begin(name)]
    if as_json:
        print(json.dumps(paths))
    else:
        for path in paths:
            Console().print(f"written: {escape(path)}", soft_wrap=True)


def _matrices(a: str, b: str, transpose_b: bool, library: str, device: str) -> tuple[Any, Any]:
    from lrqmm import _checks
    from lrqmm.backends import LIBRARIES, from_numpy
    from lrqmm.inputs.files import read_matrix

    _checks.choice("library", library, list(LIBRARIES))
    _checks.choice("device", device, ("auto", "cpu", "cuda"))
    A, B = read_matrix(a), read_matrix(b)
    return from_numpy(A, library, device), from_numpy(B.T if transpose_b else B, library, device)


def _parameters(words: list[str]) -> dict[str, Any]:
    """Of NAME=VALUE, values as in a configuration."""
    import yaml

    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ValueError(f"parameter is {word!r}; allowed: NAME=VALUE")
        found[name] = yaml.safe_load(value)
    return found


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """A bar on stderr."""
    with Progress(console=Console(stderr=True), disable=quiet, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda words, share: bar.update(task, description=words, completed=share)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """What this machine has for measuring, and what is missing. Exit code 1: cannot measure."""
    from lrqmm import doctor as examine

    findings = examine.examine()
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        marks = {"ok": "[green]ok     [/]", "note": "[yellow]note   [/]", "bad": "[red]missing[/]"}
        for finding in findings:
            about = f"{finding.what}: {finding.found}"
            Console().print(marks[finding.state], escape(about), soft_wrap=True)
            if finding.advice:
                Console().print("        ", escape(finding.advice), soft_wrap=True)
    raise typer.Exit(any(finding.state == "bad" for finding in findings))


@app.command()
def verify(
    run: RunFolder,
    again: Annotated[int, typer.Option(min=0, help="Errors to measure again.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Check a run: hashes, schema, completeness, possible values. Exit code 1: refused."""
    from lrqmm.verify import verify as check
    from lrqmm.verify import words

    with _one_error():
        verdict = check(run, again=again)
    if as_json:
        print(json.dumps(asdict(verdict), indent=1))
    else:
        for line in words(verdict):
            Console().print(escape(line), soft_wrap=True)
    raise typer.Exit(bool(verdict.refusals))


@app.command()
def merge(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", show_default=False)],
    into: Annotated[Path, typer.Option(help="The merged run's folder.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Merge runs of several machines, or parts of a study, into one. Nothing is averaged."""
    from lrqmm.merge import merge as merge_runs

    with _one_error():
        merge_runs(runs, into)
    if as_json:
        print(json.dumps({"runs": [str(run) for run in runs], "into": str(into)}))
    else:
        Console().print(f"merged {len(runs)} runs into {escape(str(into))}", soft_wrap=True)


@app.command()
def keep(
    run: RunFolder,
    folder: Annotated[Path, typer.Argument(help="Of the reference run.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Keep a run as a reference: verified, of one clean commit, timed on an idle machine."""
    from lrqmm.reference import keep as keep_run

    with _one_error():
        keep_run(run, folder)
    if as_json:
        print(json.dumps({"run": str(run), "folder": str(folder)}))
