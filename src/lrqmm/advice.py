"""Which method to take for two matrices: candidates multiply them, and are ranked by their price.

    1. every candidate, on a sample: up to `SAMPLE` rows of A and columns of B, chosen at
       random, k whole
    2. the cheapest of those that keep the wanted error there, on the whole matrices: the error over
       the sampled entries of the product, and times in turns with each other

A low-rank correction has an easier task on the sample than on the whole, so the second step decides
whether a candidate keeps the error; where none of these does, the next cheapest follow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import array_api_compat as compat
import numpy as np
import pandas as pd

from lrqmm import _checks
from lrqmm._checks import Array, Unsupported
from lrqmm._progress import Report, silent
from lrqmm.bench.environment import watch_load
from lrqmm.error import exact_product, relative_error
from lrqmm.method import Method, get_method
from lrqmm.products.backends import backend_of, to_numpy
from lrqmm.timing import time_products

SAMPLE = 1024
SCREENING = 3
"""Times a candidate multiplies the sample."""
CONTENDERS = 16
BITS = (4, 6, 8)
RANKS = (4, 16, 64)
FLOATS = ("sgemm", "tf32", "bf16", "fp8")
PRICES = {"time": "seconds", "bits": "bits", "memory": "megabytes"}
"""What is to be least: seconds of a product, bits of an operand's element, megabytes of B."""
Candidate = tuple[str, dict[str, Any]]
Values = np.ndarray[Any, np.dtype[np.floating[Any]]]


@dataclass(frozen=True, repr=False)
class Advice:
    """What `advise` found.

    Attributes
    ----------
    table : a row a candidate, the best first. `method` and its `parameters`; `error`, relative, in
        the Frobenius norm; `keeps`, whether that is at most `max_error`; `seconds` of a product, a
        median of `samples` with the least and most, `low` and `high`; `bits` of an element of both
        operands and `megabytes` of B, scales and factors included; `whole`, whether all this was
        measured on the whole matrices, or on the sample alone
    max_error, goal : as asked
    left_out : candidates that this machine or these shapes do not allow, and why
    loaded : whether others used the machine meanwhile, so that times may be too long

    Examples
    --------
    >>> import numpy as np, lrqmm
    >>> A, B = np.random.default_rng(0).random((2, 64, 64), dtype=np.float32)
    >>> advice = lrqmm.advise(A, B, max_error=0.01, goal="bits", seconds=0.1)
    >>> advice.found, advice.python.startswith("C = lrqmm.matmul(A, B, ")
    (True, True)
    """

    table: pd.DataFrame
    max_error: float
    goal: str
    left_out: Mapping[str, str]
    loaded: bool

    @property
    def best(self) -> pd.Series[Any]:
        """The row to take. ValueError where no candidate keeps the error."""
        if not self.found:
            least = self.table["error"].min()
            raise ValueError(
                f"max_error is {self.max_error:g}; allowed for these matrices: at least {least:.3g}"
            )
        return self.table.iloc[0]

    @property
    def found(self) -> bool:
        """Whether a candidate keeps the error."""
        return bool((self.table["keeps"] & self.table["whole"]).any())

    @property
    def python(self) -> str:
        """The line to write in Python."""
        words = [f"{key}={value!r}" for key, value in self.best["parameters"].items()]
        return f"C = lrqmm.matmul(A, B, {', '.join([repr(self.best['method']), *words])})"

    @property
    def config(self) -> str:
        """The lines to write in an experiment of a study."""
        words = [f"{key}: {value}" for key, value in self.best["parameters"].items()]
        return f"methods: [{self.best['method']}]\nsettings: {{{', '.join(words)}}}"

    def __repr__(self) -> str:
        none = f"no candidate keeps an error of {self.max_error:g}"
        return f"Advice({self.python if self.found else none})"


def advise(
    A: Array,
    B: Array,
    *,
    max_error: float,
    goal: str = "time",
    prepared: bool = False,
    seconds: float = 10.0,
    seed: int = 0,
    values: tuple[Values, Values] | None = None,
    progress: Report = silent,
) -> Advice:
    """Measure the candidates on two matrices and rank them.

    Parameters
    ----------
    A, B : (m, k) and (k, n) arrays of one library and device, floating
    max_error : the largest relative error ‖C - AB‖ / ‖AB‖ (Frobenius) to accept
    goal : what is to be least among those that keep it: 'time' of a product, 'bits' of an element
        of both operands, or 'memory' of B
    prepared : whether B is a weight, made ready before the clock starts
    seconds : to spend on timing contenders, if three rounds take no longer
    seed : of the sample
    values : A and B as NumPy arrays of float64, where `A` and `B` are those rounded to float32;
        errors are then against their product
    progress : called with what is being measured and the share that is done

    Raises
    ------
    TypeError, ValueError : operands as in `lrqmm.matmul`, or with more than two dimensions; an
        error that is not positive; a goal that is not known

    Examples
    --------
    >>> import numpy as np, lrqmm
    >>> A, B = np.random.default_rng(0).random((2, 64, 64), dtype=np.float32)
    >>> best = lrqmm.advise(A, B, max_error=0.01, goal="memory", prepared=True, seconds=0.1).best
    >>> bool(best["error"] <= 0.01)
    True
    """
    _checks.choice("goal", goal, list(PRICES))
    if not max_error > 0:
        raise ValueError(f"max_error is {max_error!r}; allowed: a number above 0")
    if A.ndim != 2 or B.ndim != 2:
        raise ValueError(f"A and B have {A.ndim} and {B.ndim} dimensions; allowed: 2")
    progress("multiplying by sgemm", 0.0)
    get_method("sgemm").matmul(A, B)  # the checks at the door
    sample = _Sample.draw(A, B, seed, values)
    rows, left_out = [], {}
    tried = list(candidates(A))
    with watch_load() as load:
        for number, candidate in enumerate(tried):
            progress(_name(*candidate), 0.6 * number / len(tried))
            try:
                rows.append(_on_sample(candidate, A, B, sample, prepared))
            except Exception as reason:  # one that fails is no reason to drop the others
                left_out[_name(*candidate)] = _checks.in_words(reason)
        table = pd.DataFrame(rows)
        while True:
            table["keeps"] = table["error"] <= max_error
            left = table[table["keeps"] & ~table["whole"]]
            if left.empty or (table["keeps"] & table["whole"]).any():
                break
            price = "low" if goal == "time" else PRICES[goal]  # the least is what noise spares
            contenders = left.sort_values([price, "low"]).index[:CONTENDERS]
            progress(f"{len(contenders)} contenders", 0.6)
            measured, failed = _on_whole(table.loc[contenders], A, B, sample, prepared, seconds)
            table.loc[measured.index, measured.columns] = measured
            for at, why in failed.items():
                left_out[_name(table.loc[at, "method"], table.loc[at, "parameters"])] = why
            table = table.drop(index=list(failed))
    table = table.sort_values(
        ["keeps", "whole", PRICES[goal], "seconds"],
        ascending=[False, False, True, True],
        ignore_index=True,
    )
    return Advice(table, max_error, goal, left_out, load["loaded"])


def candidates(like: Array) -> Iterator[Candidate]:
    """What is tried on arrays like this one: float products, and `BITS` by `RANKS`, by the fast
    path where it was measured (on a CPU)."""
    fast = {"execution": "fused"} if str(compat.device(like)) == "cpu" else {}
    for name in FLOATS:
        yield name, {}
    for bits in BITS:
        yield "direct", {"bits": bits, **fast}
        yield "direct", {"bits": bits, "zero_point": "integer"}
        yield "mean_fix", {"bits": bits, **fast}
        yield "two_slice", {"bits": bits}
        for rank in RANKS:
            for name in ("lrqmm", "lrqmm_aware"):
                yield name, {"bits": bits, "rank": rank, **fast}


@dataclass(frozen=True)
class _Sample:
    """Rows of A, columns of B, and their exact product."""

    rows: np.ndarray[Any, np.dtype[np.int64]]
    columns: np.ndarray[Any, np.dtype[np.int64]]
    A: Array
    B: Array
    exact: np.ndarray[Any, np.dtype[np.float64]]

    @classmethod
    def draw(
        cls, A: Array, B: Array, seed: int, values: tuple[Values, Values] | None = None
    ) -> _Sample:
        xp = compat.array_namespace(A)
        chances = np.random.Generator(np.random.Philox(seed))
        rows, columns = (
            np.sort(chances.permutation(size)[:SAMPLE]) for size in (A.shape[0], B.shape[1])
        )
        few, thin = (
            xp.take(X, xp.asarray(at, device=compat.device(X)), axis=axis)
            for axis, (X, at) in enumerate(((A, rows), (B, columns)))
        )
        if values is None:
            exact = exact_product(to_numpy(few), to_numpy(thin))
        else:
            exact = exact_product(values[0][rows], values[1][:, columns])
        return cls(rows, columns, few, thin, exact)

    def error(self, C: Array) -> float:
        """Of a product of the sample, or of the whole matrices over the sampled entries."""
        found = to_numpy(C)
        if found.shape != self.exact.shape:
            found = found[np.ix_(self.rows, self.columns)]
        return relative_error(found, self.exact)


def _name(method: str, parameters: Mapping[str, Any]) -> str:
    return " ".join([method, *(f"{key}={value}" for key, value in parameters.items())])


def _on_sample(
    candidate: Candidate, A: Array, B: Array, sample: _Sample, prepared: bool
) -> dict[str, Any]:
    name, parameters = candidate
    method = get_method(name, **parameters)
    if method.emulated(A):
        raise Unsupported("imitated on this device: its time means nothing")
    (m, k), n = A.shape, B.shape[1]
    method.check_shape(m, k, n)
    product = _product(method, sample.A, sample.B, prepared)
    error = sample.error(product())
    walls = []
    for _ in range(SCREENING):
        start = time.perf_counter()
        product()
        backend_of(A).synchronize(A)
        walls.append(time.perf_counter() - start)
    return {
        "method": name,
        "parameters": parameters,
        "error": error,
        **_spread(walls),
        "bits": method.cost(m, k, n).operand_bits / (m * k + k * n),
        "megabytes": method.cost(0, k, n).operand_bits / 8e6,
        "whole": False,
    }


def _on_whole(
    rows: pd.DataFrame, A: Array, B: Array, sample: _Sample, prepared: bool, seconds: float
) -> tuple[pd.DataFrame, dict[Any, str]]:
    """Errors and times of these rows' candidates on the whole matrices; why others failed."""
    products, errors, failed = {}, {}, {}
    spent = 0.0
    for at, row in rows.iterrows():
        try:
            product = _product(get_method(row["method"], **row["parameters"]), A, B, prepared)
            start = time.perf_counter()
            errors[at] = sample.error(product())
            spent += time.perf_counter() - start
            products[at] = product
        except Exception as reason:  # as on the sample
            failed[at] = _checks.in_words(reason)
    backend = backend_of(A)
    samples = time_products(
        products,
        min(max(int(seconds / max(spent, 1e-9)), 3), 15),
        partial(backend.synchronize, A),
        partial(backend.flush_cache, A),
    )
    times = {at: _spread([wall for wall, _ in found]) for at, found in samples.items()}
    measured = pd.DataFrame.from_dict(times, orient="index")
    return measured.assign(error=pd.Series(errors, dtype=float), whole=True), failed


def _spread(walls: list[float]) -> dict[str, float | int]:
    return {
        "seconds": float(np.median(walls)),
        "low": min(walls),
        "high": max(walls),
        "samples": len(walls),
    }


def _product(method: Method, A: Array, B: Array, prepared: bool) -> Callable[[], Array]:
    right = method.prepare(B) if prepared else B
    return partial(method.matmul, A, right, check_finite=False)
