"""The keys of experiments that compare methods: which ones, at which settings."""

import itertools
from collections.abc import Iterator
from typing import Any, Self

from pydantic import Field

from lrqmm import _checks, methods
from lrqmm.bench.configuration import Config, at_place, choose, split
from lrqmm.bench.keys import Grids, Names, Settings
from lrqmm.bench.measures._experiment import Experiment, Grid, Scope
from lrqmm.method import get_method

Shape = tuple[int, int, int]


class OfMethods(Experiment):
    """An experiment that compares methods."""

    methods: Names = "usual"
    """`usual` (those whose file says `usual=True`, without `leave_out`), `all`, or names
    and compositions such as `hadamard+octav+lrqmm`.
    """
    settings: Settings = Field({})
    """Parameters; a list is tried value by value, each method takes those it has."""
    overrides: dict[str, Grids] = Field({})
    """Settings of single methods, in place of those above; of a list of settings each is tried."""

    def named(self, name: str, scope: Scope) -> Self:
        choice = scope.usual if self.methods == "usual" else self.methods
        return self.model_copy(
            update={"methods": method_names(choice, f"experiments.{name}.methods")}
        )

    def chosen(self, scope: Scope) -> list[str]:
        """Its methods, of those that the study is cut down to."""
        return [name for name in self.methods if scope.methods is None or name in scope.methods]

    def grid(self, where: str, method: str, shapes: set[Shape]) -> Grid:
        """The settings of one method: the grid over the parameters that it has, each checked."""
        defaults = methods.preset(method).defaults
        settings: list[dict[str, Any]] = []
        for overrides in self._overrides(method):
            values = {**self.settings, **overrides}
            each = grid({key: values[key] for key in values if key in defaults})
            settings += [setting for setting in each if setting not in settings]
        for setting in settings:
            with at_place(f"{where}: method {method}"):
                built = get_method(method, **setting)
                for shape in shapes:
                    built.check_shape(*shape)
        return tuple(settings)

    def _overrides(self, method: str) -> list[Settings]:
        overrides = self.overrides.get(method, {})
        return overrides if isinstance(overrides, list) else [overrides]

    def check_parameters(self, where: str) -> None:
        """Raise ConfigError for a parameter of no method, or not of the method it is set for."""
        every = {key for name in methods.list_methods() for key in methods.preset(name).defaults}
        with at_place(f"{where}.settings"):
            _checks.known("unknown parameter", self.settings, every)
        for method in self.overrides:
            method_names([method], f"{where}.overrides")
            for settings in self._overrides(method):
                with at_place(f"{where}.overrides.{method}"):
                    known = methods.preset(method).defaults
                    _checks.known("unknown parameter", settings, known)


def method_names(choice: Any, key: str) -> list[str]:
    """The methods asked for; parts joined by `+` are one too. `key` says where they stand."""
    names = split(choice)
    composed = [name for name in names if "+" in name]
    for name in composed:
        with at_place(key):
            methods.preset(name)
    rest = [name for name in names if name not in composed]
    return [*choose(rest, key, methods.list_methods()), *composed]


def grid(settings: Config) -> Iterator[dict[str, Any]]:
    """Every combination of the values of some parameters."""
    values = [value if isinstance(value, list) else [value] for value in settings.values()]
    for combination in itertools.product(*values):
        yield dict(zip(settings, combination, strict=True))
