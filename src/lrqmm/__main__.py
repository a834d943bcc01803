"""The program `lrqmm`, also as `python -m lrqmm`."""

import sys

from lrqmm._extras import needs_extra


def main() -> None:
    """Run the command line, or say in one line what it needs."""
    try:
        needs_extra("the command lrqmm", "bench")
    except ImportError as error:
        sys.exit(f"error: {error}")
    from lrqmm.cli import app

    app(prog_name="lrqmm")


if __name__ == "__main__":
    main()
