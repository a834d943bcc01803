"""Matrix files: pairs (A, B) as the study stores them, and users' own matrices.

A pair is a safetensors file with `A` (m x k) and `B` (k x n), float32 or, where a user's own file
is, float64, and beside it `<file>.sha256` in the format of `sha256sum`. Products are of float32
values, errors those against the values as stored. Nothing is ever unpickled.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from lrqmm._checks import LARGEST, SMALLEST, reason
from lrqmm._files import sha256, write_whole

Float32 = NDArray[np.float32]
Floats = NDArray[np.float32] | NDArray[np.float64]
FLOATS = ("F64", "F32", "F16", "BF16")
"""Number formats of safetensors that are read."""


class InputError(ValueError):
    """A matrix file that cannot be used; the message names the file and what is wrong."""


def write_pair(path: str | Path, A: Floats, B: Floats, origin: Mapping[str, Any]) -> None:
    """Write a pair and its SHA-256, each whole or not at all. `origin` says where it comes from."""
    path = Path(path)
    # one entry: safetensors writes several in an order that changes from process to process
    metadata = {"about": json.dumps(dict(origin), sort_keys=True)}
    with write_whole(path) as part:
        save_file({"A": np.ascontiguousarray(A), "B": np.ascontiguousarray(B)}, part, metadata)
        with write_whole(_sidecar(path)) as digest:
            digest.write_text(f"{sha256(part)}  {path.name}\n")


def read_pair(path: str | Path) -> tuple[Floats, Floats, str]:
    """A and B as stored, and the file's SHA-256.

    Raises InputError unless the file is what was written, and where a matrix underflows.
    """
    path = Path(path)
    digest = check_pair(path)
    with safe_open(path, framework="numpy") as stored:
        A, B = stored.get_tensor("A"), stored.get_tensor("B")
    for name, X in (("A", A), ("B", B)):
        _refuse_underflow(f"{path}:{name}", X)
    return A, B, digest


def check_pair(path: str | Path) -> str:
    """The SHA-256 of a pair, or InputError where it differs from the one written with it."""
    path = Path(path)
    try:
        expected = _sidecar(path).read_text().split()[0]
        digest = sha256(path)
    except (OSError, IndexError, ValueError) as error:
        raise InputError(f"matrix file {path}: cannot be read with its .sha256: {error}") from None
    if digest != expected:
        raise InputError(
            f"matrix file {path} is corrupt: its SHA-256 is {digest}, but {expected} was written; "
            "delete it, and the workflow makes it again"
        )
    return digest


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def matrix_file(source: str) -> Path:
    """The file of a user's matrix, without the name of an array in it; see `read_matrix`."""
    return _split(source)[0]


def matrix_shape(source: str) -> tuple[int, int]:
    """(rows, columns) of a user's matrix; InputError as `read_matrix`, but for its values.

    Of .npy and .safetensors files the header alone is read.
    """
    path, key = _split(source)
    try:
        shape, dtype = _header(path, key)
    except Exception as error:  # a damaged header raises almost anything
        raise _unreadable(source, error) from None
    _check_matrix(source, shape, dtype)
    return shape[0], shape[1]


def read_matrix(source: str) -> Float32:
    """A user's matrix as float32: 'file.npy', 'file.npz:name' or 'file.safetensors:name'.

    The name may be left out where the file holds one array only. Floats of 16 bits or more are
    taken, in either byte order. Raises InputError for files that cannot be read, need unpickling,
    or hold anything but a two-dimensional finite matrix of such floats, and for values that float32
    does not hold: magnitudes above 2^120, or all of them below 2^-119.
    """
    return read_values(source).astype(np.float32, copy=False)


def read_values(source: str) -> Floats:
    """A user's matrix as `read_matrix` reads it, but float64 where the file is."""
    path, key = _split(source)
    try:
        if path.suffix == ".safetensors":  # which reads few of its number formats itself
            _check_matrix(source, *_header(path, key))
        X = _read(path, key)
        _check_matrix(source, X.shape, X.dtype)
    except Exception as error:  # a damaged file raises almost anything
        raise _unreadable(source, error) from None
    with np.errstate(over="ignore"):
        X = X.astype(np.float32 if X.dtype.itemsize <= 4 else np.float64, copy=False)
    wrong = np.argwhere(~(np.abs(X) <= LARGEST))  # NaN too
    if len(wrong):
        raise InputError(
            f"matrix {source} holds {len(wrong)} values that are NaN, infinite or above "
            f"{LARGEST:.2g}, the first at row {wrong[0][0]}, column {wrong[0][1]}"
        )
    _refuse_underflow(source, X)
    return X


def _refuse_underflow(source: str, X: Floats) -> None:
    largest = np.abs(X).max(initial=0.0)
    if 0 < largest < SMALLEST:
        raise InputError(
            f"matrix {source} underflows: its largest magnitude is {largest:.3g}; allowed: 0, or "
            f"at least {SMALLEST:.2g} (products run in float32)"
        )


def _check_matrix(source: str, shape: tuple[int, ...], dtype: np.dtype[Any] | str) -> None:
    floats = dtype in FLOATS if isinstance(dtype, str) else dtype.kind == "f"
    if len(shape) != 2 or 0 in shape or not floats:
        lost = not isinstance(dtype, str) and dtype == np.dtype("V2")
        hint = " (.npy and .npz lose bfloat16, so write it as .safetensors)" if lost else ""
        raise InputError(
            f"matrix {source} has shape {shape} and dtype {dtype}; allowed: two dimensions, not "
            f"empty, floats of 16 bits or more{hint}"
        )


def _header(path: Path, key: str) -> tuple[tuple[int, ...], np.dtype[Any] | str]:
    """Shape and dtype, of safetensors by its own name for it."""
    if path.suffix == ".safetensors":
        with safe_open(path, framework="numpy") as stored:
            part = stored.get_slice(_key(path, key, stored.keys()))
            return tuple(part.get_shape()), str(part.get_dtype())
    X = _read(path, key, "r")
    return X.shape, X.dtype


def _read(path: Path, key: str, mmap_mode: Literal["r"] | None = None) -> NDArray[Any]:
    if path.suffix == ".npy":
        return _array(np.load(path, mmap_mode=mmap_mode, allow_pickle=False))
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            return _array(stored[_key(path, key, stored.files)])
    with safe_open(path, framework="numpy") as stored:
        key = _key(path, key, stored.keys())
        if stored.get_slice(key).get_dtype() != "BF16":
            return _array(stored.get_tensor(key))
    with safe_open(path, framework="pt") as stored:  # NumPy has no bfloat16
        return _array(stored.get_tensor(key).float().numpy())


def _array(X: Any) -> NDArray[Any]:
    if not isinstance(X, np.ndarray):  # an archive under another name, or a foreign member
        raise ValueError("it holds no array")
    return X


def _split(source: str) -> tuple[Path, str]:
    for suffix in (".npy", ".npz", ".safetensors"):
        stem, separator, key = source.rpartition(suffix + ":")
        if separator and suffix != ".npy":  # it holds one array, without a name
            return Path(stem + suffix), key
        if source.endswith(suffix):
            return Path(source), ""
    raise InputError(f"matrix {source}: allowed are .npy, .npz[:name] and .safetensors[:name]")


def _key(path: Path, key: str, keys: Any) -> str:
    keys = sorted(keys)
    if not key and len(keys) == 1:
        return str(keys[0])
    if keys.count(key) > 1:
        raise InputError(f"matrix file {path} holds {key!r} twice; allowed: once")
    if key not in keys:
        problem = f"no array {key!r}" if key else "several arrays, so name one"
        raise InputError(f"matrix file {path}: {problem}; it has: {', '.join(keys)}")
    return key


def _unreadable(source: str, error: Exception) -> InputError:
    if isinstance(error, InputError):
        return error
    return InputError(f"matrix {source} cannot be read: {reason(error)}")
