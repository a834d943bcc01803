"""`lrqmm doctor`: what a machine has for measuring."""

from dataclasses import asdict

import typer
from rich.text import Text

from lrqmm.cli._app import AsJson, app, ending
from lrqmm.cli._console import console, one_error, print_json, say, show_progress

MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "bad": ("missing", "red")}


@app.command(epilog=ending("lrqmm doctor", one="it cannot measure"))
def doctor(as_json: AsJson = False) -> None:
    """Say what this machine has for measuring, and what is missing."""
    from lrqmm.doctor import examine

    with one_error(), show_progress(as_json) as progress:
        findings = examine(progress)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            mark, colour = MARKS[finding.state]
            line = f"{finding.what}: {finding.found}"
            console().print(Text(f"{mark:7}", style=colour), line, soft_wrap=True)
            if finding.advice:
                say(f"         {finding.advice}")
    raise typer.Exit(any(finding.state == "bad" for finding in findings))
