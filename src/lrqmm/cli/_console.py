"""What commands print: text, tables, JSON, a progress bar, and an error as one line."""

import io
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from lrqmm import _checks
from lrqmm._progress import Report


def console(*, stderr: bool = False) -> Console:
    """Prints text as it is: paths hold brackets, `:smile:`, and broken letters."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return Console(stderr=stderr, markup=False, emoji=False)


def say(text: str) -> None:
    """Print a line, however long."""
    console().print(text, soft_wrap=True)


def print_json(document: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(document, indent=1, allow_nan=False))


def answer(as_json: bool, document: Any, *lines: str) -> None:
    """Print one JSON document, or lines."""
    if as_json:
        print_json(document)
    else:
        for line in lines:
            say(line)


def new_table(*columns: str, numbers: Sequence[str] = ()) -> Table:
    """A table of these columns, in which no name is cut."""
    right = (Column(title, justify="right", no_wrap=True) for title in numbers)
    return Table(*(Column(title, overflow="fold") for title in columns), *right)


@contextmanager
def one_error() -> Iterator[None]:
    """Print an error as one line and exit with code 1; print a warning as one line.

    An error that no check foresaw says what was being done, as `show_progress` notes it.
    """
    stderr = console(stderr=True)

    def print_line(kind: str, message: object) -> None:
        stderr.print(f"{kind}: {' '.join(str(message).split())}", soft_wrap=True)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: print_line("warning", message)
            yield
    except Exception as error:
        doing = "" if _checks.expected(error) else "".join(getattr(error, "__notes__", ())[-1:])
        print_line("error", f"{doing and doing + ' failed: '}{_checks.in_words(error)}")
        raise typer.Exit(1) from None


@contextmanager
def show_progress(as_json: bool) -> Iterator[Report]:
    """A bar on stderr, where that is a terminal."""
    hidden = as_json or not sys.stderr.isatty()
    text = TextColumn("{task.description}", table_column=Column(no_wrap=True), markup=False)
    columns = (BarColumn(20), TaskProgressColumn(), TimeRemainingColumn(), text)
    with Progress(*columns, console=console(stderr=True), disable=hidden, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        doing = ""

        def report(description: str, share: float) -> None:
            nonlocal doing
            doing = description
            bar.update(task, description=description, completed=share)

        try:
            yield report
        except Exception as error:
            error.add_note(doing)
            raise
