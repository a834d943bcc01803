"""`lrqmm matmul`: the product of two matrices in files."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lrqmm import _checks
from lrqmm._files import write_whole
from lrqmm._progress import Report
from lrqmm.cli._app import AsJson, Device, Library, Matrix, Transposed, app, ending
from lrqmm.cli._console import answer, one_error, show_progress
from lrqmm.cli._files import check_new_file, read_matrices

if TYPE_CHECKING:
    from lrqmm.method import Method


@app.command(epilog=ending("lrqmm matmul A.npy B.npy --method direct -p bits=4 --out C.npy"))
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

    with one_error(), show_progress(as_json) as progress:
        check_new_file(out, ".npy")
        parameters = parse_parameters(parameter or [])
        if memory is not None and "power_iterations" in get_method(method).parameters:
            parameters = {"power_iterations": 0, **parameters}  # all that the tiles have
        chosen = get_method(method, **parameters)
        if memory is None:
            A, B, values = read_matrices(a, b, transpose_b, library, device, progress)
            shape, error = _multiply(chosen, A, B, values, out, progress)
        else:
            _checks.choice("library", library, ["torch"])
            _checks.choice("device", device, ["auto", "cpu"])
            shape, error = _multiply_by_tiles(chosen, a, b, transpose_b, out, memory, progress)
    document = {"method": method, "parameters": chosen.parameters, "relative_error": error}
    none = "AB is zero and this is not" if memory is None else "error not measured"
    exactness = none if error is None else f"relative error {error:.3g}"
    line = f"{chosen!r}: {shape[0]} x {shape[1]}, {exactness}, in {out}"
    answer(as_json, {**document, "shape": shape, "out": str(out)}, line)


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
    with write_whole(out) as part, part.open("wb") as stream:
        np.save(stream, C)
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


def parse_parameters(assignments: list[str]) -> dict[str, Any]:
    """Parameters of NAME=VALUE, values as in a configuration."""
    import yaml

    from lrqmm.bench.configuration import read_yaml

    parameters: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise ValueError(f"parameter is {assignment!r}; allowed: NAME=VALUE")
        if name in parameters:
            raise ValueError(f"parameter {name} is given twice; allowed: once")
        try:
            parameters[name] = read_yaml(value)
        except yaml.YAMLError:
            raise ValueError(
                f"parameter is {assignment!r}; allowed: NAME=VALUE, a value as in YAML"
            ) from None
        if isinstance(parameters[name], str):
            with suppress(ValueError):  # YAML reads 1e-3 as text
                parameters[name] = float(value)
    return parameters
