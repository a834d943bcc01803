"""A sample of `make fuzz`: other cases in every run."""

import secrets

from fuzz import run


def test_mutated_files_are_read_or_refused():
    start = secrets.randbelow(10**6)
    outcomes, wrong, _ = run(60, start)
    assert not wrong, f"from case {start}: {wrong}"
    assert sum(outcomes.values()) == 60
