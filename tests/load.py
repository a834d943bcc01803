"""What the workflow costs on top of measuring: `python tests/load.py [SHARDS] [SECONDS]`.

A study of many shards of about that many seconds, its settings counted by a first one, runs at two
cores; its time is compared with that of the shards' own processes, start and imports included, and
what Snakemake's own process takes is said: of a core, and in threads.
"""

import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import yaml
from conftest import Project

SIZE, INPUTS = 512, 10


def study(run: str, experiments: int, settings: int) -> dict:
    """A shard an input and experiment, a product a rank."""
    experiment = {
        "measure": "error",
        "inputs": ["uniform01"],
        "sizes": [SIZE],
        "seeds": INPUTS if experiments > 1 else 1,
        "inputs_per_shard": 1,
        "methods": ["lrqmm"],
        "settings": {"bits": [4, 6, 8], "seed": list(range(-(-settings // 3))), "rank": 16},
    }
    named = {f"load{number}": experiment for number in range(experiments)}
    return {"run": run, "device": "cpu", "experiments": named}


def measure(
    project: Project, name: str, experiments: int, settings: int
) -> tuple[float, list, list]:
    """Seconds of the workflow, and of each shard's process; samples of Snakemake's own: seconds
    since it began, of a processor, and threads."""
    config = project.folder / f"{name}.yaml"
    config.write_text(yaml.safe_dump(study(f"results/{name}", experiments, settings)))
    begun = time.monotonic()
    process = subprocess.Popen(
        project.command("measurements", "--configfile", str(config)),
        cwd=project.folder, env=project.environment, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    samples = []
    while process.poll() is None:
        main = psutil.Process(process.pid)
        times = main.cpu_times()
        samples.append((time.monotonic() - begun, times.user + times.system, main.num_threads()))
        time.sleep(1)
    gone = time.monotonic() - begun
    assert process.returncode == 0
    logs = (project.folder / f"results/{name}/logs/measurements").glob("*.log")
    took = [float(re.search(r"took (\S+) s", log.read_text())[1]) for log in logs]
    return gone, took, samples


def main(shards: int = 200, seconds: float = 20.0) -> None:
    with TemporaryDirectory() as folder:
        project = Project(Path(folder))
        measure(project, "first", 1, 3)  # compiles what later processes find
        _, (few,), _ = measure(project, "few", 1, 30)
        _, (many,), _ = measure(project, "many", 1, 180)
        settings = max(3, round(30 + 150 * (seconds - few) / (many - few)))
        gone, took, samples = measure(project, "load", -(-shards // INPUTS), settings)
    took.sort()
    late = [sample for sample in samples if sample[0] > 0.9 * gone]
    share = (late[-1][1] - late[0][1]) / (late[-1][0] - late[0][0])
    print(
        f"{len(took)} shards of {settings} settings, median {took[len(took) // 2]:.1f} s "
        f"({took[0]:.1f} to {took[-1]:.1f} s); the workflow took {gone:.0f} s, its shards "
        f"{sum(took) / 2:.0f} s on two cores: {100 * (2 * gone / sum(took) - 1):.1f}% on top"
    )
    print(
        f"Snakemake's own process: {samples[-1][1]:.0f} s of a processor, in the last tenth of the "
        f"time {100 * share:.1f}% of a core, at most {max(late, key=lambda x: x[2])[2]} threads"
    )


if __name__ == "__main__":
    main(*(kind(given) for kind, given in zip((int, float), sys.argv[1:], strict=False)))
