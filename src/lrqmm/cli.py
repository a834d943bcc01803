"""The command line: `lrqmm --help`."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from lrqmm import _checks
from lrqmm._progress import Report

if TYPE_CHECKING:
    from lrqmm.advice import Advice
    from lrqmm.method import Method
    from lrqmm.run.read import Run


def _ending(example: str, one: str = "error, in one line on stderr", two: str = "") -> str:
    """The end of a command's help: its exit codes, and an example."""
    wrong = "wrong usage"
    return (
        f"Exit codes: 0 fine; 1 {one}; 2 {f'{two}, or {wrong}' if two else wrong}."
        f"\n\nExample: {example}"
    )


app = typer.Typer(
    help="Low-bit matrix multiplication: what to pick, products, checks of machines and of runs.",
    epilog=_ending("lrqmm advise A.npy B.npy --max-error 0.01"),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
RunFolder = Annotated[Path, typer.Argument(help="A run folder.", show_default=False)]
RunFolders = Annotated[list[Path], typer.Argument(help="Run folders.", show_default=False)]
Matrix = Annotated[
    str,
    typer.Argument(help="A .npy file, or FILE.safetensors:KEY, FILE.npz:KEY.", show_default=False),
]
Transposed = Annotated[
    bool, typer.Option("--transpose-b", help="B is stored as (n, k), as a torch weight is.")
]
Library = Annotated[str, typer.Option(help="numpy, torch or cupy.")]
Device = Annotated[str, typer.Option(help="Of torch: auto, cpu or cuda.")]


def _console(*, stderr: bool = False) -> Console:
    """Where words are printed as they are: paths hold brackets, `:smile:`, and broken letters."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return Console(stderr=stderr, markup=False, emoji=False)


@contextmanager
def _one_error() -> Iterator[None]:
    """An error is one line and exit code 1; a warning is a line.

    One that no check foresaw says what was being done, as `_progress` notes it.
    """
    err = _console(stderr=True)

    def say(kind: str, words: object) -> None:
        err.print(f"{kind}: {' '.join(str(words).split())}", soft_wrap=True)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: say("warning", message)
            yield
    except Exception as error:
        doing = "" if _checks.expected(error) else "".join(getattr(error, "__notes__", ())[-1:])
        say("error", f"{doing and doing + ' failed: '}{_checks.in_words(error)}")
        raise typer.Exit(1) from None


@contextmanager
def _progress(as_json: bool) -> Iterator[Report]:
    """A bar on stderr, where that is a terminal."""
    hidden = as_json or not sys.stderr.isatty()
    words = TextColumn("{task.description}", table_column=Column(no_wrap=True), markup=False)
    columns = (BarColumn(20), TaskProgressColumn(), TimeRemainingColumn(), words)
    with Progress(*columns, console=_console(stderr=True), disable=hidden, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        doing = ""

        def report(words: str, share: float) -> None:
            nonlocal doing
            doing = words
            bar.update(task, description=words, completed=share)

        try:
            yield report
        except Exception as error:
            error.add_note(doing)
            raise


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=1, allow_nan=False))


def _table(*words: str, numbers: Sequence[str] = ()) -> Table:
    """A table of these columns, in which no name is cut."""
    right = (Column(title, justify="right", no_wrap=True) for title in numbers)
    return Table(*(Column(title, overflow="fold") for title in words), *right)


def _say(words: str) -> None:
    _console().print(words, soft_wrap=True)


@app.command(
    epilog=_ending(
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
    transpose_b: Transposed = False,
    library: Library = "torch",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure which method to take for two matrices.

    Candidates multiply them; those that keep the error are listed, the best first.
    """
    from lrqmm.advice import advise as ask

    with _one_error(), _progress(as_json) as progress:
        A, B, values = _matrices(a, b, transpose_b, library, device, progress)
        how: Any = {"goal": goal, "prepared": weights, "values": values, "progress": progress}
        advice = ask(A, B, max_error=max_error, **how)
    if as_json:
        rows = json.loads(advice.table.to_json(orient="records"))
        best = {"python": advice.python, "config": advice.config} if advice.found else None
        about = {"left_out": dict(advice.left_out), "loaded": advice.loaded}
        _print_json({"best": best, "candidates": rows, **about})
    else:
        _show(advice)
    raise typer.Exit(0 if advice.found else 2)


def _show(advice: Advice) -> None:
    """The candidates that keep the error and were measured whole, then what to write."""
    kept = advice.table[advice.table["keeps"] & advice.table["whole"]]
    table = _table("method", numbers=("error", "ms", "range", "bits", "MB of B"))
    table.title = "best first"
    for row in kept.itertuples():
        words = " ".join(f"{key}={value}" for key, value in row.parameters.items())
        table.add_row(
            f"{row.method} {words}", f"{row.error:.2g}", f"{1e3 * row.seconds:.3g}",
            f"{1e3 * row.low:.3g} to {1e3 * row.high:.3g}", f"{row.bits:.2f}",
            f"{row.megabytes:.3g}",
        )  # fmt: skip
    console = _console()
    if len(kept):
        best, every = advice.best, len(advice.table)
        console.print(
            f"Take {best['method']}: its error is {best['error']:.2g}. Of {every} candidates "
            f"{advice.table['keeps'].sum()} keep {advice.max_error:g} on a sample; these were "
            "measured on the whole matrices.",
            soft_wrap=True,
        )
        console.print(table)
        if advice.loaded:
            console.print("Others used the machine meanwhile: times may be too long.")
        console.print("\nPython:", advice.python, soft_wrap=True)
        console.print("Study:", advice.config.replace("\n", "; "), soft_wrap=True)
    else:
        least = advice.table.loc[advice.table["error"].idxmin()]
        console.print(
            f"none of {len(advice.table)} candidates keeps an error of {advice.max_error:g}; the "
            f"least is {least['error']:.2g}, by {least['method']}",
            soft_wrap=True,
        )
    for words, why in advice.left_out.items():
        console.print(Text(f"left out: {words}: {why}", style="dim"), soft_wrap=True)


@app.command(
    epilog=_ending("lrqmm matmul A.npy B.npy --method direct -p bits=4 --out C.npy"),
)
def matmul(
    a: Matrix,
    b: Matrix,
    out: Annotated[Path, typer.Option(help="A .npy file.", show_default=False)],
    method: Annotated[str, typer.Option(help="As `lrqmm methods` lists them.")] = "lrqmm",
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", help="NAME=VALUE, once or more.")
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(
            metavar="MB",
            help="Keep within it: .npy files of any size, on the CPU; no error is measured.",
            min=1,
        ),
    ] = None,
    transpose_b: Transposed = False,
    library: Library = "torch",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Multiply two matrices, write the product, say its error."""
    from lrqmm.method import get_method

    with _one_error(), _progress(as_json) as progress:
        _new_file(out, ".npy")
        given = _parameters(parameter or [])
        if memory is not None and "power_iterations" in get_method(method).parameters:
            given = {"power_iterations": 0, **given}  # all that the tiles have
        own = get_method(method, **given)
        if memory is None:
            A, B, values = _matrices(a, b, transpose_b, library, device, progress)
            shape, error = _multiply(own, A, B, values, out, progress)
        else:
            _checks.choice("library", library, ["torch"])
            _checks.choice("device", device, ["auto", "cpu"])
            shape, error = _multiply_by_tiles(own, a, b, transpose_b, out, memory, progress)
    if as_json:
        about = {"method": method, "parameters": own.parameters, "relative_error": error}
        _print_json({**about, "shape": shape, "out": str(out)})
    else:
        none = "AB is zero and this is not" if memory is None else "error not measured"
        said = none if error is None else f"relative error {error:.3g}"
        _say(f"{own!r}: {shape[0]} x {shape[1]}, {said}, in {out}")


def _multiply(
    method: Method, A: Any, B: Any, values: Any, out: Path, progress: Report
) -> tuple[list[int], float | None]:
    """Shape of the product, which is written, and its error against that of the files' values; None
    where AB is zero and C is not."""
    import numpy as np

    from lrqmm.error import exact_product, relative_error
    from lrqmm.products.backends import to_numpy

    progress(f"multiplying by {method.name}", 0.2)
    C = to_numpy(method.matmul(A, B))
    if not np.isfinite(C).all():
        raise ValueError("the product holds NaN or infinity: float32 does not hold all of it")
    part = out.with_name(out.name + ".part")
    with part.open("wb") as stream:
        np.save(stream, C)
    part.replace(out)
    progress("measuring its error", 0.5)
    error = relative_error(C, exact_product(*values))
    return list(C.shape), error if math.isfinite(error) else None


def _multiply_by_tiles(
    method: Method, a: str, b: str, transpose_b: bool, out: Path, megabytes: int, progress: Report
) -> tuple[list[int], None]:
    """Shape of the product, which is written; its error would take a second one."""
    import numpy as np

    from lrqmm import tiled

    for name, file in (("A", a), ("B", b)):
        if not file.endswith(".npy"):
            raise ValueError(f"{name} is {file!r}; allowed with --memory: a .npy file")
    B: Any = b
    if transpose_b:
        with _checks.reading(Path(b)):
            B = np.load(b, mmap_mode="r", allow_pickle=False).T
    limit = megabytes * 10**6
    C = tiled.matmul(
        a, B, method.name, out=out, memory_limit=limit, progress=progress, **method.parameters
    )
    return list(C.shape), None


@app.command(name="methods", epilog=_ending("lrqmm methods lrqmm_aware"))
def list_all(
    name: Annotated[str | None, typer.Argument(help="One of them.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """List the methods: what each does, needs and takes."""
    from lrqmm.describe import describe
    from lrqmm.methods import list_methods

    with _one_error():
        found = [describe(each) for each in (list_methods() if name is None else [name])]
    if as_json:
        _print_json([asdict(each) for each in found])
    elif name is None:
        table = _table("method", "part", "what it does")
        for each in found:
            table.add_row(each.name, each.part, each.about)
        _console().print(table)
    else:
        (only,) = found
        takes = ", ".join(f"{key}={value!r}" for key, value in only.parameters.items())
        for words in (
            only.about,
            f"needs: {only.needs}",
            f"takes: {takes or 'no parameters'}",
            f"cites: {', '.join(only.cites)}",
        ):
            _say(words)


@app.command(epilog=_ending("lrqmm explore results/ours results/theirs --out both.html"))
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
    with _one_error(), _progress(as_json) as progress:
        if out is not None:
            _new_file(out, ".html")
        read = _read(runs, progress)
        progress(f"writing {path}", 0.8)
        explorer.write(read, path)
    if as_json:
        _print_json({"out": str(path), "bytes": path.stat().st_size})
    else:
        _say(f"written: {path}")


@app.command(epilog=_ending("lrqmm compare results/ours results/theirs"))
def compare(left: RunFolder, right: RunFolder, as_json: AsJson = False) -> None:
    """Set errors and times of two runs beside each other.

    Settings that both have are compared: a line a method and metric.
    """
    from lrqmm.run.compare import by_method
    from lrqmm.run.compare import compare as beside

    with _one_error(), _progress(as_json) as progress:
        both = beside(*_read([left, right], progress))
    if as_json:
        _print_json(json.loads(both.to_json(orient="records")))
        return
    table = _table("metric", "method", numbers=("settings", "equal", "right / left", "range"))
    table.title = f"{right} against {left}"
    for row in by_method(both).itertuples():
        table.add_row(
            row.metric.replace("_", " "), row.method, str(row.settings), str(row.equal),
            f"{row.ratio:.3g}", f"{row.least:.3g} to {row.most:.3g}",
        )  # fmt: skip
    _console().print(table)


@app.command(epilog=_ending("lrqmm new-method my_method"))
def new_method(
    name: Annotated[str, typer.Argument(help="Lower case, words joined by _.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Begin a method: its file and its test, in a checkout.

    They are run as they are, and are there to be changed.
    """
    from lrqmm.bench.template import new_method as begin

    with _one_error():
        paths = [str(path) for path in begin(name)]
    if as_json:
        _print_json(paths)
    else:
        for path in paths:
            _say(f"written: {path}")


def _new_file(path: Path, suffix: str) -> None:
    if path.suffix != suffix or not path.parent.is_dir():
        raise ValueError(f"out is {str(path)!r}; allowed: a {suffix} file in an existing folder")


def _read(folders: Sequence[Path], progress: Report) -> list[Run]:
    from lrqmm.run.read import read_run

    runs = []
    for number, folder in enumerate(folders):
        progress(f"reading {folder}", 0.8 * number / len(folders))
        runs.append(read_run(folder))
    return runs


def _matrices(
    a: str, b: str, transpose_b: bool, library: str, device: str, progress: Report
) -> tuple[Any, Any, tuple[Any, Any]]:
    """A and B in a library, float32, and as they are stored."""
    import numpy as np

    from lrqmm.bench.sources.files import read_values
    from lrqmm.products.backends import LIBRARIES, from_numpy

    _checks.choice("library", library, list(LIBRARIES))
    _checks.choice("device", device, ("auto", "cpu", "cuda"))
    if importlib.util.find_spec(library) is None:
        raise ValueError(f"library is {library!r}, which is not installed")
    progress(f"reading {a} and {b}", 0.0)
    A, B = read_values(a), read_values(b)
    values = (A, B.T if transpose_b else B)
    left, right = (from_numpy(X.astype(np.float32, copy=False), library, device) for X in values)
    return left, right, values


def _parameters(words: list[str]) -> dict[str, Any]:
    """Of NAME=VALUE, values as in a configuration."""
    import yaml

    from lrqmm.bench.configuration import read_yaml

    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ValueError(f"parameter is {word!r}; allowed: NAME=VALUE")
        if name in found:
            raise ValueError(f"parameter {name} is given twice; allowed: once")
        try:
            found[name] = read_yaml(value)
        except yaml.YAMLError:
            raise ValueError(
                f"parameter is {word!r}; allowed: NAME=VALUE, a value as in YAML"
            ) from None
        if isinstance(found[name], str):
            with suppress(ValueError):  # YAML takes 1e-3 for a word
                found[name] = float(value)
    return found


@app.command(epilog=_ending("lrqmm doctor", one="it cannot measure"))
def doctor(as_json: AsJson = False) -> None:
    """Say what this machine has for measuring, and what is missing."""
    from lrqmm.doctor import examine

    with _one_error(), _progress(as_json) as progress:
        findings = examine(progress)
    if as_json:
        _print_json([asdict(finding) for finding in findings])
    else:
        marks = {"ok": ("ok", "green"), "note": ("note", "yellow"), "bad": ("missing", "red")}
        for finding in findings:
            mark, colour = marks[finding.state]
            about = f"{finding.what}: {finding.found}"
            _console().print(Text(f"{mark:7}", style=colour), about, soft_wrap=True)
            if finding.advice:
                _say(f"         {finding.advice}")
    raise typer.Exit(any(finding.state == "bad" for finding in findings))


@app.command(epilog=_ending("lrqmm verify results/ours --again 20", one="refused"))
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

    with _one_error(), _progress(as_json) as progress:
        verdict = check(run, again=again, progress=progress)
    if as_json:
        _print_json(asdict(verdict))
    else:
        for line in words(verdict):
            _say(line)
    raise typer.Exit(bool(verdict.refusals))


@app.command(epilog=_ending("lrqmm merge results/ours results/theirs --into results/both"))
def merge(
    runs: RunFolders,
    into: Annotated[Path, typer.Option(help="The merged run's folder.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Merge runs of several machines, or parts of a study.

    Nothing is averaged: what two machines measured is kept twice.
    """
    from lrqmm.run.merge import merge as merge_runs

    with _one_error(), _progress(as_json) as progress:
        merge_runs(runs, into, progress=progress)
    if as_json:
        _print_json({"runs": [str(run) for run in runs], "into": str(into)})
    else:
        _say(f"merged {len(runs)} runs into {into}")


@app.command(epilog=_ending("lrqmm keep results/ours results/reference/my-machine"))
def keep(
    run: RunFolder,
    folder: Annotated[Path, typer.Argument(help="Of the reference run.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Keep a run as a reference.

    It must be verified, of one clean commit, and timed on an idle machine.
    """
    from lrqmm.bench.keep import keep as keep_run

    with _one_error(), _progress(as_json) as progress:
        keep_run(run, folder, progress=progress)
    if as_json:
        _print_json({"run": str(run), "folder": str(folder)})
    else:
        _say(f"kept: {folder}")
