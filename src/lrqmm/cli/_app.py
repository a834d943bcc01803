"""The registry of commands, and the options that several of them share."""

from pathlib import Path
from typing import Annotated

import typer


def ending(example: str, one: str = "error, in one line on stderr", two: str = "") -> str:
    """The end of a command's help: its exit codes, and an example."""
    wrong = "wrong usage"
    return (
        f"Exit codes: 0 fine; 1 {one}; 2 {f'{two}, or {wrong}' if two else wrong}."
        f"\n\nExample: {example}"
    )


app = typer.Typer(
    help="Low-bit matrix multiplication: what to pick, products, checks of machines and of runs.",
    epilog=ending("lrqmm advise A.npy B.npy --max-error 0.01"),
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
