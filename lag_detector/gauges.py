"""Publish a version as a gauge on the Prometheus Pushgateway."""

import os
import time
from collections.abc import Callable
from functools import partial
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit

from prometheus_client import CollectorRegistry, Gauge, delete_from_gateway, push_to_gateway
from prometheus_client.exposition import basic_auth_handler, default_handler

from lag_detector.errors import LagDetectorError

WRITER_VERSION = "visits_writer_version"
READER_VERSION = "visits_reader_version"

# Short waits first, for a gateway that is just starting; with the tries themselves about 30 s in all.
WAITS = (0.5, 1, 2, 4, 8)
TRY_TIMEOUT = 5.0
TIME_LIMIT = 30.0


def publish(gauge: str, version: int, help_text: str) -> None:
    """Push a version to the Pushgateway, in a group of the gauge's own name; it replaces what was there.

    Args:
        gauge: the gauge's name, and the group's (`job`).
        version: the version of the Delta table.
        help_text: what the number says, for those who meet it on the Pushgateway.

    Raises:
        LagDetectorError: the gateway did not take it; nothing was changed there.
    """
    registry = CollectorRegistry()
    Gauge(gauge, help_text, registry=registry).set(version)
    address = _send(
        partial(push_to_gateway, job=gauge, registry=registry),
        f"{gauge} {version} was not delivered; what is in the table stays, and the next run pushes the right version",
    )
    print(f"{gauge} {version} pushed to {address}")


def forget(gauge: str) -> None:
    """Remove a gauge from the Pushgateway, which keeps it for good otherwise.

    Args:
        gauge: the gauge's name, and the group's (`job`).

    Raises:
        LagDetectorError: the gateway did not do it.
    """
    _send(
        partial(delete_from_gateway, job=gauge),
        f"{gauge} of the earlier round was not removed, and nothing else was changed",
    )


def _gateway() -> tuple[str, Callable[..., Callable[[], None]]]:
    """Read `PUSHGATEWAY_URL`: the gateway's address without user and password, and the way to log in there."""
    url = urlsplit(os.environ.get("PUSHGATEWAY_URL") or "http://localhost:9091")
    try:
        fits = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise LagDetectorError("PUSHGATEWAY_URL is not of the form http://host:port or https://user:password@host:port")
    address = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl().rstrip("/")
    if url.username is None:
        return address, default_handler
    login = partial(basic_auth_handler, username=unquote(url.username), password=unquote(url.password or ""))
    return address, login


def _send(request: Callable[..., None], consequence: str) -> str:
    """Send a request until it succeeds, the gateway refuses for good (4xx), or the time is over.

    Returns:
        the gateway's address, without user and password.
    """
    address, handler = _gateway()
    end = time.monotonic() + TIME_LIMIT
    for wait in (*WAITS, None):
        try:
            request(address, timeout=min(TRY_TIMEOUT, max(end - time.monotonic(), 0.1)), handler=handler)
            break
        except (OSError, HTTPException) as error:
            refused = isinstance(error, HTTPError) and error.code < 500
            if refused or wait is None or time.monotonic() + wait > end:
                raise LagDetectorError(
                    f"the Pushgateway at {address} did not take it ({_reason(error)}): {consequence}; "
                    "check that it runs (docker compose up -d --wait) and that PUSHGATEWAY_URL is its address"
                ) from error
            time.sleep(wait)
    return address


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"it answered {error.code} {error.reason}"
    cause = getattr(error, "reason", error)
    return str(getattr(cause, "strerror", None) or cause).lower()
