"""One place where errors become sentences."""

import logging
import os
import re
import sys
from collections.abc import Callable

DEBUG = "LAG_DETECTOR_DEBUG"

# What Spark and Delta say (a pattern of their text) and what we say: the cause, then the mend.
SENTENCES = {
    r"DELTA_CANNOT_CREATE_LOG_PATH|failed to create its directory|Mkdirs failed|Permission denied"
    r"|AccessControlException|ParentNotDirectoryException|Not a directory|Read-only file system": (
        "the warehouse cannot be written; set VISITS_WAREHOUSE to a folder that is yours to write"
    ),
}


class LagDetectorError(Exception):
    """A problem that the reader can mend; its text is one sentence that says how."""


def run(main: Callable[[], None]) -> int:
    """Run a script's `main` and return its exit code.

    Args:
        main: the script, without arguments.

    Returns:
        0 when it is done, 1 after a problem told in one sentence on standard error,
        130 after Ctrl-C. With `LAG_DETECTOR_DEBUG=1` a problem is raised instead.
    """
    debug = os.environ.get(DEBUG)
    if not debug:
        logging.disable()  # py4j and PySpark log at length what we are going to tell in a sentence
    try:
        main()
    except KeyboardInterrupt:
        print("Stopped before the end; run it again to go on.", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            raise
        print(f"Error: {sentence(error)}.", file=sys.stderr)
        return 1
    return 0


def sentence(error: Exception) -> str:
    """Say in one sentence, without its full stop, what went wrong and what mends it."""
    text = str(error)
    if isinstance(error, LagDetectorError):
        return text
    for pattern, known in SENTENCES.items():
        if re.search(pattern, text):
            return known
    return f"{first_line(text) or type(error).__name__} (run again with {DEBUG}=1 to see where)"


def first_line(text: str) -> str:
    """Cut a Java or Python error down to the line that names its cause."""
    lines = (line.strip().rstrip(".") for line in text.splitlines())
    noise = ("An error occurred while calling", "Traceback")
    return next((line.removeprefix(": ") for line in lines if line and not line.startswith(noise)), "")
