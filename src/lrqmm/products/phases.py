"""Where the time of a product goes: `with phase("sketch"): ...` around each part of a method.

Outside a `record()` block a phase costs one context-variable read and measures nothing.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

PHASES = ("quantize", "residual", "sketch", "factorize", "product", "correct", "transform")
"""Phases in the order in which a compensated product runs them; what is left is 'other'."""


class _Clock:
    """Charges elapsed seconds to the innermost open phase."""

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self.seconds: dict[str, float] = {}
        self._open = ["other"]
        self._synchronize = synchronize
        self._last = self._now()

    def _now(self) -> float:
        self._synchronize()
        return time.perf_counter()

    def charge(self) -> None:
        now = self._now()
        self.add(self.open, now - self._last)
        self._last = now

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    @property
    def open(self) -> str:
        return self._open[-1]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.charge()
        self._open.append(name)
        try:
            yield
        finally:
            self.charge()
            self._open.pop()


_clock: ContextVar[_Clock | None] = ContextVar("lrqmm_clock", default=None)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Charge the time of this block to phase `name`; phases nest, the innermost is charged."""
    clock = _clock.get()
    if clock is None:
        yield
    else:
        with clock.phase(name):
            yield


def recording() -> bool:
    """Whether somebody asks where the time goes."""
    return _clock.get() is not None


def charge(name: str, seconds: float) -> None:
    """Charge to phase `name` what compiled code measured, and not to the open phase."""
    clock = _clock.get()
    if clock is not None:
        clock.charge()
        clock.add(clock.open, -seconds)
        clock.add(name, seconds)


@contextmanager
def record(synchronize: Callable[[], None] = lambda: None) -> Iterator[dict[str, float]]:
    """Yield a dict that holds, at the end of the block, the seconds spent in each phase.

    `synchronize` waits for the device, so that queued work is charged to the phase that queued it.
    """
    clock = _Clock(synchronize)
    token = _clock.set(clock)
    try:
        yield clock.seconds
    finally:
        clock.charge()
        _clock.reset(token)
