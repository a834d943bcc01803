"""Keep a run as a reference: `lrqmm keep RUN FOLDER` (`make reference NAME=...`).

A reference run was measured whole, from one clean commit, on an otherwise idle machine. It has one
table of each kind, whose rows say which shard they are of.
"""

import shutil
from pathlib import Path

import pandas as pd

from lrqmm._files import write_whole
from lrqmm._progress import Report, silent
from lrqmm.bench.verify import verify
from lrqmm.run.folder import KEPT, StoreError, read_json, write_manifest
from lrqmm.run.metrics import TIMES
from lrqmm.run.read import Run, read_run, read_tables, write_table
from lrqmm.run.schema import TABLES


def objections(run: Run) -> list[str]:
    """Why a run is no reference; empty where it is one."""
    table = pd.concat([run.measurements, run.networks], ignore_index=True)
    timed = table["metric"].isin(TIMES) & (table["status"] == "ok")
    reasons = []
    if table["git_commit"].nunique() > 1:
        commits = ", ".join(sorted(commit[:12] for commit in table["git_commit"].unique()))
        reasons.append(f"measured from several commits: {commits}")
    for wrong, text in (
        (table["git_commit"] == "unknown", "measured outside a git checkout"),
        (table["git_dirty"], "measured from files that are not committed"),
        (timed & table["loaded"], "timed while the machine was loaded"),
        (table["status"] == "failed", "failed"),
    ):
        if wrong.any():
            shards = table.loc[wrong.fillna(False).astype(bool), "shard"]
            reasons.append(f"{text}: {', '.join(sorted(shards.unique()))}")
    return reasons


def keep(source: Path, target: Path, *, progress: Report = silent) -> None:
    """Write the measurements of a run folder as one table of each kind atomically; StoreError says
    why where the run is damaged, or no reference by its `objections`."""
    verdict = verify(source, progress=lambda text, share: progress(text, 0.6 * share))
    progress(f"reading {source}", 0.6)
    reasons = list(verdict.refusals) or objections(read_run(source))
    if reasons:
        raise StoreError(
            f"{source}: no reference run: {'; '.join(reasons)}. To measure some shards anew, "
            "delete their tables and run it again"
        )
    progress(f"writing {target}", 0.9)
    with write_whole(target) as part:
        _write(source, part)


def _write(source: Path, target: Path) -> None:
    """The tables of each folder as one, in the order in which they are read."""
    manifest = read_json(source / "manifest.json")
    target.mkdir()
    shutil.copyfile(source / "environment.json", target / "environment.json")
    folders: dict[Path, list[str]] = {}  # a merged run has one of each kind for each source
    for name in sorted(manifest["files"]):
        if name != "environment.json":
            folders.setdefault(Path(name).parent, []).append(name)
    tables = [target / folder / KEPT for folder in folders]
    for (folder, names), table in zip(folders.items(), tables, strict=True):
        write_table(read_tables([source / name for name in names], TABLES[folder.parts[0]]), table)
    files = [target / "environment.json", *tables]
    write_manifest(target, files, manifest["study"], manifest.get("titles"))
