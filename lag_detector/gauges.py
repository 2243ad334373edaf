"""Publish versions as gauges on the Prometheus Pushgateway, and remove them."""

import json
import os
import time
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer
from http.client import HTTPException
from threading import Thread
from typing import Any, NamedTuple, TypeVar
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from lag_detector.consumers import of_consumer
from lag_detector.errors import LagDetectorError

from prometheus_client import CollectorRegistry, Gauge, delete_from_gateway, push_to_gateway
from prometheus_client.exposition import default_handler

WRITER_VERSION = "visits_writer_version"
READER_VERSION = "visits_reader_version"

# Short waits first, for a gateway that is just starting; with the tries themselves about 30 s in all.
WAITS = (0.5, 1, 2, 4, 8)
TRY_TIMEOUT = 5.0
TIME_LIMIT = 30.0

T = TypeVar("T")


class Pushgateway(NamedTuple):
    """Where gauges are pushed: the address without user and password, and the headers that log in there."""

    address: str
    login: tuple[tuple[str, str], ...] = ()

    def handler(self, url: str, method: str, timeout: float | None, headers: Any, data: bytes) -> Callable[[], None]:
        """Log in, for the Prometheus client."""
        return default_handler(url, method, timeout, [*headers, *self.login], data)


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
        return Pushgateway(address)
    user = f"{unquote(url.username)}:{unquote(url.password or '')}"
    return Pushgateway(address, (("Authorization", f"Basic {b64encode(user.encode()).decode()}"),))


def publish(gateway: Pushgateway, gauge: str, version: int, committed: float | None = None, consumer: str = "") -> None:
    """Push a version to the Pushgateway, print that, and try for 30 seconds; it replaces what was there.

    Args:
        gateway: where to.
        gauge: the gauge's name; the commit's time has the same and `_timestamp_seconds`.
        version: the version of the Delta table.
        committed: when that version was committed, Unix time in seconds; None while it is unknown.
        consumer: the name of a further consumer, whose gauges have a group (`job`) of their own.

    Raises:
        LagDetectorError: the gateway did not take it, and nothing was changed there; or the consumer's name is none.
        ValueError: Prometheus allows no gauge with that name.
    """
    print(push(gateway, gauge, version, committed, consumer, waits=WAITS), flush=True)


def push(
    gateway: Pushgateway,
    gauge: str,
    version: int,
    committed: float | None = None,
    consumer: str = "",
    waits: tuple[float, ...] = (),
) -> str:
    """Do as `publish` does, but try once only unless `waits` has seconds to wait before further tries.

    Returns:
        what was pushed, in words.
    """
    registry = CollectorRegistry()
    Gauge(gauge, "Last version of a Delta table that was written or read completely", registry=registry).set(version)
    if committed is not None:
        name = f"{gauge}_timestamp_seconds"
        Gauge(name, "When that version was committed, in Unix time", registry=registry).set(committed)
    job = of_consumer(gauge, consumer)
    _send(
        gateway,
        lambda seconds: push_to_gateway(gateway.address, job, registry, timeout=seconds, handler=gateway.handler),
        f"{job} {version} was not delivered; what is in the table stays, and the next run pushes the right version",
        waits,
    )
    return f"{job} {version} pushed to {gateway.address}"


def forget(gateway: Pushgateway, gauge: str) -> None:
    """Remove a gauge of all consumers from the Pushgateway, which keeps it for good otherwise.

    Args:
        gateway: where from.
        gauge: the gauge's name.

    Raises:
        LagDetectorError: the gateway did not do it.
    """
    for job in jobs(gateway, gauge):
        remove(gateway, job)


def remove(gateway: Pushgateway, job: str) -> None:
    """Remove the gauges of one group from the Pushgateway.

    Args:
        gateway: where from.
        job: the name of the group.

    Raises:
        LagDetectorError: the gateway did not do it.
    """
    _send(
        gateway,
        lambda seconds: delete_from_gateway(gateway.address, job, timeout=seconds, handler=gateway.handler),
        f"{job} was not removed",
        WAITS,
    )


def jobs(gateway: Pushgateway, gauge: str) -> list[str]:
    """List the groups that a gauge is pushed in: one for each consumer.

    Args:
        gateway: where to look.
        gauge: the gauge's name.

    Raises:
        LagDetectorError: the gateway did not tell.
    """
    request = Request(f"{gateway.address}/api/v1/metrics", headers=dict(gateway.login))

    def ask(seconds: float) -> list[dict[str, Any]]:
        with urlopen(request, timeout=seconds) as answer:
            groups: list[dict[str, Any]] = json.load(answer)["data"]
            return groups

    groups = _send(gateway, ask, f"it did not tell who pushes {gauge}, and nothing was changed", WAITS)
    names = [group["labels"]["job"] for group in groups if set(group["labels"]) == {"job"}]
    return [name for name in names if name == gauge or name.startswith(f"{gauge}_")]


def _send(gateway: Pushgateway, request: Callable[[float], T], consequence: str, waits: tuple[float, ...]) -> T:
    """Send a request until it succeeds, the gateway refuses for good (4xx), or the time is over.

    Args:
        gateway: where to.
        request: what to do within so many seconds.
        consequence: what it means that it was not done.
        waits: seconds before each further try.
    """
    end = time.monotonic() + TIME_LIMIT
    for wait in (*waits, None):
        seconds = min(TRY_TIMEOUT, max(end - time.monotonic(), 0.1))
        try:
            return _within(seconds, request)
        except (OSError, HTTPException, ValueError) as error:
            refused = isinstance(error, HTTPError) and error.code < 500
            if refused or wait is None or time.monotonic() + wait > end:
                raise LagDetectorError(
                    f"the Pushgateway at {gateway.address} did not take it ({_reason(error)}): {consequence}; "
                    "check that it runs (docker compose up -d --wait) and that PUSHGATEWAY_URL is its address"
                ) from error
            time.sleep(wait)
    raise AssertionError("the last try either returns or raises")


def _within(seconds: float, request: Callable[[float], T]) -> T:
    """Make a request that ends after `seconds` at most.

    In a thread of its own, since a socket's timeout begins anew with every byte and a name's look-up has none.
    """
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(request(seconds))
        except Exception as error:
            outcome.set_exception(error)

    Thread(target=work, daemon=True).start()
    try:
        return outcome.result(timeout=seconds + 0.1)  # the socket's own timeout first, it says more
    except NoAnswer as error:
        raise TimeoutError("timed out") from error


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"it answered {error.code} {error.reason}".rstrip()
    cause = getattr(error, "reason", error)
    return str(getattr(cause, "strerror", None) or cause).lower()
