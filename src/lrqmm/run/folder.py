"""The files of a run folder: its records in JSON, and the manifest that says what belongs to it.

Planning and job scripts import this; it loads no table library.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lrqmm._files import sha256, write_whole

FOLDERS = ("measurements", "networks", "arrays")
"""Folders of tables in a run folder."""
KEPT = "all.parquet"
"""The table of all shards in such a folder of a reference run; elsewhere each shard has its own."""


class StoreError(ValueError):
    """A run folder or table that is not what it should be; the message names the file."""


def write_json(content: Any, path: str | Path) -> None:
    """Write a JSON file atomically."""
    with write_whole(path) as part:
        part.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


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


def write_manifest(
    folder: str | Path,
    files: Iterable[str | Path],
    study: Any,
    titles: Mapping[str, str] | None = None,
) -> None:
    """Write manifest.json: the run's files with their SHA-256, what was asked for, and the titles
    of inputs and networks by name."""
    folder = Path(folder)
    hashes = {Path(path).relative_to(folder).as_posix(): sha256(Path(path)) for path in files}
    content = {"files": hashes, "study": study, "titles": dict(titles or {})}
    write_json(content, folder / "manifest.json")


def listed(folder: Path) -> Iterable[str]:
    """The files that the manifest lists, once their SHA-256 are checked."""
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


def recorded_titles(folder: Path) -> dict[str, str]:
    """Titles of inputs and networks by name that the manifest records; an older run has none."""
    titles = read_json(folder / "manifest.json").get("titles", {})
    if not isinstance(titles, dict) or not all(isinstance(text, str) for text in titles.values()):
        raise StoreError(f"{folder / 'manifest.json'}: 'titles' is no object of text")
    return titles


def reopen(folder: str | Path) -> None:
    """Remove the manifest of a run: a table is measured again, so its hash would be wrong."""
    (Path(folder) / "manifest.json").unlink(missing_ok=True)
