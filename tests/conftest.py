"""A copy of the project in a temporary folder, in which the workflow can run."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lrqmm.load import available_cores

# Threads that wait for work must not take a core from other workers' tests; OpenMP reads it when
# it is loaded, with torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# A container may have more cores than it may use.
os.environ.setdefault("OMP_NUM_THREADS", str(available_cores()))
import torch

# Triton reads it when it is imported, and torch's compiler imports it: before any test is collected
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

ROOT = Path(__file__).parent.parent
PARTS = ("Snakefile", "workflow", "config", "envs", "profiles", "notebooks", "src")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Of `-n auto`."""
    return available_cores()


class Project:
    """The workflow's files, and `snakemake` run on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = sys.executable
        self.log = ""
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                # with what Python and numba have compiled, which they take where it is as new
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("*.egg-info"))
            else:
                shutil.copy(source, folder / part)
        # no virtual environment on the PATH: the workflow must find its own
        self.environment = {**os.environ, "PYTHONPATH": str(folder / "src")}

    def command(self, *arguments: str) -> list[str]:
        here = () if "--workflow-profile" in arguments else ("--cores", "2")
        return [self.python, "-m", "snakemake", *here, *arguments]

    def snakemake(
        self,
        *arguments: str,
        minutes: float = 20,  # enough on a slow or busy machine
    ) -> subprocess.CompletedProcess[str]:
        """Run it; `log` is then what it wrote about every job, of which the console shows less."""
        before = set(self.folder.glob(".snakemake/log/*"))
        result = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60 * minutes,
        )
        written = sorted(set(self.folder.glob(".snakemake/log/*")) - before)
        self.log = "".join(path.read_text() for path in written)
        return result

    def run(self, *arguments: str, minutes: float = 20) -> str:
        """Output of a `snakemake` call that must succeed."""
        result = self.snakemake(*arguments, minutes=minutes)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(scope="session")
def make_project(tmp_path_factory: pytest.TempPathFactory):
    return lambda name: Project(tmp_path_factory.mktemp(name))


@pytest.fixture
def fault(record_property: Callable[[str, object], None]):
    """Record what was injected, what the user saw, and what was kept; `--faults` prints them."""

    def record(injected: str, saw: str, kept: str) -> None:
        record_property("fault", (injected, " ".join(saw.split())[:160], kept))

    return record


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", action="store_true", help="print a table of injected faults")


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    if not config.getoption("--faults"):
        return
    for outcome in ("passed", "failed"):
        for number, report in enumerate(terminalreporter.stats.get(outcome, []), 1):
            for name, found in report.user_properties:
                if name == "fault":
                    injected, saw, kept = found
                    terminalreporter.write_line(
                        f"{number:3} {outcome} | {injected} | {saw} | {kept}"
                    )
