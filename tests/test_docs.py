"""The documentation does what it says: every command and every line of Python in it is run.

A page is followed from top to bottom in a copy of the checkout: blocks of `python` and `bash` are
run, a block whose first line is a comment with a file's name is written to that file.
"""

import ast
import doctest
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w/]+\.(?:py|yaml))")
PAGES = [ROOT / "README.md", ROOT / "config/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if not {"_build", "generated"} & {*page.parts}]

ELSEWHERE = {
    "make run": "test_workflow.py::test_small_study_from_inputs_to_figures",
    "make test": "test_docs.py",
    "make reference NAME=my-machine": "test_reference.py::test_a_run_is_kept_whole_or_refused",
    "lrqmm verify results/reference/my-machine --again 20": "test_verify.py",
    "snakemake --workflow-profile profiles/slurm": "test_slurm.py",
    "lrqmm verify results/ours": "test_verify.py",
    "pip install '.[peers]'": "test_peers.py",
    "snakemake --cores all --configfile config/peers.yaml": "test_peers_figures.py",
    "make test-peers": "test_peers_codes.py",
    "lrqmm merge results/ours results/theirs --into results/both": "test_verify.py",
}
"""Commands that ask for a machine, a cluster or half an hour, and the tests that run them."""


def blocks(page):
    return [(found[1], found[2]) for found in BLOCK.finditer(page.read_text())]


def commands(text):
    joined = text.replace("\\\n", " ").splitlines()
    return [line.split("#")[0].strip() for line in joined if line.split("#")[0].strip()]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what git would keep, on the path before the installed library."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    chances = np.random.default_rng(0)
    np.save(folder / "activations.npy", chances.standard_normal((200, 64)).astype(np.float32))
    weights = {"fc.weight": chances.standard_normal((96, 64)).astype(np.float32)}
    save_file(weights, folder / "weights.safetensors")
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_does_what_it_says(page, checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("PYTHONPATH", str(checkout / "src"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    names = {}
    for language, text in blocks(page):
        file = FILE.match(text)
        if language == "bash":
            for command in commands(text):
                if command not in ELSEWHERE:
                    done = subprocess.run(
                        ["bash", "-c", command], check=False, capture_output=True, text=True
                    )
                    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        elif file:
            (checkout / file[1]).parent.mkdir(parents=True, exist_ok=True)
            (checkout / file[1]).write_text(text)
        elif language == "python" and ">>>" in text:
            run_examples(text, names, page)
        elif language == "python":
            exec(compile(text, str(page), "exec"), names)


def run_examples(text, names, page):
    examples = doctest.DocTestParser().get_doctest(text, names, page.name, str(page), 0)
    heard = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    examples.globs = names  # the parser's copy would leave functions of earlier blocks behind
    runner.run(examples, out=heard.append, clear_globs=False)
    assert not runner.failures, "".join(heard)


def test_what_is_run_elsewhere_is_written_and_run():
    written = {
        command
        for page in PAGES
        for language, text in blocks(page)
        if language == "bash"
        for command in commands(text)
    }
    assert set(ELSEWHERE) <= written
    for test in ELSEWHERE.values():
        file, _, name = test.partition("::")
        tree = ast.parse((ROOT / "tests" / file).read_text())
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert not name or name in functions, test


def test_no_block_is_left_without_a_language():
    for page in PAGES:
        fences = re.findall(r"^```(.*)$", page.read_text(), re.MULTILINE)
        assert all(fences[::2]), page
