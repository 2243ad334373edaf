"""How a script ends: its exit code, and one sentence instead of a traceback.

Import this module first. It makes Ctrl-C and a missing package quiet while the others are imported, so it imports
nothing outside the standard library itself.
"""

import logging
import os
import signal
import socketserver
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NoReturn

from fast_spark.console import progress as progress

STOPPED = "Stopped before the end; run it again to continue."
CTRL_C = 130
PACKAGES = ("pyspark", "delta", "prometheus_client")


def run(main: Callable[..., None], **arguments: str) -> NoReturn:
    """Run a script's `main` and exit: 0 when it is done, 1 after an error, 130 after Ctrl-C.

    An error becomes one sentence on standard error; with `LAG_DETECTOR_DEBUG=1` it keeps its traceback.

    Args:
        main: the script. It is called with the command line's arguments.
        arguments: their names, and what `--help` says about each.
    """
    sys.exit(_exit_code(main, arguments))


@contextmanager
def on_stop_signal(stop: Callable[..., None]) -> Iterator[None]:
    """Call `stop` on the first Ctrl-C or SIGTERM in the `with` block. The second one ends the process at once."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(*_: object) -> None:
        stop()
        restore()

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()


def _exit_code(main: Callable[..., None], arguments: dict[str, str]) -> int:
    from tutorial.error_messages import error_message  # here, because it imports packages that may be missing

    from fast_spark.environment import debug

    if not debug():
        # py4j and PySpark log at length what becomes one sentence here; PySpark also through its server.
        logging.disable()
        socketserver.BaseServer.handle_error = lambda *_: None  # type: ignore[method-assign]
    try:
        main(**_parse(arguments))
        return 0
    except KeyboardInterrupt:
        progress(STOPPED)
        return CTRL_C
    except Exception as error:
        if debug():
            raise
        progress(f"Error: {error_message(error)}.")
        return 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # only Python's own clean-up is left


def _parse(arguments: dict[str, str]) -> dict[str, str]:
    from lag_detector.errors import LagDetectorError

    class Parser(ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise LagDetectorError(f"{message}; {self.prog} --help shows the usage")

    program = sys.modules["__main__"]
    module = program.__spec__.name.removesuffix(".__main__") if program.__spec__ else None
    parser = Parser(
        prog=f"python -m {module}" if module else None,
        description=program.__doc__,
        formatter_class=RawDescriptionHelpFormatter,
    )
    for name, description in arguments.items():
        parser.add_argument(name, help=description)
    return vars(parser.parse_args())


def _end_quietly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Handle Ctrl-C and a missing package outside `run`, and leave all else to Python."""
    if isinstance(error, KeyboardInterrupt):
        message, code = STOPPED, CTRL_C
    elif isinstance(error, ModuleNotFoundError) and error.name in PACKAGES:
        message, code = f"Error: {error.name} is not installed; run make setup, then source .venv/bin/activate.", 1
    else:
        sys.__excepthook__(kind, error, trace)
        return
    print(message, file=sys.stderr, flush=True)
    os._exit(code)


sys.excepthook = _end_quietly
