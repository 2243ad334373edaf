"""Lines on standard error. Standard output is for results."""

import sys


class SparkStartError(Exception):
    """Spark cannot start. The message is one sentence that says why and how to fix it."""


def progress(line: str) -> None:
    """Print a line on standard error."""
    print(line, file=sys.stderr)
