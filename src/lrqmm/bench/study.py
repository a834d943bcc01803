"""A study: from a configuration to shards, every setting checked before anything is measured.

A shard is what one process measures: some inputs, one method, many settings. Changing or adding a
method changes its own shards only.
"""

from __future__ import annotations

import datetime
import itertools
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrqmm import _checks, methods
from lrqmm.bench.configuration import Config, as_typed
from lrqmm.bench.configuration import ConfigError as ConfigError
from lrqmm.bench.networks.shapes import resnet50_products
from lrqmm.bench.sources import list_workloads, workload
from lrqmm.bench.sources.distributions import DISTRIBUTIONS
from lrqmm.bench.sources.files import InputError, matrix_shape
from lrqmm.method import get_method
from lrqmm.products.quantize import Uniform

if TYPE_CHECKING:
    import jsonschema

ARRAYS = ("spectrum", "steps", "pictures")
"""Measurements that are small matrices; of a whole experiment in one process."""
WITHOUT_METHOD = ("spectrum", "steps")
RESERVED = ("all", "resnet50", *list_workloads())
NETWORKS = {"resnet50": 4 * 10**9, "llama": 140 * 10**9, "minilm": 10**9}
"""Networks, and about the multiply-adds that an item of data takes, for the time left."""
NETWORK_KEYS = (
    *("network", "weights", "data", "items", "length"),
    *("per_gemm", "speed", "ranks_within", "calibration", "keep"),
)
"""Keys of an experiment that say how a network is measured."""
SCHEMA = Path(__file__).parents[3] / "workflow/schemas/config.schema.yaml"
"""What a configuration may hold."""


@dataclass(frozen=True)
class Input:
    """One pair of matrices: where its file is, and what is in it."""

    input: str
    layer: str | None
    input_seed: int | None
    m: int
    k: int
    n: int
    path: str

    def about(self) -> dict[str, Any]:
        """What identifies it in the table."""
        return {key: value for key, value in asdict(self).items() if key != "path"}


@dataclass(frozen=True)
class Shard:
    """What one process measures; `method` is None for the matrices of figures 1 and 2."""

    name: str
    experiment: str
    measure: str
    library: str
    method: str | None
    inputs: tuple[Input, ...]
    settings: tuple[dict[str, Any], ...]
    samples: int = 0
    cost: bool = False
    held_out: bool = False
    baselines: tuple[str, ...] = ()
    prepared: tuple[bool, ...] = ()
    network: Config | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as a job is given it."""
        return {**asdict(self), "inputs": [given.about() for given in self.inputs]}

    @property
    def work(self) -> int:
        """Multiply-adds of all its products, a measure of how long it takes."""
        if self.network:
            passes = self.network["items"] * len(self.network["per_gemm"])
            return NETWORKS[self.network["network"]] * int(passes) * len(self.settings)
        volume = sum(given.m * given.k * given.n for given in self.inputs)
        repeats = 1
        if self.measure == "time":
            repeats = self.samples * (2 + len(self.baselines)) * len(self.prepared)
        return volume * len(self.settings) * repeats

    @property
    def megabytes(self) -> int:
        """Memory to ask a cluster for: libraries, operands, and the work space of each setting."""
        if self.network:
            return 8000
        elements = (
            given.m * given.k + given.k * given.n + given.m * given.n for given in self.inputs
        )
        kept = len(self.settings) * (1 + len(self.baselines))
        return 1500 + max(elements, default=0) * (40 + 6 * kept) // 10**6

    @property
    def minutes(self) -> int:
        """Time to ask a cluster for: several times what a slow core takes."""
        return 10 + self.work // 10**11


@dataclass(frozen=True)
class Study:
    """All shards of a configuration, and the inputs that they need."""

    run: str
    device: str
    shards: tuple[Shard, ...]
    config: Config = field(repr=False)

    @property
    def inputs(self) -> dict[str, Input]:
        """Every input that some shard needs, by path."""
        return {given.path: given for shard in self.shards for given in shard.inputs}


def plan(config: Config, schema: Config, typed: Sequence[str] = ()) -> Study:
    """The study that a configuration describes.

    Parameters
    ----------
    config : what files and command line say, as Snakemake merged them
    schema : what a configuration may hold
    typed : the KEY=VALUE of the command line, as they were typed

    Raises
    ------
    ConfigError : naming the key, its value and what is allowed, for a key or value that the schema
        does not know, an unknown method or input, a setting that no method takes or that does not
        fit an input, a matrix file that cannot be read
    """
    config = validate(as_typed(config, typed, schema), schema)
    _check_run_folder(config["run"])
    config = _with_defaults(config, schema)
    left_out = _names(config["leave_out"], "leave_out", methods.list_methods())
    usual = [
        name
        for name in methods.list_methods()
        if methods.preset(name).usual and name not in left_out
    ]
    for name in config["matrices"]:
        if name in (*RESERVED, *DISTRIBUTIONS):
            raise ConfigError(
                f"config: matrices.{name}: the name is taken; "
                f"allowed: any but {', '.join((*RESERVED, *DISTRIBUTIONS))}"
            )
    own_shapes = {name: _own_shape(name, files) for name, files in config["matrices"].items()}
    known_inputs = [*DISTRIBUTIONS, "resnet50", *list_workloads(), *config["matrices"]]
    chosen_inputs = _names(config["inputs"], "inputs", known_inputs)
    for name, experiment in config["experiments"].items():  # "all" today may be more tomorrow
        if experiment["measure"] not in WITHOUT_METHOD:
            where = f"experiments.{name}.methods"
            asked = usual if experiment["methods"] == "usual" else experiment["methods"]
            experiment["methods"] = _method_names(asked, where)
    chosen_methods = _method_names(config["methods"], "methods")
    if config["methods"] in ("all", ["all"]):
        every = config["experiments"].values()
        measuring = [e for e in every if e["measure"] not in WITHOUT_METHOD]
        chosen_methods += [method for e in measuring for method in e["methods"]]
    shards = [
        shard
        for name, experiment in config["experiments"].items()
        for shard in _expand(
            name, experiment, config, own_shapes, chosen_methods, chosen_inputs, known_inputs
        )
    ]
    if not shards:
        raise ConfigError("no experiment is left: methods and inputs leave nothing to measure")
    return Study(config["run"], config["device"], tuple(shards), config)


def _check_path(where: str, path: str) -> None:
    """Raise ConfigError for a path that Snakemake would take for another one."""
    found = re.search("<[a-z][a-z0-9_]*>", path)
    if found:
        raise ConfigError(
            f"config: {where} is {path!r}; allowed: a path without {found[0]}, which Snakemake "
            "replaces"
        )


def _check_run_folder(run: str) -> None:
    """Raise ConfigError for a folder whose files Snakemake or the shell would take for others."""
    allowed = "allowed: the path of a folder, in full"
    _check_path("run", run)
    if any(character in "{}" for character in run):
        raise ConfigError(f"config: run is {run!r}; {allowed}, without {{ and }}")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in run):
        raise ConfigError(f"config: run is {run!r}; {allowed}, of characters that can be printed")
    if run.startswith("~"):
        raise ConfigError(f"config: run is {run!r}; {allowed}, without ~")
    if Path(run).is_file():
        raise ConfigError(f"config: run is {run!r}, which is a file; {allowed}")


def validate(config: Config, schema: Config) -> Config:
    """The configuration as it is, or ConfigError in words."""
    _check_keys_are_text(config, "the top")
    jsonschema = _jsonschema()
    base = jsonschema.Draft202012Validator
    whole = base.TYPE_CHECKER.redefine("integer", lambda _, x: type(x) is int)  # 2.0 is none
    validator = jsonschema.validators.extend(base, type_checker=whole)
    errors = list(validator(schema).iter_errors(config))
    if errors:
        raise ConfigError(_explain(jsonschema.exceptions.best_match(errors)))
    return config


def _check_keys_are_text(part: Any, where: str) -> None:
    if isinstance(part, Mapping):
        for key, value in part.items():
            if not isinstance(key, str):
                raise ConfigError(f"config: at {where}: key {key!r} is {_as_read(key)}")
            _check_keys_are_text(value, key if where == "the top" else f"{where}.{key}")
    if isinstance(part, list):
        for number, value in enumerate(part):
            _check_keys_are_text(value, f"{where}.{number}")


def _as_read(value: Any) -> str:
    """What YAML took text for, and what to do about it."""
    kinds = {bool: "yes or no", int: "a number", float: "a number", type(None): "nothing"}
    kind = "a date" if isinstance(value, datetime.date) else kinds.get(type(value), "no text")
    return f"{kind} in YAML; allowed: text, so put quotes around what you wrote"


def _jsonschema() -> Any:
    """The library, without its check of web addresses: their grammar takes seconds to build."""
    grammar = "rfc3987_syntax"  # optional; notebooks bring it along
    hide = grammar not in sys.modules
    if hide:
        sys.modules[grammar] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        import jsonschema
    finally:
        if hide:
            del sys.modules[grammar]
    return jsonschema


def _explain(error: jsonschema.ValidationError) -> str:
    where = ".".join(str(part) for part in error.absolute_path) or "the top"
    if error.validator == "additionalProperties" and error.schema.get("properties"):
        known = sorted(error.schema["properties"])
        wrong = next(key for key in error.instance if key not in known)
        hint = _checks.suggestion(wrong, known)
        return f"config: unknown key {wrong!r} at {where}{hint}; allowed: {', '.join(known)}"
    if error.validator == "enum":
        hint = _checks.suggestion(error.instance, error.validator_value)
        allowed = ", ".join(str(value) for value in error.validator_value)
        return f"config: {where} is {error.instance!r}{hint}; allowed: {allowed}"
    scalar = not isinstance(error.instance, Mapping | list | str)
    wanted = [choice.get("type") for choice in error.schema.get("anyOf", [error.schema])]
    if scalar and wanted in (["string"], ["string", "array"]):
        if error.instance is None:
            return f"config: {where} is empty; allowed: text"
        return f"config: {where} is {error.instance}, {_as_read(error.instance)}"
    about = error.schema.get("description")
    return f"config: at {where}: {error.message}" + (f" ({about})" if about else "")


def _with_defaults(config: Config, schema: Config) -> dict[str, Any]:
    """A copy with the schema's defaults filled in, experiments included."""

    def fill(value: Config, part: Config) -> dict[str, Any]:
        filled = dict(value)
        for key, inner in part.get("properties", {}).items():
            if "default" in inner:
                filled.setdefault(key, inner["default"])
            if inner.get("type") == "object" and isinstance(filled.get(key), Mapping):
                filled[key] = fill(filled[key], inner)
        items = part.get("additionalProperties")
        if isinstance(items, Mapping) and "properties" in items:
            filled = {key: fill(inner, items) for key, inner in filled.items()}
        return filled

    return fill(config, schema)


def _names(asked: Any, key: str, known: Sequence[str]) -> list[str]:
    """The names asked for, in the order known; 'all' is all of them."""
    names = [part.strip() for part in asked.split(",")] if isinstance(asked, str) else list(asked)
    if names == ["all"]:
        return list(known)
    for name in names:
        if name not in known:
            hint = _checks.suggestion(name, known)
            raise ConfigError(
                f"config: {key}: unknown name {name!r}{hint}; allowed: {', '.join(known)}"
            )
    return [name for name in known if name in names]


def _method_names(asked: Any, key: str) -> list[str]:
    """As `_names`, of methods; parts joined by `+` are one too."""
    names = [part.strip() for part in asked.split(",")] if isinstance(asked, str) else list(asked)
    composed = [name for name in names if "+" in name]
    for name in composed:
        try:
            methods.preset(name)
        except ValueError as error:
            raise ConfigError(f"config: {key}: {error}") from None
    rest = [name for name in names if name not in composed]
    return [*_names(rest, key, methods.list_methods()), *composed]


def _expand(
    name: str,
    experiment: Config,
    config: Config,
    own_shapes: Mapping[str, tuple[int, int, int]],
    chosen_methods: Sequence[str],
    chosen_inputs: Sequence[str],
    known_inputs: Sequence[str],
) -> Iterator[Shard]:
    where = f"experiments.{name}"
    if experiment["measure"] == "network":
        yield from _network_shards(name, where, experiment, chosen_methods)
        return
    if "inputs" not in experiment:
        raise ConfigError(
            f"config: {where}: inputs is missing, and {experiment['measure']} needs it"
        )
    wanted = _names(experiment["inputs"], f"{where}.inputs", known_inputs)
    inputs = [
        given
        for source in wanted
        if source in chosen_inputs
        for given in _inputs(where, source, experiment, config, own_shapes)
    ]
    if experiment["measure"] in ARRAYS:
        if experiment["measure"] == "pictures":
            _check_parameter_names(where, experiment, methods.list_methods())
            settings = [
                {"method": method, **setting}
                for method in experiment["methods"]
                if method in chosen_methods
                for setting in _settings(where, method, experiment, inputs)
            ]
        else:
            settings = list(_grid(experiment["settings"]))
            for setting in settings:
                _check_array_setting(where, experiment["measure"], setting)
        if inputs:
            measure = experiment["measure"]
            yield Shard(name, name, measure, "numpy", None, tuple(inputs), tuple(settings))
        return
    if experiment["held_out"] and experiment["measure"] != "error":
        raise ConfigError(f"config: {where}: held_out is true; allowed: with measure: error")
    own = experiment["methods"]
    _names(experiment["baselines"], f"{where}.baselines", methods.list_methods())
    _check_parameter_names(where, experiment, methods.list_methods())
    for method in own:
        if method not in chosen_methods:
            continue
        settings = _settings(where, method, experiment, inputs)
        for library in experiment["libraries"]:
            size = experiment["inputs_per_shard"]
            for number, start in enumerate(range(0, len(inputs), size)):
                timed = experiment["measure"] == "time"
                yield Shard(
                    f"{name}-{method}-{library}-{number}",
                    name,
                    experiment["measure"],
                    library,
                    method,
                    tuple(inputs[start : start + size]),
                    tuple(settings),
                    experiment["samples"] if timed else 0,
                    cost=experiment["cost"],
                    held_out=experiment["held_out"],
                    baselines=tuple(experiment["baselines"]) if timed else (),
                    prepared=tuple(experiment["prepared"]) if timed else (),
                )


def _network_shards(
    name: str, where: str, experiment: Config, chosen_methods: Sequence[str]
) -> Iterator[Shard]:
    """A shard a method: it loads the network once."""
    if "network" not in experiment:
        allowed = ", ".join(NETWORKS)
        raise ConfigError(f"config: {where}: network is missing; allowed: {allowed}")
    if max(experiment["per_gemm"]) > experiment["items"]:
        raise ConfigError(
            f"config: {where}: per_gemm is {max(experiment['per_gemm'])}; "
            f"allowed: up to items = {experiment['items']}"
        )
    for key in ("weights", "data"):
        _check_path(f"{where}.{key}", experiment[key])
    source = experiment["weights"]
    if source != "packaged" and not Path(source).exists():
        raise ConfigError(f"config: {where}: weights is {source!r}, which is not there")
    _check_parameter_names(where, experiment, methods.list_methods())
    for method in experiment["methods"]:
        settings = _settings(where, method, experiment, ())
        if experiment["ranks_within"] is not None:
            _check_ranks_by_layer(where, method, settings)
        if method in chosen_methods:
            yield Shard(
                f"{name}-{method}-torch-0",
                name,
                "network",
                "torch",
                method,
                (),
                tuple(settings),
                network={key: experiment[key] for key in NETWORK_KEYS},
            )


def _check_ranks_by_layer(where: str, method: str, settings: Sequence[Mapping[str, Any]]) -> None:
    if "rank" not in methods.preset(method).defaults:
        every = methods.list_methods()
        ranked = [name for name in every if "rank" in methods.preset(name).defaults]
        raise ConfigError(
            f"config: {where}: ranks_within with method {method}, which has no rank; "
            f"allowed: {', '.join(ranked)}"
        )
    if any("rank" in setting for setting in settings):
        raise ConfigError(f"config: {where}: allowed: one of rank and ranks_within")


def _inputs(
    where: str,
    source: str,
    experiment: Config,
    config: Config,
    own_shapes: Mapping[str, tuple[int, int, int]],
) -> Iterator[Input]:
    folder = (Path(config["run"]).parent / "inputs").as_posix()
    if source == "resnet50":
        pictures = config["resnet50"]["pictures"]
        products = resnet50_products(pictures)
        layers = experiment.get("layers", list(products))
        for layer in _names(layers, f"{where}.layers", list(products)):
            path = f"{folder}/resnet50-{pictures}pictures/{layer}.safetensors"
            yield Input(source, layer, None, *products[layer], path)
    elif source in list_workloads():
        shapes = workload(source).cases
        for case in _names(experiment.get("cases", "all"), f"{where}.cases", list(shapes)):
            for seed in range(experiment["seeds"]):
                path = f"{folder}/{source}/{case}-seed{seed}.safetensors"
                yield Input(source, case, seed, *shapes[case], path)
    elif source in own_shapes:
        path = f"{folder}/matrices/{source}.safetensors"
        yield Input(source, None, None, *own_shapes[source], path)
    else:
        if "sizes" not in experiment:
            raise ConfigError(f"config: {where}: sizes is missing, and {source} needs it")
        for size in experiment["sizes"]:
            m, k, n = (size,) * 3 if isinstance(size, int) else map(int, size.split("x"))
            for seed in range(experiment["seeds"]):
                path = f"{folder}/{source}/{m}x{k}x{n}-seed{seed}.safetensors"
                yield Input(source, None, seed, m, k, n, path)


def _own_shape(source: str, files: Config) -> tuple[int, int, int]:
    for side in "AB":
        _check_path(f"matrices.{source}.{side}", files[side])
    try:
        left, right = matrix_shape(files["A"]), matrix_shape(files["B"])
    except InputError as error:
        raise ConfigError(f"config: matrices.{source}: {error}") from None
    right = right[::-1] if files.get("transpose_B") else right
    if left[1] != right[0]:
        raise ConfigError(
            f"config: matrices.{source}: A is {left[0]} x {left[1]} and B {right[0]} x {right[1]}; "
            "allowed: as many columns in A as rows in B (transpose_B: true for a weight)"
        )
    return left[0], left[1], right[1]


def _settings(
    where: str, method: str, experiment: Config, inputs: Sequence[Input]
) -> list[dict[str, Any]]:
    """The settings of one method: the grid over the parameters that it has, each checked."""
    asked = {**experiment["settings"], **experiment["overrides"].get(method, {})}
    own = methods.preset(method).defaults
    settings = list(_grid({key: value for key, value in asked.items() if key in own}))
    halved = experiment["held_out"] and experiment["measure"] == "error"
    shapes = {(x.m - x.m // 2 if halved else x.m, x.k, x.n) for x in inputs}
    for setting in settings:
        try:
            built = get_method(method, **setting)
            for shape in shapes:
                built.check_shape(*shape)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"config: {where}: method {method}: {error}") from None
    return settings


def _grid(settings: Config) -> Iterator[dict[str, Any]]:
    values = [value if isinstance(value, list) else [value] for value in settings.values()]
    for combination in itertools.product(*values):
        yield dict(zip(settings, combination, strict=True))


def _check_parameter_names(where: str, experiment: Config, known: Sequence[str]) -> None:
    everyones = {key for method in known for key in methods.preset(method).defaults}
    asked = [("settings", experiment["settings"], everyones)]
    for method, settings in experiment["overrides"].items():
        _method_names([method], f"{where}.overrides")
        own = set(methods.preset(method).defaults)
        asked.append((f"overrides.{method}", settings, own))
    for part, settings, allowed in asked:
        try:
            _checks.known("unknown parameter", settings, allowed)
        except TypeError as error:
            raise ConfigError(f"config: {where}.{part}: {error}") from None


def _check_array_setting(where: str, measure: str, setting: dict[str, Any]) -> None:
    setting = dict(setting)
    try:
        if measure == "steps":
            _checks.integer("rank", setting.pop("rank", None), 1, 32)
        own = [field.name for field in fields(Uniform) if not field.name.endswith("_a")]
        _checks.known("unknown parameter", setting, own)
        Uniform(**setting)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"config: {where}.settings: {error}") from None
