"""Push versions to a Prometheus Pushgateway as gauges, and delete them there."""

import json
import re
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from http.client import HTTPException
from ipaddress import ip_address
from threading import Thread
from typing import TypeVar
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from prometheus_client import CollectorRegistry, Gauge, delete_from_gateway, push_to_gateway

from .errors import LagDetectorError, PushgatewayError

# Short delays first, for a gateway that is just starting. With the attempts themselves, 30 seconds at most.
RETRY_DELAYS: tuple[float, ...] = (0.5, 1, 2, 4, 8)
ATTEMPT_TIMEOUT = 5.0
TIME_LIMIT = 30.0

MAX_BODY = 500  # bytes of an error's body that are read
MAX_PUSHES = 10

CONSUMER = r"[a-z][a-z0-9_]{0,39}"  # a consumer's name

Version = tuple[int, float | None]
T = TypeVar("T")


class Pushgateway:
    """A Pushgateway, where each metric of each consumer is a group of its own.

    `str()` gives its address without the password.

    Args:
        url: `http://host:port`; `https://` and `user:password@` are supported.

    Raises:
        LagDetectorError: the URL has another form.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise LagDetectorError("the URL is not of the form http://host:port or https://user:password@host:port")
        self.address = _without_login(url).rstrip("/")
        self._headers = {}
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {b64encode(login.encode()).decode()}"
        # A proxy would look for a loopback address on its own machine.
        proxy = ProxyHandler({}) if _is_loopback(parts.hostname or "") else ProxyHandler()
        self._opener = build_opener(proxy, _NoRedirect())

    def __str__(self) -> str:
        return self.address

    def push(
        self, metric: str, version: int, timestamp: float | None = None, consumer: str = "", retry: bool = True
    ) -> None:
        """Push a version. It replaces what was pushed before under the same metric and consumer.

        Args:
            metric: the gauge's name. The timestamp's gauge has this name and `_timestamp_seconds`.
            version: the version of the Delta table.
            timestamp: when that version was committed, Unix time in seconds; None while it is unknown.
            consumer: the name of an additional consumer of the same table, see `group_name`.
            retry: whether to retry for up to 30 seconds, instead of one attempt of up to 5 seconds.

        Raises:
            PushgatewayError: the gateway did not accept it. The gauge there is unchanged.
            LagDetectorError: the consumer's name is invalid.
            ValueError: the metric's name is invalid.
        """
        registry = CollectorRegistry()
        Gauge(metric, "Last version of a Delta table written or read completely", registry=registry).set(version)
        if timestamp is not None:
            name = f"{metric}_timestamp_seconds"
            Gauge(name, "When that version was committed, in Unix time", registry=registry).set(timestamp)
        group = group_name(metric, consumer)
        self._attempt(
            lambda timeout: push_to_gateway(self.address, group, registry, timeout=timeout, handler=self._handler),
            f"{group} {version} was not delivered, and what the table holds is unaffected",
            retry,
        )

    def push_latest(self, metric: str, latest: Callable[[], Version]) -> int:
        """Push the latest version, and push again if another writer has committed in the meantime.

        Push up to 10 times. If the version has changed after the last push too, the gauge is behind the table until
        the next push of any writer.

        Args:
            metric: the gauge's name.
            latest: returns the latest version and its commit timestamp, as `versions.last_commit` does.

        Returns:
            The version that was pushed last.

        Raises:
            PushgatewayError: as `push`.
        """
        current = latest()
        for _ in range(MAX_PUSHES):
            self.push(metric, *current)
            pushed, current = current, latest()
            if current == pushed:
                break
        return pushed[0]

    def delete_metric(self, metric: str, retry: bool = True) -> None:
        """Delete the groups of all consumers of a metric. Without this, the Pushgateway never removes them.

        Args:
            metric: the gauge's name.
            retry: as for `push`.

        Raises:
            PushgatewayError: the gateway did not do it.
            LagDetectorError: another program has pushed the metric to a group of its own. That makes queries ambiguous,
                and if the types differ, the gateway rejects every push.
        """
        others = []
        for labels, names in self._groups(metric, retry):
            if _is_group_of(metric, labels, names):
                self.delete_group(labels["job"], retry)
            elif names & {metric, f"{metric}_timestamp_seconds"}:
                others.append(labels)
        if others:
            labels = others[0]
            path = "/".join(quote(f"{name}/{labels[name]}") for name in sorted(labels, key=lambda name: name != "job"))
            raise LagDetectorError(
                f"another program has pushed {metric} to the group {labels} of the Pushgateway; delete that group with "
                f"curl -X DELETE {self}/metrics/{path}"
            )

    def delete_group(self, group: str, retry: bool = True) -> None:
        """Delete one group, whether it is there or not.

        Args:
            group: its name, see `group_name`.
            retry: as for `push`.

        Raises:
            PushgatewayError: the gateway did not do it.
        """
        self._attempt(
            lambda timeout: delete_from_gateway(self.address, group, timeout=timeout, handler=self._handler),
            f"{group} was not deleted",
            retry,
        )

    def group_names(self, metric: str) -> list[str]:
        """List the groups in which a metric was pushed, one for each consumer.

        Raises:
            PushgatewayError: the gateway did not answer.
        """
        return [labels["job"] for labels, names in self._groups(metric) if _is_group_of(metric, labels, names)]

    def _groups(self, metric: str, retry: bool = True) -> list[tuple[dict[str, str], set[str]]]:
        """Return all groups: their labels, and the names of their metrics."""
        request = Request(f"{self.address}/api/v1/metrics", headers=self._headers)

        def ask(timeout: float) -> list[tuple[dict[str, str], set[str]]]:
            answer = json.loads(self._open(request, timeout))
            try:
                return [(dict(group["labels"]), set(group) - {"labels"}) for group in answer["data"]]
            except (KeyError, TypeError) as error:
                raise ValueError("its JSON is not that of a Pushgateway") from error

        consequence = f"the groups of {metric} could not be listed, and none was deleted"
        return self._attempt(ask, consequence, retry)

    def _handler(
        self, url: str, method: str, timeout: float | None, headers: Sequence[tuple[str, str]], data: bytes
    ) -> Callable[[], object]:
        """Send a request of the Prometheus client."""
        request = Request(url, data, {**dict(headers), **self._headers}, method=method)
        return lambda: self._open(request, timeout)

    def _open(self, request: Request, timeout: float | None) -> bytes:
        try:
            with self._opener.open(request, timeout=timeout) as response:
                return bytes(response.read())
        except HTTPError as error:
            body = ""
            with suppress(OSError, HTTPException):  # the body says why; read it here, where the time is limited
                body = error.read(MAX_BODY).decode(errors="replace").partition("\n")[0].strip()
            reason = ": ".join(filter(None, (error.reason, body)))
            raise HTTPError(error.url, error.code, reason, error.headers, None) from error

    def _attempt(self, request: Callable[[float], T], consequence: str, retry: bool) -> T:
        """Make a request until it succeeds, the gateway rejects it for good (4xx), or the time is over.

        Args:
            request: takes a timeout in seconds.
            consequence: what a failure means for the caller, for the message.
            retry: whether to make more than one attempt.
        """
        end = time.monotonic() + TIME_LIMIT
        for delay in (*(RETRY_DELAYS if retry else ()), None):
            timeout = min(ATTEMPT_TIMEOUT, max(end - time.monotonic(), 0.1))
            try:
                return _within(timeout, request)
            except (OSError, HTTPException, ValueError) as error:
                rejected = isinstance(error, HTTPError) and error.code < 500
                if rejected or delay is None or time.monotonic() + delay > end:
                    message = f"the Pushgateway at {self} {_reason(error)}: {consequence}"
                    raise PushgatewayError(message, rejected) from error
                time.sleep(delay)
        raise AssertionError("the last attempt either returns or raises")


def group_name(metric: str, consumer: str = "") -> str:
    """Return the grouping key (`job`) under which a metric is pushed.

    Args:
        metric: the gauge's name.
        consumer: the name of an additional consumer of the same table; empty for the only or first one.

    Raises:
        LagDetectorError: the consumer's name is invalid.
    """
    if consumer and not re.fullmatch(CONSUMER, consumer):
        raise LagDetectorError(
            f"{consumer!r} is not a valid name of a consumer; use 1 to 40 lower-case letters, digits and _, starting "
            "with a letter, such as fraud or search_2"
        )
    return f"{metric}_{consumer}" if consumer else metric


def _is_group_of(metric: str, labels: dict[str, str], names: set[str]) -> bool:
    """Return whether this library has pushed a group: its name is that of a consumer, and it has no other metrics."""
    added_by_gateway = {"push_time_seconds", "push_failure_time_seconds", "last_push_successful"}
    is_named = labels.keys() == {"job"} and re.fullmatch(f"{metric}(_{CONSUMER})?", labels["job"])
    return bool(is_named) and names <= {metric, f"{metric}_timestamp_seconds", *added_by_gateway}


class _NoRedirect(HTTPRedirectHandler):
    """Follow no redirect: the other address would get the password, and the redirected request loses what is pushed."""

    def redirect_request(self, *_: object) -> None:
        """Return nothing, so that the answer becomes an HTTPError."""


def _without_login(url: str) -> str:
    return re.sub("(?<=//)[^/?#]*@", "", url)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _within(seconds: float, request: Callable[[float], T]) -> T:
    """Make a request, and give up after `seconds`.

    It needs a thread: a socket's timeout restarts with every byte, and resolving a host name has no timeout.
    """
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(request(seconds))
        except Exception as error:
            outcome.set_exception(error)

    Thread(target=work, daemon=True).start()
    try:
        return outcome.result(timeout=seconds + 0.1)  # the socket's own timeout comes first: its message says more
    except FutureTimeoutError as error:
        raise TimeoutError("timed out") from error


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError) and (location := error.headers.get("Location")):
        return f"redirects to {_without_login(location)}, which is not followed; use an address without a redirect"
    if isinstance(error, HTTPError):
        return f"answered {error.code} {error.reason}".rstrip()
    cause = getattr(error, "reason", error)
    text = str(getattr(cause, "strerror", None) or cause).lower()
    return f"cannot be reached ({text})" if isinstance(error, OSError) else f"gave no valid answer ({text})"
