"""The keys of a configuration as pydantic models, and what is said of a wrong key or value."""

import datetime
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from lrqmm import _checks
from lrqmm.bench.configuration import ConfigError


class Keys(BaseModel):
    """A part of a configuration: its keys are the fields, and any other key is an error."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _know_keys(cls, part: Any) -> Any:
        for key in part if isinstance(part, Mapping) else ():
            if key not in cls.model_fields:
                hint, allowed = cls.instead_of(key)
                context = {"key": key, "hint": hint, "allowed": allowed}
                raise PydanticCustomError("unknown_key", "{key}", context)
        return part

    @classmethod
    def instead_of(cls, key: str) -> tuple[str, str]:
        """Of a key that is not known: a hint, and what is allowed."""
        names = sorted(cls.model_fields)
        return _checks.suggestion(key, names), ", ".join(names)


def _wrong(message: str) -> PydanticCustomError:
    return PydanticCustomError("wrong", "{message}", {"message": message})


def _scalar(value: Any) -> Any:
    if type(value) not in (int, str, type(None)):
        raise _wrong(f"{value!r} is no integer, text or null")
    return value


def _size(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch("[1-9][0-9]*(x[1-9][0-9]*){2}", value):
        return value
    if type(value) is not int or value < 1:
        raise _wrong(f"{value!r} is no size: an integer of at least 1, or MxKxN")
    return value


def one_of(names: Callable[[], Sequence[str]]) -> BeforeValidator:
    """A value that is one of the names that there are when it is read."""

    def check(value: Any) -> Any:
        if value not in names():
            expected = ", ".join(map(repr, names()))
            raise PydanticCustomError("literal_error", "{expected}", {"expected": expected})
        return value

    return BeforeValidator(check)


def _unique(values: list[Any]) -> list[Any]:
    if len({(type(value), value) for value in values}) < len(values):
        raise _wrong(f"{values} has non-unique elements")
    return values


def _form(value: Any) -> str:
    return "list" if isinstance(value, list) else "single"


Unique = AfterValidator(_unique)
Text = Annotated[str, Field(min_length=1)]
Names = Annotated[
    Annotated[Text, Tag("single")] | Annotated[list[str], Field(min_length=1), Tag("list")],
    Discriminator(_form),
]
"""'all', words with commas between, or a list."""
Size = Annotated[int | str, BeforeValidator(_size)]
"""n for n x n x n, or 'MxKxN'."""
Scalar = Annotated[int | str | None, BeforeValidator(_scalar)]
Values = Annotated[
    Annotated[Scalar, Tag("single")]
    | Annotated[list[Scalar], Field(min_length=1), Unique, Tag("list")],
    Discriminator(_form),
]
Settings = dict[str, Values]
"""Parameters of methods; a list is tried value by value."""
Grids = Annotated[
    Annotated[Settings, Tag("single")]
    | Annotated[list[Settings], Field(min_length=1), Tag("list")],
    Discriminator(_form),
]
"""Settings, or a list of several."""

K = TypeVar("K", bound=Keys)


def read(model: type[K], part: Any, at: Sequence[str] = ()) -> K:
    """A part of a configuration, to which the keys `at` lead, as its model; ConfigError names a
    wrong key, its value and what is allowed."""
    try:
        return model.model_validate(part)
    except ValidationError as error:
        errors = [(_path(entry["loc"], part), entry) for entry in error.errors()]
        path, first = min(errors, key=lambda error: len(error[0]))
        where = ".".join([*at, *path]) or "the top"
        raise ConfigError(f"config: {_explain(first, where, model)}") from None


def _path(location: Iterable[int | str], part: Any) -> list[str]:
    """The keys and numbers that lead through the data: a location also holds tags of unions."""
    path = []
    for step in location:
        inside = step in part if isinstance(part, Mapping) else isinstance(part, list)
        if inside and (isinstance(part, Mapping) or isinstance(step, int)):
            part = part[step]
            path.append(str(step))
    return path


SAID = {
    "missing": "{key!r} is a required property",
    "greater_than_equal": "{value!r} is less than the minimum of {ge}",
    "less_than_equal": "{value!r} is greater than the maximum of {le}",
    "greater_than": "{value!r} is not greater than {gt}",
    "too_short": "{value!r} should be non-empty",
    "string_too_short": "{value!r} should be non-empty",
    "string_pattern_mismatch": "{value!r} does not match {pattern!r}",
}
"""What is said of a value, by pydantic's name of the error; its own words elsewhere."""
NOUNS = {
    "string": "text",
    "dict": "mapping",
    "model": "mapping",
    "int": "integer",
    "float": "number",
}
"""A configuration's words for types, where they are not pydantic's."""


def _explain(error: ErrorDetails, where: str, model: type[Keys]) -> str:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "unknown_key":
        message = "unknown key {key!r} at {where}{hint}; allowed: {allowed}"
        return message.format(where=where, **context)
    if kind == "literal_error":
        allowed = re.findall("'([^']*)'", context["expected"])
        hint = _checks.suggestion(value, allowed)
        return f"{where} is {value!r}{hint}; allowed: {', '.join(allowed)}"
    if kind == "string_unicode":
        return f"{where} is {value!r}; allowed: text of characters that can be printed"
    if kind == "string_type" and value is None:
        return f"{where} is empty; allowed: text"
    if kind == "string_type" and not isinstance(value, Mapping | list):
        return f"{where} is {value}, {as_read(value)}"
    message = error["msg"]
    if kind in SAID:
        message = SAID[kind].format(value=value, key=error["loc"][-1], **context)
    elif kind.endswith("_type"):
        noun = kind.removesuffix("_type")
        message = f"{value!r} is no {NOUNS.get(noun, noun)}"
    description = _description(model, error["loc"])
    return f"at {where}: {message}" + (f" ({description.rstrip('.')})" if description else "")


def _description(model: type[Keys], location: Sequence[int | str]) -> str | None:
    field = model.model_fields.get(str(location[0])) if location else None
    if field and isinstance(field.annotation, type) and issubclass(field.annotation, Keys):
        return _description(field.annotation, location[1:])
    return field.description if field else None


def check_keys_are_text(part: Any, where: str = "the top") -> None:
    """Raise ConfigError for a key that YAML read as something else than text."""
    if isinstance(part, Mapping):
        for key, value in part.items():
            if not isinstance(key, str):
                raise ConfigError(f"config: at {where}: key {key!r} is {as_read(key)}")
            check_keys_are_text(value, key if where == "the top" else f"{where}.{key}")
    if isinstance(part, list):
        for number, value in enumerate(part):
            check_keys_are_text(value, f"{where}.{number}")


def as_read(value: Any) -> str:
    """What YAML took text for, and what to do about it."""
    kinds = {bool: "yes or no", int: "a number", float: "a number", type(None): "nothing"}
    kind = "a date" if isinstance(value, datetime.date) else kinds.get(type(value), "no text")
    return f"{kind} in YAML; allowed: text, so put quotes around what you wrote"
