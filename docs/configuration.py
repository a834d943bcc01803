"""The tables in config/README.md: the keys of a configuration, from the models that check them.

`make keys` writes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic.fields import FieldInfo

from lrqmm.bench.keys import Keys
from lrqmm.bench.measures import MEASURES
from lrqmm.bench.sources import Workload, list_sources
from lrqmm.bench.sources.distributions import DISTRIBUTIONS
from lrqmm.bench.study import Configuration, Matrices

PAGE = Path(__file__).parent.parent / "config/README.md"
TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def page(text: str) -> str:
    """The page with each of its tables written anew."""
    tables = {"top": top(), "measures": measures(), "experiment": experiment(), "inputs": inputs()}
    return TABLE.sub(lambda match: f"{match[1]}\n{tables[match[2]]}\n\n{match[3]}", text)


def top() -> str:
    """Keys at the top."""
    rows = list(_rows(Configuration))
    at = next(i for i, row in enumerate(rows) if row[0] == "`matrices`") + 1
    rows[at:at] = _rows(Matrices, "matrices.NAME.")
    return _table(("key", "default", "meaning"), rows)


def measures() -> str:
    """Kinds of measurement."""
    rows = []
    for name in MEASURES.names():
        kind = MEASURES.get(name)
        place = "the machine, alone" if kind.alone else "a core"
        rows.append((f"`{name}`", " ".join(str(kind.__doc__).split()), f"`{kind.table}/`", place))
    return _table(("measure", "what is measured", "rows in", "a shard takes"), rows)


def experiment() -> str:
    """Keys of an experiment, those that most kinds of measurement know first."""
    known: dict[tuple[str, ...], list[str]] = {}
    for name in MEASURES.names():
        for row in _rows(MEASURES.get(name)):
            known.setdefault(row, []).append(name)
    rows = []
    for (key, default, meaning), names in sorted(known.items(), key=lambda item: -len(item[1])):
        of = "all" if len(names) == len(MEASURES.names()) else ", ".join(names)
        rows.append((key, of, default, meaning))
    return _table(("key", "of measure", "default", "meaning"), rows)


def inputs() -> str:
    """What `inputs` may hold beside the user's own matrices."""
    workloads = [source.name for source in list_sources() if isinstance(source, Workload)]
    lists = {"Distributions": DISTRIBUTIONS, "Workloads": workloads}
    lines = (
        f"{kind}: {', '.join(f'`{name}`' for name in names)}." for kind, names in lists.items()
    )
    return "\n\n".join(lines)


def _rows(model: type[Keys], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    for key, field in model.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, Keys):
            yield from _rows(part, f"{prefix}{key}.")
        else:
            meaning = " ".join(str(field.description).split())
            yield f"`{prefix}{key}`", _default(field), meaning


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default in ([], {}, None):
        return ""
    value = field.default
    text = value if isinstance(value, str) else json.dumps(value).replace('"', "")
    return f"`{text}`"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
