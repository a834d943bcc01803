"""Keep a run as a reference: `lrqmm keep RUN FOLDER` (`make reference NAME=...`).

A reference run was measured whole, from one clean commit, on an otherwise idle machine.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pandas as pd

from lrqmm._progress import Report, silent
from lrqmm.bench.verify import verify
from lrqmm.run.folder import StoreError, read_json
from lrqmm.run.read import Run, read_run


def objections(run: Run) -> list[str]:
    """Why a run is no reference, in words; none where it is."""
    table = pd.concat([run.measurements, run.networks], ignore_index=True)
    timed = table["metric"].isin(("seconds", "seconds_per_item")) & (table["status"] == "ok")
    found = []
    if table["git_commit"].nunique() > 1:
        commits = ", ".join(sorted(commit[:12] for commit in table["git_commit"].unique()))
        found.append(f"measured from several commits: {commits}")
    for wrong, words in (
        (table["git_commit"] == "unknown", "measured outside a git checkout"),
        (table["git_dirty"], "measured from files that are not committed"),
        (timed & table["loaded"], "timed while the machine was loaded"),
        (table["status"] == "failed", "failed"),
    ):
        if wrong.any():
            shards = table.loc[wrong.fillna(False).astype(bool), "shard"]
            found.append(f"{words}: {', '.join(sorted(shards.unique()))}")
    return found


def keep(source: Path, target: Path, *, progress: Report = silent) -> None:
    """Copy the measurements of a run folder, whole or not at all.

    `progress` is called with what is being done and the share that is done.

    Raises
    ------
    StoreError : the run is damaged, or no reference; `objections` says why
    """
    verdict = verify(source, progress=lambda words, share: progress(words, 0.6 * share))
    progress(f"reading {source}", 0.6)
    found = list(verdict.refusals) or objections(read_run(source))
    if found:
        raise StoreError(
            f"{source}: no reference run: {'; '.join(found)}. To measure some shards anew, delete "
            "their tables and run it again"
        )
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    progress(f"writing {target}", 0.9)
    for name in (*read_json(source / "manifest.json")["files"], "manifest.json"):
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, part / name)
    if target.exists():
        shutil.rmtree(target)
    os.replace(part, target)
