"""Who imports whom, from the sources: no circle, and wings as the documentation draws them."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src/lrqmm"
PAGE = ROOT / "docs/explanation/architecture.md"
COMMANDS = ("__main__", "cli", "describe", "doctor")
LIBRARY = ("advice",)
FILES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


@cache
def imports(module):
    """The modules of the package that one names in imports, those inside functions included."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            whole = (".".join(parts[:end]) for end in (len(parts), len(parts) - 1))
            found |= {next((module for module in whole if module in FILES), module)}
    return found - {module}


def wing(module):
    parts = module.split(".")[1:]
    if not parts or parts[0] in LIBRARY:
        return "library"
    if parts[0] in COMMANDS:
        return "commands"
    if (PACKAGE / parts[0]).is_dir():
        return parts[0]
    return "ground" if parts[0].startswith("_") else "door"


def circles():
    """Groups of modules that reach one another."""
    reach = {module: {module} for module in FILES}
    changed = True
    while changed:
        changed = False
        for module in FILES:
            wider = reach[module].union(*(reach[other] for other in imports(module)))
            changed |= wider != reach[module]
            reach[module] = wider
    pairs = {
        frozenset((one, other))
        for one in FILES
        for other in reach[one] - {one}
        if one in reach[other]
    }
    return sorted(tuple(sorted(pair)) for pair in pairs)


def allowed():
    """What each wing may import, as the documentation's page says."""
    rows = re.findall(r"^\| `(\w+)` \| .+? \| ([\w, ]*)\|$", PAGE.read_text(), re.MULTILINE)
    return {name: {part.strip() for part in others.split(",")} - {""} for name, others in rows}


def test_no_file_imports_in_a_circle():
    assert circles() == []


@pytest.mark.parametrize("module", FILES)
def test_a_wing_imports_only_what_the_page_allows(module):
    place, table = wing(module), allowed()
    others = {wing(other) for other in imports(module)} - {place}
    assert place in table
    assert table[place] == {"everything"} or others <= table[place], imports(module)


def test_the_page_draws_no_arrow_that_is_not_there():
    used = {(wing(one), wing(other)) for one in FILES for other in imports(one)}
    for place, others in allowed().items():
        for other in others - {"everything"}:
            assert (place, other) in used, f"{place} imports nothing of {other}"


def test_the_page_fits_a_screen():
    assert len(PAGE.read_text().splitlines()) <= 45
