"""`lrqmm methods` and `lrqmm new-method`: what methods there are, and how to begin one."""

from dataclasses import asdict
from typing import Annotated

import typer

from lrqmm.cli._app import AsJson, app, ending
from lrqmm.cli._console import answer, console, new_table, one_error, print_json, say


@app.command(name="methods", epilog=ending("lrqmm methods lrqmm_aware"))
def list_methods(
    name: Annotated[str | None, typer.Argument(help="One of them.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """List the methods: what each does, needs and takes."""
    from lrqmm import methods
    from lrqmm.describe import describe

    with one_error():
        names = methods.list_methods() if name is None else [name]
        descriptions = [describe(each) for each in names]
    if as_json:
        print_json([asdict(description) for description in descriptions])
    elif name is None:
        table = new_table("method", "part", "what it does")
        for description in descriptions:
            table.add_row(description.name, description.part, description.about)
        console().print(table)
    else:
        (only,) = descriptions
        takes = ", ".join(f"{key}={value!r}" for key, value in only.parameters.items())
        say(only.about)
        say(f"needs: {only.needs}")
        say(f"takes: {takes or 'no parameters'}")
        say(f"cites: {', '.join(only.cites)}")


@app.command(epilog=ending("lrqmm new-method my_method"))
def new_method(
    name: Annotated[str, typer.Argument(help="Lower case, words joined by _.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Begin a method: its file and its test, in a checkout.

    They are run as they are, and are there to be changed.
    """
    from lrqmm.bench.template import new_method as begin

    with one_error():
        paths = [str(path) for path in begin(name)]
    answer(as_json, paths, *(f"written: {path}" for path in paths))
