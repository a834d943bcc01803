"""Which method to take for two matrices: candidates multiply them, and are ranked by their price.

    1. every candidate, on a sample: up to `SAMPLE` rows of A and columns of B, chosen at
       random, k whole
    2. the cheapest of those that keep the wanted error there, on the whole matrices: the error over
       the sampled entries of the product, and times in turns with each other

A low-rank correction has an easier task on the sample than on the whole, so the second step decides
whether a candidate keeps the error; where none of these does, the next cheapest follow.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import array_api_compat as compat
import numpy as np

from lrqmm import _checks
from lrqmm._checks import Array, Unsupported
from lrqmm._extras import needs_extra
from lrqmm._progress import Report, silent
from lrqmm.error import exact_product, relative_error
from lrqmm.load import watch_load
from lrqmm.method import Method, get_method
from lrqmm.products.backends import backend_of, to_numpy
from lrqmm.timing import time_products

if TYPE_CHECKING:
    import pandas as pd

SAMPLE = 1024
SCREENING = 3
"""Times a candidate multiplies the sample."""
CONTENDERS = 16
BITS = (4, 6, 8)
FEW_BITS = 4
"""Up to these 16 levels in place of 15 are tried too (`levels='signed'`)."""
RANKS = (4, 16, 64)
FLOATS = ("sgemm", "tf32", "bf16", "fp8")
Price = Literal["seconds", "low", "bits", "megabytes"]
PRICES: dict[str, Price] = {"time": "seconds", "bits": "bits", "memory": "megabytes"}
"""What is to be least: seconds of a product, bits of an operand's element, megabytes of B."""
PEERS: dict[str, tuple[dict[str, Any], ...]] = {
    "torch_int8": ({"engine": "onednn"}, {"engine": "x86"}),
    "torch_qlinear": ({},),
    "torch_int4": ({"group": 32},),
    "ark": (
        {"bits": 8},
        {"bits": 8, "group": 128},
        {"bits": 4, "group": 32},
        {"bits": 4, "group": 32, "compute": "float32"},
    ),
    "onnxruntime": ({},),
    "onnxruntime_nbits": ({"bits": 4}, {"bits": 8}),
    "openvino": ({"weights": "bfloat16"}, {"weights": "int8_asym"}, {"weights": "int4_asym"}),
    "torchao": ({},),
}
"""Products of other libraries that are tried where they are asked for."""
Candidate = tuple[str, dict[str, Any]]
Values = np.ndarray[Any, np.dtype[np.floating[Any]]]


class Spread(TypedDict):
    """Seconds of a product: a median of `samples` times, the least and the largest of them."""

    seconds: float
    low: float
    high: float
    samples: int


class Measured(Spread):
    """One candidate, and what it costs.

    `error` is relative, in the Frobenius norm, and `keeps` says whether it is at most the largest
    error that was asked for. `bits` is what an element of both operands takes and `megabytes` what
    B takes, scales and factors included. `whole` says whether all this was measured on the whole
    matrices, or on the sample alone.
    """

    method: str
    parameters: dict[str, Any]
    error: float
    bits: float
    megabytes: float
    whole: bool
    keeps: bool


@dataclass(frozen=True, repr=False)
class Advice:
    """What `advise` found.

    Attributes
    ----------
    candidates : what was measured of each, the best first, with the keys of `Measured`
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

    candidates: tuple[Measured, ...]
    max_error: float
    goal: str
    left_out: Mapping[str, str]
    loaded: bool

    @property
    def table(self) -> pd.DataFrame:
        """The candidates as a table of pandas, one row per candidate."""
        needs_extra("Advice.table", "bench")
        import pandas as pd

        return pd.DataFrame(list(self.candidates))

    @property
    def best(self) -> Measured:
        """The candidate to take. ValueError where none keeps the error."""
        if not self.found:
            raise ValueError(
                f"max_error is {self.max_error:g}; allowed for these matrices: at least "
                f"{self.closest['error']:.3g}"
            )
        return self.candidates[0]

    @property
    def closest(self) -> Measured:
        """The candidate of the least error, whether or not that is small enough."""
        return min(self.candidates, key=lambda it: (math.isnan(it["error"]), it["error"]))

    @property
    def found(self) -> bool:
        """Whether a candidate keeps the error."""
        return any(it["keeps"] and it["whole"] for it in self.candidates)

    @property
    def python(self) -> str:
        """The line to write in Python."""
        parameters = [f"{key}={value!r}" for key, value in self.best["parameters"].items()]
        return f"C = lrqmm.matmul(A, B, {', '.join([repr(self.best['method']), *parameters])})"

    @property
    def config(self) -> str:
        """The lines to write in an experiment of a study."""
        parameters = ", ".join(f"{key}: {value}" for key, value in self.best["parameters"].items())
        return f"methods: [{self.best['method']}]\nsettings: {{{parameters}}}"

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
    peers: bool = False,
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
    peers : whether products of other libraries are tried too; those that are not installed are
        among `left_out`
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
    trial = _Trial(A, B, prepared, seed, values)
    measured: dict[str, Measured] = {}
    left_out: dict[str, str] = {}
    tried = list(candidates(A, peers))
    price: Price = "low" if goal == "time" else PRICES[goal]  # the least is what noise spares
    with watch_load() as load:
        for number, (method, parameters) in enumerate(tried):
            name = " ".join([method, *(f"{key}={value}" for key, value in parameters.items())])
            progress(name, 0.6 * number / len(tried))
            try:
                measured[name] = trial.on_sample(method, parameters, max_error)
            except Exception as reason:  # one that fails is no reason to drop the others
                left_out[name] = _checks.in_words(reason)
        while keep := {name: it for name, it in measured.items() if it["keeps"]}:
            if any(it["whole"] for it in keep.values()):
                break
            cheapest = sorted(keep, key=lambda name: (keep[name][price], keep[name]["low"]))
            contenders = {name: keep[name] for name in cheapest[:CONTENDERS]}
            progress(f"{len(contenders)} contenders", 0.6)
            again, failed = trial.on_whole(contenders, max_error, seconds)
            left_out.update(failed)
            measured = {name: it for name, it in measured.items() if name not in failed} | again
    best_first = sorted(
        measured.values(),
        key=lambda it: (not it["keeps"], not it["whole"], it[PRICES[goal]], it["seconds"]),
    )
    return Advice(tuple(best_first), max_error, goal, left_out, load["loaded"])


def candidates(like: Array, peers: bool = False) -> Iterator[Candidate]:
    """What is tried on arrays like this one: float products, and `BITS` by `RANKS`, with signed
    levels too up to `FEW_BITS`, by the fast path where it was measured (on a CPU); `PEERS` where
    they are asked for."""
    fast = {"execution": "fused"} if str(compat.device(like)) == "cpu" else {}
    for name in FLOATS:
        yield name, {}
    for bits in BITS:
        yield "direct", {"bits": bits, "zero_point": "integer"}
        yield "two_slice", {"bits": bits}
        for levels in ({}, {"levels": "signed"}) if bits <= FEW_BITS else ({},):
            setting = {"bits": bits, **levels, **fast}
            yield "direct", setting
            yield "mean_fix", setting
            for rank in RANKS:
                for name in ("lrqmm", "lrqmm_aware"):
                    yield name, {**setting, "rank": rank}
    for name, settings in PEERS.items() if peers else ():
        yield from ((name, parameters) for parameters in settings)


class _Trial:
    """Two matrices; rows of A and columns of B as a sample of them, and its exact product."""

    def __init__(
        self, A: Array, B: Array, prepared: bool, seed: int, values: tuple[Values, Values] | None
    ) -> None:
        xp = compat.array_namespace(A)
        random = np.random.Generator(np.random.Philox(seed))
        self.A, self.B, self.prepared = A, B, prepared
        self.rows, self.columns = (
            np.sort(random.permutation(size)[:SAMPLE]) for size in (A.shape[0], B.shape[1])
        )
        self.sample = [
            xp.take(X, xp.asarray(at, device=compat.device(X)), axis=axis)
            for axis, (X, at) in enumerate(((A, self.rows), (B, self.columns)))
        ]
        if values is None:
            self.exact = exact_product(*map(to_numpy, self.sample))
        else:
            self.exact = exact_product(values[0][self.rows], values[1][:, self.columns])

    def product(self, method: Method, A: Array, B: Array) -> Callable[[], Array]:
        right = method.prepare(B) if self.prepared else B
        return partial(method.matmul, A, right, check_finite=False)

    def error(self, C: Array) -> float:
        """Of a product of the sample, or of the whole matrices over the sampled entries."""
        entries = to_numpy(C)
        if entries.shape != self.exact.shape:
            entries = entries[np.ix_(self.rows, self.columns)]
        return relative_error(entries, self.exact)

    def on_sample(self, name: str, parameters: dict[str, Any], max_error: float) -> Measured:
        """One candidate measured on the sample."""
        method = get_method(name, **parameters)
        if method.emulated(self.A):
            raise Unsupported("imitated on this device: its time means nothing")
        (m, k), n = self.A.shape, self.B.shape[1]
        method.check_shape(m, k, n)
        product = self.product(method, *self.sample)
        error = self.error(product())
        walls = []
        for _ in range(SCREENING):
            start = time.perf_counter()
            product()
            backend_of(self.A).synchronize(self.A)
            walls.append(time.perf_counter() - start)
        return {
            "method": name,
            "parameters": parameters,
            "error": error,
            **_spread(walls),
            "bits": method.cost(m, k, n).operand_bits / (m * k + k * n),
            "megabytes": method.cost(0, k, n).operand_bits / 8e6,
            "whole": False,
            "keeps": error <= max_error,
        }

    def on_whole(
        self, contenders: Mapping[str, Measured], max_error: float, seconds: float
    ) -> tuple[dict[str, Measured], dict[str, str]]:
        """Candidates measured on the whole matrices, by name, and why others of them failed."""
        products, errors, failed = {}, {}, {}
        spent = 0.0
        for name, it in contenders.items():
            try:
                method = get_method(it["method"], **it["parameters"])
                product = self.product(method, self.A, self.B)
                start = time.perf_counter()
                errors[name] = self.error(product())
                spent += time.perf_counter() - start
                products[name] = product
            except Exception as reason:  # as on the sample
                failed[name] = _checks.in_words(reason)
        backend, rounds = backend_of(self.A), int(seconds / max(spent, 1e-9))
        synchronize, flush = (
            partial(call, self.A) for call in (backend.synchronize, backend.flush_cache)
        )
        times = time_products(products, min(max(rounds, 3), 15), synchronize, flush)
        measured: dict[str, Measured] = {
            name: {
                **contenders[name],
                **_spread([wall for wall, _ in samples]),
                "error": errors[name],
                "whole": True,
                "keeps": errors[name] <= max_error,
            }
            for name, samples in times.items()
        }
        return measured, failed


def _spread(walls: list[float]) -> Spread:
    return {
        "seconds": float(np.median(walls)),
        "low": min(walls),
        "high": max(walls),
        "samples": len(walls),
    }
