"""The command line: `lrqmm --help`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

app = typer.Typer(
    help="Low-bit matrix multiplication: checks of machines and of runs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunFolder = Annotated[Path, typer.Argument(help="A run folder.", show_default=False)]


@contextmanager
def _one_error() -> Iterator[None]:
    """An expected error is one line and exit code 1."""
    try:
        yield
    except (ValueError, OSError) as error:
        Console(stderr=True).print(f"error: {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None


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
) -> None:
    """Merge runs of several machines, or parts of a study, into one. Nothing is averaged."""
    from lrqmm.merge import merge as merge_runs

    with _one_error():
        merge_runs(runs, into)
    Console().print(f"merged {len(runs)} runs into {escape(str(into))}", soft_wrap=True)


@app.command()
def keep(
    run: RunFolder,
    folder: Annotated[Path, typer.Argument(help="Of the reference run.", show_default=False)],
) -> None:
    """Keep a run as a reference: verified, of one clean commit, timed on an idle machine."""
    from lrqmm.reference import keep as keep_run

    with _one_error():
        keep_run(run, folder)
