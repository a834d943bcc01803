"""How far a long piece of work has come, for whoever shows it."""

from collections.abc import Callable

Report = Callable[[str, float], None]
"""Called with what is being done, and the share of all of it that is done, 0 to 1."""


def silent(task: str, share: float) -> None:
    """Nobody asked."""
