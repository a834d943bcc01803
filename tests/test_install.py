"""The built wheel: what is in it, and what runs where only the library's own needs are installed.

No network: every package that the library does not need is hidden from the Python that runs it.
"""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lrqmm._extras import EXTRAS

ROOT = Path(__file__).parent.parent
SOURCES = ("src", "pyproject.toml", "setup.py", "README.md", "LICENSE")
LIBRARY = {"array-api-compat", "numba", "numpy", "torch"}
RUN = ROOT / "results/reference/perplexity-groups-cpu-2core"

LIBRARY_ALONE = """
import json, numpy as np, torch, lrqmm, lrqmm.nn
A, B = np.random.default_rng(0).random((2, 64, 64), dtype=np.float32)
network = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
advice = lrqmm.advise(A, B, max_error=0.01, goal="bits", seconds=0.05)
print(json.dumps({
    "file": lrqmm.__file__,
    "errors": [
        float(np.linalg.norm(lrqmm.matmul(A, B, bits=8, rank=4, execution=execution) - A @ B))
        / float(np.linalg.norm(A @ B))
        for execution in ("plain", "fused")
    ],
    "outputs": list(lrqmm.replace_layers(network, "direct", bits=8)(torch.ones(5, 64)).shape),
    "advice": [repr(advice), advice.best["error"]],
}))
"""
NEEDS_PANDAS = """
import importlib
for name in ("lrqmm.bench.study", "lrqmm.run.read", "lrqmm.figures", "lrqmm.doctor"):
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(error)
from lrqmm.advice import Advice
try:
    Advice((), 0.1, "time", {}, False).table
except ImportError as error:
    print(error)
"""
PROGRAM = """
import runpy, sys
sys.argv[1:] = ["methods"]
runpy.run_module("lrqmm", run_name="__main__")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel that is built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.so")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / "sources" / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / "sources" / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    pip += ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    subprocess.run([*pip, str(folder / "sources")], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel):
    """Where the wheel is unpacked, away from the checkout."""
    folder = wheel.parent / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def required(distribution, extra=""):
    """Distributions that one needs directly, for an extra or without."""
    requirements = map(Requirement, importlib.metadata.requires(distribution) or ())
    return {
        canonicalize_name(needed.name)
        for needed in requirements
        if needed.marker is None or needed.marker.evaluate({"extra": extra})
    }


def hidden():
    """Top-level modules that are installed here, and that the library does not need."""
    needed, new = set(), LIBRARY
    while new:
        needed |= new
        new = {name for at in new if at in INSTALLED for name in required(at)} - needed
    return [
        module
        for module, distributions in importlib.metadata.packages_distributions().items()
        if module not in sys.stdlib_module_names
        and needed.isdisjoint(map(canonicalize_name, distributions))
        and module != "lrqmm"
    ]


INSTALLED = {canonicalize_name(it.name) for it in importlib.metadata.distributions() if it.name}


def run_bare(script, installed):
    """Run a script on the unpacked wheel, with what the library needs and nothing else."""
    hide = f"import sys\nsys.modules.update(dict.fromkeys({hidden()!r}))\n"
    return subprocess.run(
        [sys.executable, "-c", hide + script], capture_output=True, text=True,
        cwd=installed, env={**os.environ, "PYTHONPATH": str(installed)},
    )  # fmt: skip


def metadata(installed):
    (folder,) = installed.glob("*.dist-info")
    return importlib.metadata.PathDistribution(folder)


def test_the_wheel_holds_what_the_package_reads(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    source = wheel.parent / "sources/src"
    files = (path for path in (source / "lrqmm").rglob("*") if path.is_file())
    assert {path.relative_to(source).as_posix() for path in files} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"lrqmm"}
    if shutil.which("g++"):
        assert any(name.startswith("lrqmm/fused/_native_base.") for name in names)


def test_the_library_needs_four_packages(installed):
    requirements = [Requirement(line) for line in metadata(installed).requires]
    assert {needed.name for needed in requirements if needed.marker is None} == LIBRARY


def test_extras_name_the_modules_of_what_they_install(installed):
    """`EXTRAS` and `pyproject.toml` say the same."""
    about = metadata(installed)
    modules = importlib.metadata.packages_distributions()
    assert {*EXTRAS, "test"} == set(about.metadata.get_all("Provides-Extra"))
    for extra, named in EXTRAS.items():
        listed = {
            canonicalize_name(needed.name)
            for needed in map(Requirement, about.requires)
            if needed.marker and needed.marker.evaluate({"extra": extra}) and needed.name != "lrqmm"
        }
        owners = {
            module: set(map(canonicalize_name, modules[module]))
            for module in named
            if module in modules
        }
        assert len(listed) == len(named), extra
        assert all(listed & distributions for distributions in owners.values()), extra
        assert (listed & INSTALLED) <= set().union(*owners.values()), extra


def test_the_library_runs_alone(installed):
    done = run_bare(LIBRARY_ALONE, installed)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert Path(found["file"]).is_relative_to(installed)
    assert max(found["errors"]) < 1e-3
    assert found["outputs"] == [5, 8]
    assert found["advice"][0].startswith("Advice(C = lrqmm.matmul(A, B, ")
    assert found["advice"][1] <= 0.01


def test_what_lacks_its_extra_says_so_in_a_line(installed):
    end = "needs pandas; install it with: pip install 'lrqmm[bench]'"
    done = run_bare(NEEDS_PANDAS, installed)
    parts = ["lrqmm.bench", "lrqmm.run", "lrqmm.figures", "lrqmm.bench", "Advice.table"]
    assert done.stdout.splitlines() == [f"{part} {end}" for part in parts]
    done = run_bare(PROGRAM, installed)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: the command lrqmm {end}\n"


def test_an_installed_wheel_verifies_a_run(installed):
    words = [sys.executable, "-m", "lrqmm", "verify", str(RUN), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(words, capture_output=True, text=True, cwd=installed, env=environment)
    assert done.returncode == 0, done.stderr
    verdict = json.loads(done.stdout)
    assert not verdict["refusals"]
    assert not any("completeness" in warning for warning in verdict["warnings"])
    assert "completeness" in verdict["checked"][0]
