"""Configurations as they are written: in files, and as KEY=VALUE on a command line."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from lrqmm import _checks

Config = Mapping[str, Any]


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the key, its value, what is allowed."""


@contextmanager
def at_place(where: str) -> Iterator[None]:
    """Make a ValueError or TypeError of the block a ConfigError that says where."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise ConfigError(f"config: {where}: {error}") from None


class _Loader(yaml.SafeLoader):
    """YAML's own, but a key that stands twice in one mapping is an error."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line = key.start_mark.line + 1
            if (key.tag, key.value) in lines:
                first = lines[key.tag, key.value]
                where = f"line {line}" if first == line else f"lines {first} and {line}"
                raise ConfigError(f"key {key.value!r} stands twice, in {where}; allowed: once")
            lines[key.tag, key.value] = line
        return node


def read_yaml(text: str) -> Any:
    """What a YAML text says; yaml.YAMLError where it is none, and ConfigError, which gives the
    lines, where a key stands twice in one mapping."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def check_keys(path: str | Path) -> None:
    """Raise ConfigError where a key stands twice in one mapping of a YAML or JSON file.

    Snakemake reads the file itself, and keeps the last of them without a word.
    """
    text = Path(path).read_text(encoding="utf-8")
    with at_place(str(path)):
        try:
            json.loads(text, object_pairs_hook=_once)
        except json.JSONDecodeError:
            yaml.compose(text, _Loader)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"key {key!r} stands twice; allowed: once")
    return dict(pairs)


def as_typed(config: Config, typed: Sequence[str], schema: Config) -> Config:
    """The configuration, with what was typed for single keys (KEY=VALUE, a later one above an
    earlier one) read as in a file; ConfigError where a key stands twice in one mapping of a value.

    Snakemake takes `run=007` for the number 7, and every number in braces for text. Here the words
    stand as they were typed where the schema wants text, and are YAML elsewhere.
    """
    for word in typed:
        key, _, text = word.partition("=")
        with at_place(key):
            value = _value(text, schema, schema["properties"].get(key, {}))
        config = _merged(config, {key: value})
    return config


def _value(text: str, schema: Config, part: Config) -> Any:
    part = schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
    kinds = {choice.get("type") for choice in part.get("oneOf", [part])}
    takes_text = "string" in kinds or "enum" in part
    if not text:
        return None
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    if takes_text and "array" not in kinds and not quoted:
        return text
    try:
        value = read_yaml(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, str | list) or not takes_text else text


def _merged(config: Config, typed: Config) -> dict[str, Any]:
    merged = dict(config)
    for key, value in typed.items():
        before = merged.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            value = _merged(before, value)
        merged[key] = value
    return merged


def choose(choice: Any, key: str, allowed: Sequence[str]) -> list[str]:
    """The names asked for, as `split` takes them, in the order known; 'all' is all of them.

    `key` says where they stand, in the message of ConfigError for one that is not known.
    """
    names = split(choice)
    if names == ["all"]:
        return list(allowed)
    for name in names:
        if name not in allowed:
            hint = _checks.suggestion(name, allowed)
            raise ConfigError(
                f"config: {key}: unknown name {name!r}{hint}; allowed: {', '.join(allowed)}"
            )
    return [name for name in allowed if name in names]


def split(names: str | Sequence[str]) -> list[str]:
    """Names, of a list or of text with commas between them."""
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)


def check_path(where: str, path: str) -> None:
    """Raise ConfigError for a path that Snakemake would take for another one."""
    if replaced := re.search("<[a-z][a-z0-9_]*>", path):
        raise ConfigError(
            f"config: {where} is {path!r}; allowed: a path without {replaced[0]}, which Snakemake "
            "replaces"
        )
