"""Tables and findings as pages of HTML that need no other file."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Section:
    """A heading, sentences below it, and a table whose first column names its rows."""

    heading: str
    text: str
    table: pd.DataFrame | None = None


@dataclass(frozen=True)
class Page:
    """Sections below a title."""

    title: str
    sections: Sequence[Section]


def text(content: pd.DataFrame | Page) -> str:
    """The whole page; a table's title is in its `attrs`."""
    if isinstance(content, Page):
        parts = [f"<section>{_section(section)}</section>" for section in content.sections]
        title, body = content.title, "\n".join(parts)
    else:
        title, body = str(content.attrs.get("title", "")), _table(content)
    title = html.escape(title)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><style>
:root {{ color-scheme: light dark; }}
body {{ font: 14px/1.45 system-ui, sans-serif; margin: 1.5em; background: Canvas;
  color: CanvasText; }}
h1 {{ font-size: 1.3em; }}
h2 {{ font-size: 1.1em; margin-top: 2em; }}
p {{ max-width: 50em; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25em .7em; text-align: left; vertical-align: top;
  border-bottom: 1px solid color-mix(in srgb, CanvasText 20%, Canvas); }}
thead th {{ position: sticky; top: 0; background: Canvas; vertical-align: bottom;
  border-bottom: 2px solid color-mix(in srgb, CanvasText 60%, Canvas); }}
tbody th {{ font-weight: normal; }}
tbody tr:hover {{ background: color-mix(in srgb, CanvasText 7%, Canvas); }}
</style></head><body><main><h1>{title}</h1>
{body}
</main></body></html>
"""


def _section(section: Section) -> str:
    table = "" if section.table is None else _table(section.table)
    return f"<h2>{html.escape(section.heading)}</h2><p>{html.escape(section.text)}</p>{table}"


def _table(frame: pd.DataFrame) -> str:
    head = "".join(f'<th scope="col">{html.escape(str(name))}</th>' for name in frame)
    rows = []
    for row in frame.astype(object).where(frame.notna(), "").itertuples(index=False, name=None):
        texts = (f"{value:.3g}" if isinstance(value, float) else str(value) for value in row)
        first, *others = map(html.escape, texts)
        cells = "".join(f"<td>{value}</td>" for value in others)
        rows.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>\n" + "\n".join(rows) + "\n</tbody></table>"
    )
