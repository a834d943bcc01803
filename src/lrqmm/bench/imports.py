"""Which files a piece of code is made of: its own, and all that it imports from the package.

A measurement is made again where one of these changed, and only then. Imports inside functions
count, names that are looked up while running do not: what a registry finds is added where it is
asked for.
"""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
BESIDE = {
    "products/composition.py": "fused/__init__.py",
    "products/backends/__init__.py": "products/backends/*.py",
    "fused/__init__.py": "fused/c*.py",
    "fused/passes.py": "fused/passes.cpp",
}
"""Files that go with another one without being imported by name."""
NOT_FOLLOWED = ("methods/__init__.py", "tiled/", "run/", "figures/", "cli/")
"""What has all methods and decides nothing about one; what studies do not use; what writes and
draws what was measured."""
OF_BENCH = (
    *("bench/compare.py", "bench/machine.py", "bench/measures/_", "bench/scores.py"),
    *("bench/networks/", "bench/data/"),
)
"""What decides numbers in bench; the rest plans studies, and runs and checks them."""


@cache
def imported(file: Path) -> frozenset[Path]:
    """The files of the package that one of them names: in imports, and as given beside it."""
    files = set(PACKAGE.glob(BESIDE.get(file.relative_to(PACKAGE).as_posix(), ".nothing")))
    if file.suffix != ".py":
        return frozenset()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        files |= {path for name in names if (path := _file_of(name)) is not None}
    return frozenset(files)


def _file_of(name: str) -> Path | None:
    """The file of a module, or of the module that has this name; None for other packages' and for
    the package itself, whose file has nothing but names."""
    parts = name.split(".")
    if parts[0] != "lrqmm":
        return None
    for last in (len(parts), len(parts) - 1):
        at = PACKAGE.joinpath(*parts[1:last])
        for path in (at.with_suffix(".py"), at / "__init__.py"):
            if path.is_file() and path != PACKAGE / "__init__.py":
                return path
    return None


def closure(files: Iterable[Path]) -> frozenset[Path]:
    """The files, and all that they import, directly or not."""
    reached: set[Path] = set()
    ahead = list(files)
    while ahead:
        file = ahead.pop()
        if file not in reached:
            reached.add(file)
            ahead.extend(filter(_decides, imported(file)))
    return frozenset(reached)


def _decides(file: Path) -> bool:
    """Whether a change of an imported file may change numbers."""
    path = file.relative_to(PACKAGE).as_posix()
    return path.startswith(OF_BENCH if path.startswith("bench/") else "") and not path.startswith(
        NOT_FOLLOWED
    )


def file_hash(*files: Path) -> str:
    """A short hash of the content of source files."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]
