"""Measure one shard: a few inputs, one method, many settings, in one process."""

from __future__ import annotations

import datetime
import gc
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import array_api_compat as compat
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import lrqmm
from lrqmm import methods
from lrqmm._checks import Array, Unsupported
from lrqmm.bench import environment
from lrqmm.bench.environment import code_hash, git_state, watch_load
from lrqmm.bench.machine import ceiling, clock_hz, peak_bytes
from lrqmm.bench.measures.arrays import as_rows, pictures, spectra, steps
from lrqmm.bench.sources import list_workloads, workload
from lrqmm.bench.sources.files import Floats, read_pair
from lrqmm.error import exact_product, relative_error
from lrqmm.method import Method, get_method
from lrqmm.products.backends import backend_of, from_numpy, to_numpy
from lrqmm.products.floatproduct import FloatProduct
from lrqmm.products.packing import pack, unpack
from lrqmm.products.quantize import Uniform
from lrqmm.run import schema
from lrqmm.timing import time_phases, time_products

Row = dict[str, Any]


@dataclass(frozen=True)
class Input:
    """One pair of matrices, in the library and on the device of the shard, float32; and as stored.

    `sample` is the half of A's rows that is left for calibration, where the study asks for it.
    """

    about: Row
    A: Array
    B: Array
    source: tuple[Floats, Floats]
    sample: Array | None = None

    @cached_property
    def exact(self) -> NDArray[np.float64]:
        """A B in float64, of the values as stored."""
        return exact_product(*self.source)


def measure_shard(
    shard: Mapping[str, Any], files: Sequence[str | Path], device: str, threads: int
) -> list[Row]:
    """Rows of the measurement table for a shard.

    Parameters
    ----------
    shard : as `lrqmm.bench.study.Shard.as_dict` gives it
    files : the pair files of its inputs, in order
    device : 'auto', 'cpu' or 'cuda'
    threads : the most threads to use

    Raises
    ------
    ValueError, TypeError : a setting that is not allowed or does not fit an input, before anything
        is measured
    InputError : a file that is not what was written
    """
    settings = [get_method(shard["method"], **setting) for setting in shard["settings"]]
    for about in shard["inputs"]:
        for method in settings:
            measured = about["m"] - (about["m"] // 2 if shard.get("held_out") else 0)
            method.check_shape(measured, about["k"], about["n"])
    rows: list[Row] = []
    gc.freeze()  # the libraries' own objects: a collection before each peak need not walk them
    with threadpool_limits(threads), watch_load(threads) as load:
        _limit_torch(shard["library"], threads)
        for number, (about, path) in enumerate(zip(shard["inputs"], files, strict=True), 1):
            given = _load(about, path, shard["library"], device, bool(shard.get("held_out")))
            for setting, method in enumerate(settings):
                rows.extend(_measure(shard, setting, method, given))
                if method.calibrated and given.sample is not None:
                    held_out = replace(given, about={**given.about, "calibration": "held_out"})
                    rows.extend(_measure(shard, setting, method, held_out))
            print(f"{shard['name']}: {number} of {len(files)} inputs", file=sys.stderr, flush=True)
    common = provenance(shard, threads)
    return [{**common, **row, **load} for row in rows]


def measure_arrays(shard: Mapping[str, Any], files: Sequence[str | Path]) -> list[Row]:
    """Rows of the table of arrays for a 'spectrum' or 'steps' experiment."""
    rows: list[Row] = []
    for about, path in zip(shard["inputs"], files, strict=True):
        *stored, digest = read_pair(path)
        A, B = (X.astype(np.float32, copy=False) for X in stored)
        for setting in shard["settings"]:
            if shard["measure"] == "spectrum":
                found = spectra(A, setting)
            else:
                found = {"steps": steps, "pictures": pictures}[shard["measure"]](A, B, setting)
            rows.extend(
                as_rows(
                    found,
                    experiment=shard["experiment"],
                    input=about["layer"] or about["input"],
                    parameters=setting,
                    input_sha256=digest,
                )
            )
    return rows


def _load(about: Row, path: str | Path, library: str, device: str, held_out: bool) -> Input:
    A, B, digest = read_pair(path)
    m, k, n = A.shape[0], A.shape[1], B.shape[1]
    first = m // 2 if held_out else 0
    about = {**about, "m": m, "k": k, "n": n, "input_sha256": digest}

    def on_device(X: Floats) -> Array:
        return from_numpy(X.astype(np.float32, copy=False), library, device)

    return Input(
        {**about, "rows": m - first} if held_out else about,
        on_device(A[first:]),
        on_device(B),
        (A[first:], B),
        on_device(A[:first]) if first else None,
    )


def _limit_torch(library: str, threads: int) -> None:
    if library == "torch":
        import torch

        torch.set_num_threads(threads)


def _measure(shard: Mapping[str, Any], setting: int, method: Method, given: Input) -> Iterator[Row]:
    """Rows of one setting on one input; a failure is a row too, and its neighbours go on."""
    measure = {"error": _errors, "time": _times, "count": _counts}[shard["measure"]]
    place = {"device": backend_of(given.A).device_name(given.A), "setting": setting}
    calibration = {"calibration": "same" if method.calibrated else "none"}
    common = {**calibration, **given.about, **_describe(method, given.A), **place}
    try:
        for row in list(measure(shard, method, given)):
            yield {**common, "sample": 0, "status": "ok", **row}
    except Unsupported as reason:
        yield _without_value(shard, common, "unsupported", str(reason))
    except Exception as reason:
        yield _without_value(shard, common, "failed", f"{type(reason).__name__}: {reason}")


def _without_value(shard: Mapping[str, Any], common: Row, status: str, reason: str) -> Row:
    metric = {"error": "relative_error", "time": "seconds", "count": "bytes"}[shard["measure"]]
    return {**common, "metric": metric, "sample": 0, "status": status, "reason": reason}


def _errors(shard: Mapping[str, Any], method: Method, given: Input) -> Iterator[Row]:
    sample = given.sample if given.about.get("calibration") == "held_out" else None
    C = method.matmul(given.A, given.B, calibration=sample)
    yield _error_row(C, given)
    yield from _scores(C, given)
    predicted = method.predicted_error(given.A, given.B)
    if predicted is not None and math.isfinite(predicted):
        yield {"metric": "predicted_error", "value": predicted}
    if shard.get("cost"):
        yield from _model(method, given)


def _error_row(C: Array, given: Input) -> Row:
    if tuple(C.shape) != given.exact.shape:
        raise ValueError(f"the result has shape {tuple(C.shape)}, not {given.exact.shape}")
    found = to_numpy(C)
    error = relative_error(found, given.exact)
    if not math.isfinite(error):
        wrong = "is not zero and A B is" if np.isfinite(found).all() else "holds NaN or infinity"
        raise ValueError(f"the result {wrong} (relative error {error})")
    return {"metric": "relative_error", "value": error}


def _scores(C: Array, given: Input) -> Iterator[Row]:
    """What a product is worth where it is one of a workload."""
    about = given.about
    if about["input"] in list_workloads():
        score = workload(about["input"]).score
        for metric, value in score(about["layer"], about["input_seed"], to_numpy(C)).items():
            yield {"metric": metric, "value": value}


def _times(shard: Mapping[str, Any], method: Method, given: Input) -> Iterator[Row]:
    """Samples of the method and of the baselines in turns with it; the error of the same run.

    Beside them: the phases, peak memory, the bytes of the codes, the modelled cost, the machine's
    ceiling and its clock.
    """
    A, B = given.A, given.B
    if method.emulated(A):
        raise Unsupported(f"{method.name} is emulated on this device: its time means nothing")
    yield from _peak(method, given)
    yield from _storage(method, given, shard["samples"])
    yield from _ceiling(A)
    timed = [method, *_baselines(shard, method)]
    out = _empty_result(A, B)
    products: dict[tuple[int, bool], Callable[[], Any]] = {}
    for index, own in enumerate(timed):
        for prepared in shard["prepared"]:
            if prepared and type(methods.preset(own.name)) is FloatProduct:
                if False in shard["prepared"]:
                    continue
                prepared = False  # it has nothing to prepare
            sample = A if own.calibrated else None
            right = own.prepare(B, calibration=sample, check_finite=False) if prepared else B
            products[index, prepared] = partial(own.matmul, A, right, out=out, check_finite=False)
    backend = backend_of(A)
    synchronize, flush = partial(backend.synchronize, A), partial(backend.flush_cache, A)
    found = time_products(products, shard["samples"], synchronize, flush)
    for (index, prepared), samples in found.items():
        about = {**_describe(timed[index], A), "b_prepared": prepared}
        for sample, (wall, cpu) in enumerate(samples):
            yield {**about, "metric": "seconds", "sample": sample, "value": wall}
            yield {**about, "metric": "cpu_seconds", "sample": sample, "value": cpu}
    for prepared in (prepared for index, prepared in products if index == 0):
        phases = time_phases(products[0, prepared], max(3, shard["samples"] // 3), synchronize)
        for sample, seconds in enumerate(phases):
            about = {"metric": "seconds", "sample": sample, "b_prepared": prepared}
            for phase, value in seconds.items():
                yield {**about, "phase": phase, "value": value}
        yield {**_error_row(out, given), "b_prepared": prepared}  # of the very product timed last
    yield from _scores(out, given)
    yield from _model(method, given)


def _baselines(shard: Mapping[str, Any], method: Method) -> Iterator[Method]:
    """The baselines, at the parameters that they share with the method, where they allow them."""
    for name in shard["baselines"]:
        if name != shard["method"]:
            own = methods.preset(name).defaults
            shared = {key: value for key, value in method.parameters.items() if key in own}
            try:
                baseline = get_method(name, **shared)
            except ValueError:  # `direct` has no 1 bit
                continue
            yield baseline


def _peak(method: Method, given: Input) -> Iterator[Row]:
    first, fresh = (  # fresh: without the work space of earlier calls; first: what libraries load
        partial(get_method(method.name, **method.parameters).matmul, check_finite=False)
        for _ in range(2)
    )
    first(given.A, given.B)
    value = peak_bytes(partial(fresh, given.A, given.B), given.A)
    if value is not None:
        yield {"metric": "peak_bytes", "value": value}


def _storage(method: Method, given: Input, samples: int) -> Iterator[Row]:
    """Bytes of B's codes as they are stored; the time to unpack them where a byte holds several."""
    bits = method.code_bits
    if bits is None:
        return
    if bits >= 8:
        each = 1 if bits == 8 else 2
        yield {"metric": "code_bytes", "value": float(each * math.prod(given.B.shape))}
        return
    stored = Uniform(bits=bits, zero_point="float" if bits == 1 else None)
    codes = stored.quantize(given.B.T).codes
    packed = pack(codes, bits)
    yield {"metric": "code_bytes", "value": float(math.prod(packed.shape))}
    synchronize = partial(backend_of(given.A).synchronize, given.A)
    unpacking = partial(unpack, packed, bits, codes.shape[1])
    found = time_products({"unpack": unpacking}, samples, synchronize)
    for sample, (wall, _) in enumerate(found["unpack"]):
        yield {"metric": "unpack_seconds", "sample": sample, "value": wall}


def _empty_result(A: Array, B: Array) -> Array:
    xp = compat.array_namespace(A)
    return xp.zeros((A.shape[0], B.shape[1]), dtype=xp.float32, device=compat.device(A))


def _ceiling(like: Array) -> Iterator[Row]:
    """What the machine reaches at the most, measured beside the times of a shard."""
    for metric, value in ceiling(like).items():
        yield {"metric": metric, "value": value}
    clock = clock_hz(like)
    if clock is not None:
        yield {"metric": "clock_hz", "value": clock}


def _model(method: Method, given: Input) -> Iterator[Row]:
    k, n = given.about["k"], given.about["n"]
    model = dict(vars(method.cost(int(given.A.shape[0]), k, n)))
    model["right_bits"] = method.cost(0, k, n).operand_bits
    for metric, value in model.items():
        yield {"metric": metric, "phase": "model", "value": float(value)}


def _counts(shard: Mapping[str, Any], method: Method, given: Input) -> Iterator[Row]:
    """Operations and bytes as modelled ('model') and as counted in torch calls ('counted')."""
    from lrqmm.bench.measures.count import count

    for metric, found in count(method, given.A, given.B).items():
        yield {"metric": metric, "phase": "counted", "value": float(found)}
    yield from _model(method, given)


def _describe(method: Method, like: Array) -> Row:
    parameters = method.parameters
    return {
        "method": method.name,
        "parameters": json.dumps(parameters, sort_keys=True),
        "integer_route": method.integer_route(like),
        **schema.parameter_columns(parameters),
    }


def provenance(shard: Mapping[str, Any], threads: int) -> Row:
    """What every row of a shard carries: machine, software, code, time."""
    commit, dirty = git_state()
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        "experiment": shard["experiment"],
        "shard": shard["name"],
        "library": shard["library"],
        "machine": environment.machine(),
        "node": environment.node(),
        "threads": threads,
        "compute_dtype": "float32",
        "code_hash": code_hash(shard["method"], network=bool(shard.get("network"))),
        "version": lrqmm.__version__,
        "versions": environment.versions(shard["library"]),
        "allocator": environment.allocator(),
        "git_commit": commit,
        "git_dirty": dirty,
        "measured_at": now,
    }
