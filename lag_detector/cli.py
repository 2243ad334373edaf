"""How a script ends: its exit code, one sentence for what went wrong, no traceback.

Importing this module makes Ctrl-C quiet, also while Spark is still being imported: only programs do it, first of all.
"""

import logging
import os
import signal
import socketserver
import sys
from collections.abc import Callable
from types import TracebackType

from lag_detector.errors import DEBUG, LagDetectorError
from lag_detector.sentences import sentence

STOPPED = "Stopped before the end; run it again to go on."
CTRL_C = 130
PACKAGES = ("pyspark", "delta", "prometheus_client")


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
        # What we are going to tell in a sentence, py4j and PySpark tell at length, the latter through its server.
        logging.disable()
        socketserver.BaseServer.handle_error = lambda *_: None  # type: ignore[method-assign]
    try:
        main()
        return 0
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return CTRL_C
    except Exception as error:
        if debug:
            raise
        print(f"Error: {sentence(error)}.", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left is Python's own clean-up


def option(name: str) -> bool:
    """Tell whether a script was started with its one option.

    Raises:
        LagDetectorError: it was started with something else.
    """
    arguments = sys.argv[1:]
    if arguments not in ([], [name]):
        raise LagDetectorError(f"{sys.argv[0]} takes {name} or nothing, and not {' '.join(arguments)}")
    return bool(arguments)


def tell(line: str) -> None:
    """Print a line on standard error: standard output has results only."""
    print(line, file=sys.stderr)


def _end_quietly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """End a program that met Ctrl-C, or a package that is not installed, outside `run`; else do as Python does."""
    if isinstance(error, KeyboardInterrupt):
        told, code = STOPPED, CTRL_C
    elif isinstance(error, ModuleNotFoundError) and error.name in PACKAGES:
        told, code = f"Error: {error.name} is not installed here; run make setup, then source .venv/bin/activate.", 1
    else:
        sys.__excepthook__(kind, error, trace)
        return
    print(told, file=sys.stderr, flush=True)
    os._exit(code)


sys.excepthook = _end_quietly
