"""A Unity Catalog server with one table. It answers the watcher's request as version 0.6.0 does."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.helpers.http_servers import serve

PATH = "/api/2.1/unity-catalog/delta/v1/catalogs/unity/schemas/default/tables/orders"
NAME = "unity.default.orders"
UNAUTHENTICATED = {
    "error_code": "UNAUTHENTICATED",
    "details": [{"reason": "UNAUTHENTICATED", "@type": "google.rpc.ErrorInfo"}],
    "message": "Invalid access token.",
}


class Catalog:
    """What the catalog knows.

    Args:
        location: where the table is; None if there is no such table.
        last: the last ratified version.
        staged: the file's name of each commit that was not reported as published, by version.
        token: the token that it wants, if any.
        status: what it answers to everything, if not None, with these `headers`.
        requests: the headers of each request.
    """

    def __init__(self, location: str | None, last: int = 6) -> None:
        self.location, self.last = location, last
        self.staged: dict[int, str] = {}
        self.token: str | None = None
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.requests: list[dict[str, str]] = []
        self.url = ""

    @contextmanager
    def serve(self) -> Iterator[None]:
        """Serve it on loopback, at `url`."""
        with serve(self._answer) as address:
            self.url = f"http://{address}"
            yield

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append(dict(request.headers))
        if self.status:
            status, body = self.status, _error("InternalException", self.status, "Internal error")
        elif self.token and request.headers["Authorization"] != f"Bearer {self.token}":
            status, body = 401, UNAUTHENTICATED
        elif self.location is None or request.path != PATH:
            status, body = 404, _error("NoSuchTableException", 404, f"Table not found: {NAME}")
        else:
            status, body = 200, self._table()
        content = json.dumps(body).encode()
        request.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": f"{len(content)}",
            **self.headers,
        }.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content)

    def _table(self) -> dict[str, Any]:
        return {
            "metadata": {
                "table-type": "MANAGED",
                "location": self.location,
                "columns": {"type": "struct", "fields": []},
            },
            "commits": [
                {
                    "version": version,
                    "timestamp": 1,
                    "file-name": name,
                    "file-size": 1,
                    "file-modification-timestamp": 1,
                }
                for version, name in sorted(self.staged.items(), reverse=True)
            ],
            "latest-table-version": self.last,
        }


def _error(kind: str, code: int, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "code": code, "stack": None}}
