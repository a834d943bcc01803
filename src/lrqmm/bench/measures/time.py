"""Times of products, beside baselines and with what explains them."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any

import array_api_compat as compat
from pydantic import Field

from lrqmm import _checks, methods
from lrqmm._checks import Array, Unsupported
from lrqmm.bench.configuration import at_place, choose
from lrqmm.bench.keys import Unique
from lrqmm.bench.measures._experiment import Row, Scope, Shard
from lrqmm.bench.measures._products import Pair, Products, error_row, modelled_cost, scores
from lrqmm.bench.measures._rows import describe
from lrqmm.method import Method, get_method, matmul
from lrqmm.products.backends import backend_of
from lrqmm.products.floatproduct import FloatProduct
from lrqmm.products.packing import pack, unpack
from lrqmm.products.quantize import Uniform
from lrqmm.timing import time_phases, time_products


class Time(Products):
    """Times of products beside baselines, by phase; memory; errors of the same products."""

    name = "time"
    metric = "seconds"
    alone = True

    samples: int = Field(20, ge=3)
    """Rounds: how often each product is timed."""
    baselines: list[str] = Field(["sgemm", "direct"])
    """Methods that run in turns with each method, at the parameters that they share with it,
    where they allow them.
    """
    baseline_settings: dict[str, Any] = Field({})
    """Parameters of the baselines beside those shared: of methods that lack them, such as `bits`.
    """
    prepared: Annotated[list[bool], Unique] = Field([False], min_length=1)
    """`[false]`, or `[false, true]` to time products with B prepared too."""
    as_called: bool = False
    """Whether the method's products are timed as users call them too: with a look for NaN at the
    operands, and a fresh result in place of one that is there."""

    def shards(self, name: str, scope: Scope) -> Iterator[Shard]:
        choose(self.baselines, f"experiments.{name}.baselines", methods.list_methods())
        every = {key for each in self.baselines for key in methods.preset(each).defaults}
        with at_place(f"experiments.{name}.baseline_settings"):
            _checks.known("unknown parameter", self.baseline_settings, every)
        return super().shards(name, scope)

    def repeats(self) -> int:
        each = 2 + len(self.baselines) + self.as_called
        return self.samples * each * len(self.prepared)

    def kept(self) -> int:
        return 1 + len(self.baselines)

    def of_product(self, method: Method, pair: Pair) -> Iterator[Row]:
        """Samples of the method and of the baselines in turns with it; the error of the same run.

        Beside them: the phases, peak memory, the bytes of the codes, the modelled cost, the
        machine's ceiling and its clock.
        """
        A, B = pair.A, pair.B
        if method.emulated(A):
            raise Unsupported(f"{method.name} is emulated on this device: its time means nothing")
        yield from _peak(method, pair)
        yield from _storage(method, pair, self.samples)
        yield from _ceiling(A)
        timed = [method, *self._baselines(method)]
        xp, shape = compat.array_namespace(A), (A.shape[0], B.shape[1])
        out = xp.zeros(shape, dtype=xp.float32, device=compat.device(A))
        products: dict[tuple[int, bool], Callable[[], Any]] = {}
        calls: dict[tuple[str, bool], Callable[[], Any]] = {}
        for index, each in enumerate(timed):
            for prepared in self.prepared:
                if prepared and type(methods.preset(each.name)) is FloatProduct:
                    if False in self.prepared:
                        continue
                    prepared = False  # it has nothing to prepare
                sample = A if each.calibrated else None
                right = each.prepare(B, calibration=sample, check_finite=False) if prepared else B
                given = out if each.writes_out else None
                product = partial(each.matmul, A, right, out=given, check_finite=False)
                products[index, prepared] = product
                if self.as_called and index == 0:
                    whole = partial(matmul, A, B, method.name, **method.parameters)
                    ready = partial(method.matmul, A, right)
                    calls["called", prepared] = ready if prepared else whole
        backend = backend_of(A)
        synchronize, flush = partial(backend.synchronize, A), partial(backend.flush_cache, A)
        seconds = time_products({**products, **calls}, self.samples, synchronize, flush)
        for index, prepared in products:
            columns = {**describe(timed[index], A), "b_prepared": prepared}
            for sample, (wall, cpu) in enumerate(seconds[index, prepared]):
                yield {**columns, "metric": "seconds", "sample": sample, "value": wall}
                yield {**columns, "metric": "cpu_seconds", "sample": sample, "value": cpu}
        for called, prepared in calls:
            columns = {"metric": "call_seconds", "b_prepared": prepared}
            for sample, (wall, _) in enumerate(seconds[called, prepared]):
                yield {**columns, "sample": sample, "value": wall}
        for prepared in (prepared for index, prepared in products if index == 0):
            phases = time_phases(products[0, prepared], max(3, self.samples // 3), synchronize)
            for sample, by_phase in enumerate(phases):
                columns = {"metric": "seconds", "sample": sample, "b_prepared": prepared}
                for phase, value in by_phase.items():
                    yield {**columns, "phase": phase, "value": value}
            C = out if method.writes_out else products[0, prepared]()
            yield {**error_row(C, pair), "b_prepared": prepared}  # of the product timed last
        yield from scores(C, pair)
        yield from modelled_cost(method, pair)

    def _baselines(self, method: Method) -> Iterator[Method]:
        """The baselines, at the parameters that they share with the method, where they allow."""
        for name in self.baselines:
            if name != method.name:
                defaults = methods.preset(name).defaults
                wanted = {**self.baseline_settings, **method.parameters}
                shared = {key: value for key, value in wanted.items() if key in defaults}
                try:
                    baseline = get_method(name, **shared)
                except ValueError:  # `direct` has no 1 bit
                    continue
                yield baseline


def _peak(method: Method, pair: Pair) -> Iterator[Row]:
    from lrqmm.bench.machine import peak_bytes  # which loads torch

    first, fresh = (  # fresh: without the work space of earlier calls; first: what libraries load
        partial(get_method(method.name, **method.parameters).matmul, check_finite=False)
        for _ in range(2)
    )
    first(pair.A, pair.B)
    value = peak_bytes(partial(fresh, pair.A, pair.B), pair.A)
    if value is not None:
        yield {"metric": "peak_bytes", "value": value}


def _storage(method: Method, pair: Pair, samples: int) -> Iterator[Row]:
    """Bytes of B's codes as they are stored; the time to unpack them where a byte holds several."""
    bits = method.code_bits
    if bits is None:
        return
    if bits >= 8:
        each = 1 if bits == 8 else 2
        yield {"metric": "code_bytes", "value": float(each * math.prod(pair.B.shape))}
        return
    stored = Uniform(bits=bits, zero_point="float" if bits == 1 else None)
    codes = stored.quantize(pair.B.T).codes
    packed = pack(codes, bits)
    yield {"metric": "code_bytes", "value": float(math.prod(packed.shape))}
    synchronize = partial(backend_of(pair.A).synchronize, pair.A)
    unpacking = partial(unpack, packed, bits, codes.shape[1])
    seconds = time_products({"unpack": unpacking}, samples, synchronize)
    for sample, (wall, _) in enumerate(seconds["unpack"]):
        yield {"metric": "unpack_seconds", "sample": sample, "value": wall}


def _ceiling(like: Array) -> Iterator[Row]:
    """What the machine reaches at the most, measured beside the times of a shard."""
    from lrqmm.bench.machine import ceiling, clock_hz

    for metric, value in ceiling(like).items():
        yield {"metric": metric, "value": value}
    clock = clock_hz(like)
    if clock is not None:
        yield {"metric": "clock_hz", "value": clock}


MEASURE = Time
