"""Lines on standard error. Standard output is for results."""

import sys


def progress(line: str) -> None:
    """Print a line on standard error."""
    print(line, file=sys.stderr)
