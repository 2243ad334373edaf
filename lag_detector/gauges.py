"""Publish a version as a gauge on the Prometheus Pushgateway."""

import os
import time
from collections.abc import Callable
from functools import partial
from http.client import HTTPException
from queue import Empty, SimpleQueue
from threading import Thread
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit

from lag_detector.errors import LagDetectorError

from prometheus_client import CollectorRegistry, Gauge, delete_from_gateway, push_to_gateway
from prometheus_client.exposition import basic_auth_handler, default_handler

WRITER_VERSION = "visits_writer_version"
READER_VERSION = "visits_reader_version"

# Short waits first, for a gateway that is just starting; with the tries themselves about 30 s in all.
WAITS = (0.5, 1, 2, 4, 8)
TRY_TIMEOUT = 5.0
TIME_LIMIT = 30.0


class Pushgateway(NamedTuple):
    """Where gauges are pushed: the address without user and password, and the handler that logs in there."""

    address: str
    handler: Callable[..., Callable[[], None]]


def pushgateway() -> Pushgateway:
    """Read where to push from `PUSHGATEWAY_URL`; `http://localhost:9091` without it.

    Raises:
        LagDetectorError: the setting is no address.
    """
    url = urlsplit(os.environ.get("PUSHGATEWAY_URL") or "http://localhost:9091")
    try:
        fits = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise LagDetectorError("PUSHGATEWAY_URL is not of the form http://host:port or https://user:password@host:port")
    if url.hostname in ("localhost", "127.0.0.1", "::1"):
        os.environ["no_proxy"] = url.hostname  # a proxy would look for it on a machine of its own
    address = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl().rstrip("/")
    if url.username is None:
        return Pushgateway(address, default_handler)
    login = partial(basic_auth_handler, username=unquote(url.username), password=unquote(url.password or ""))
    return Pushgateway(address, login)


def publish(gateway: Pushgateway, gauge: str, version: int, help_text: str) -> None:
    """Push a version to the Pushgateway, in a group of the gauge's own name; it replaces what was there.

    Args:
        gateway: where to.
        gauge: the gauge's name, and the group's (`job`).
        version: the version of the Delta table.
        help_text: what the number says, for those who meet it on the Pushgateway.

    Raises:
        LagDetectorError: the gateway did not take it; nothing was changed there.
    """
    registry = CollectorRegistry()
    Gauge(gauge, help_text, registry=registry).set(version)
    _send(
        gateway,
        partial(push_to_gateway, job=gauge, registry=registry),
        f"{gauge} {version} was not delivered; what is in the table stays, and the next run pushes the right version",
    )
    print(f"{gauge} {version} pushed to {gateway.address}")


def forget(gateway: Pushgateway, gauge: str) -> None:
    """Remove a gauge from the Pushgateway, which keeps it for good otherwise.

    Args:
        gateway: where from.
        gauge: the gauge's name, and the group's (`job`).

    Raises:
        LagDetectorError: the gateway did not do it.
    """
    _send(
        gateway,
        partial(delete_from_gateway, job=gauge),
        f"{gauge} of the earlier round was not removed, and nothing else was changed",
    )


def _send(gateway: Pushgateway, request: Callable[..., None], consequence: str) -> None:
    """Send a request until it succeeds, the gateway refuses for good (4xx), or the time is over."""
    end = time.monotonic() + TIME_LIMIT
    for wait in (*WAITS, None):
        seconds = min(TRY_TIMEOUT, max(end - time.monotonic(), 0.1))
        error = _try(partial(request, gateway.address, timeout=seconds, handler=gateway.handler), seconds)
        if error is None:
            return
        refused = isinstance(error, HTTPError) and error.code < 500
        if refused or wait is None or time.monotonic() + wait > end:
            raise LagDetectorError(
                f"the Pushgateway at {gateway.address} did not take it ({_reason(error)}): {consequence}; "
                "check that it runs (docker compose up -d --wait) and that PUSHGATEWAY_URL is its address"
            ) from error
        time.sleep(wait)


def _try(request: Callable[[], None], seconds: float) -> Exception | None:
    """Make a request and return how it failed, if it did, after `seconds` at most.

    In a thread of its own, since a socket's timeout begins anew with every byte and a name's look-up has none.
    """
    outcome: SimpleQueue[Exception | None] = SimpleQueue()

    def work() -> None:
        try:
            request()
            outcome.put(None)
        except (OSError, HTTPException) as error:
            outcome.put(error)

    Thread(target=work, daemon=True).start()
    try:
        return outcome.get(timeout=seconds + 0.1)  # the socket's own timeout first, it says more
    except Empty:
        return TimeoutError("timed out")


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"it answered {error.code} {error.reason}".rstrip()
    cause = getattr(error, "reason", error)
    return str(getattr(cause, "strerror", None) or cause).lower()
