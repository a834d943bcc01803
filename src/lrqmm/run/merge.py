"""Merge runs of several machines, or parts of one study, into one run folder: `lrqmm merge`.

Nothing is averaged: what was measured twice is kept twice, each row with its machine and time.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lrqmm._files import write_whole
from lrqmm._progress import Report, silent
from lrqmm.run.folder import StoreError, read_json, write_json, write_manifest
from lrqmm.run.read import Run, read_run
from lrqmm.run.schema import INPUT, TABLES


def merge(sources: Sequence[str | Path], target: str | Path, *, progress: Report = silent) -> None:
    """Write the merged run folder atomically.

    Its tables lie in a folder by source, such as `measurements/h200/`; `environment.json` and the
    manifest's study have one entry per source.

    Raises
    ------
    StoreError : a source that is no whole run; two that are called the same; a target that is
        there already; a merged run; matrices of one name, size and seed that differ between sources
    """
    target = Path(target)
    if target.exists():
        raise StoreError(f"{target}: is there already; allowed: a folder that is not")
    runs = {}
    for number, source in enumerate(sources):
        progress(f"reading {source}", 0.8 * number / len(sources))
        runs[Path(source).resolve().name] = read_run(source)
    if len(runs) < len(sources):
        raise StoreError("several runs are called the same; rename the folder of one")
    manifests = {name: read_json(run.folder / "manifest.json") for name, run in runs.items()}
    for name, manifest in manifests.items():
        if "merged" in (manifest.get("study") or {}):
            raise StoreError(f"{name}: is a merged run; allowed: the runs that it was merged from")
    _refuse_clash({name: run.measurements for name, run in runs.items()})
    progress(f"writing {target}", 0.8)
    with write_whole(target) as part:
        _write(runs, manifests, part)


def _write(runs: dict[str, Run], manifests: dict[str, dict[str, Any]], part: Path) -> None:
    """The tables of all runs, their environments and a manifest."""
    files = []
    for name, run in runs.items():
        for file in manifests[name]["files"]:
            kind, _, rest = file.partition("/")
            if kind in TABLES:
                files.append(part / kind / name / rest)
                files[-1].parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(run.folder / file, files[-1])
    environments = {name: run.environment for name, run in runs.items()}
    machines = "; ".join(record.get("machine", "unknown") for record in environments.values())
    write_json({"machine": machines, "merged": environments}, part / "environment.json")
    titles = {name: title for run in runs.values() for name, title in run.titles.items()}
    studies = {name: manifest["study"] for name, manifest in manifests.items()}
    write_manifest(part, [*files, part / "environment.json"], {"merged": studies}, titles)


def _refuse_clash(tables: dict[str, pd.DataFrame]) -> None:
    """A network's layers are captured on each machine, so they may differ; nothing else may."""
    inputs = pd.concat(
        [table[[*INPUT, "input_sha256"]].assign(run=name) for name, table in tables.items()]
    ).drop_duplicates()
    inputs = inputs[inputs["layer"].isna()]
    hashes = inputs.groupby(list(INPUT), dropna=False)["input_sha256"].transform("nunique")
    clash = inputs[hashes > 1]
    if len(clash):
        first = clash.iloc[0]
        pair = " ".join(str(first[part]) for part in INPUT if not pd.isna(first[part]))
        raise StoreError(
            f"the runs {', '.join(sorted(clash['run'].unique()))} multiplied different matrices "
            f"under one name: {pair} (their SHA-256 differ); allowed: the same inputs"
        )
