"""The files of a run folder: its records in JSON, and the manifest that says what belongs to it.

Planning and job scripts import this; it loads no table library.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lrqmm.bench.sources.files import sha256

FOLDERS = ("measurements", "networks", "arrays")
"""Folders of tables in a run folder."""


class StoreError(ValueError):
    """A run folder or table that is not what it should be; the message names the file."""


def write_json(content: Any, path: str | Path) -> None:
    """Write a JSON file whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    os.replace(part, path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's object, or StoreError where it is missing or damaged."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise StoreError(f"{path}: missing; a run folder has it once measuring ended") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise StoreError(f"{path}: holds no JSON object")
    return content


def write_manifest(folder: str | Path, files: Iterable[str | Path], about: Any) -> None:
    """Write manifest.json: the run's files with their SHA-256, and what was asked for."""
    folder = Path(folder)
    hashes = {Path(path).relative_to(folder).as_posix(): sha256(Path(path)) for path in files}
    write_json({"files": hashes, "study": about}, folder / "manifest.json")


def listed(folder: Path) -> Iterable[str]:
    """Files that the manifest lists; they are there, and what was written."""
    files = read_json(folder / "manifest.json").get("files")
    if not isinstance(files, dict):
        raise StoreError(f"{folder / 'manifest.json'}: 'files' is missing, or no object")
    for name, digest in files.items():
        path = folder / name
        inside = path.resolve().is_relative_to(folder.resolve()) and ".." not in Path(name).parts
        if name != "environment.json" and not (inside and Path(name).parts[0] in FOLDERS):
            raise StoreError(
                f"{folder / 'manifest.json'}: lists {name!r}; allowed: environment.json, and files "
                f"in {', '.join(FOLDERS)}"
            )
        if not path.is_file():
            raise StoreError(f"{path}: missing, though manifest.json of the run lists it")
        if sha256(path) != digest:
            raise StoreError(f"{path}: differs from the SHA-256 in manifest.json of the run")
    return files


def reopen(folder: str | Path) -> None:
    """Make a run unfinished: a table is measured anew, so its manifest holds no longer."""
    (Path(folder) / "manifest.json").unlink(missing_ok=True)
