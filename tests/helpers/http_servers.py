"""HTTP servers that answer as a Pushgateway should not, or forward what they receive."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import NamedTuple

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serve(answer: Answer) -> Iterator[str]:
    """Answer every request this way, and yield the host and port."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            answer(self)

        do_GET = do_HEAD = do_DELETE = do_PUT

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=[0.02])  # it looks that often whether to end
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(5)


class Received(NamedTuple):
    """A request that a server has received."""

    path: str
    login: str | None
    body: str

    def value(self, metric: str) -> float:
        """Return the value of a gauge that was pushed."""
        (sample,) = [line for line in self.body.splitlines() if line.startswith(f"{metric} ")]
        return float(sample.split()[1])


def receive(request: BaseHTTPRequestHandler) -> Received:
    """Read a request. Closed before that, its connection may be reset and the answer lost."""
    body = request.rfile.read(int(request.headers["Content-Length"] or 0)).decode()
    return Received(request.path, request.headers["Authorization"], body)


@contextmanager
def serve_codes(
    *codes: int, body: str = "", redirect: str = "", after: float = 0
) -> Iterator[tuple[str, list[Received]]]:
    """Answer with one code after the other, then always with the last one. Yield host and port, and the requests.

    Args:
        codes: the codes.
        body: the body of each answer.
        redirect: the address to redirect to.
        after: how many seconds an answer takes.
    """
    requests: list[Received] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        requests.append(receive(request))
        time.sleep(after)
        request.send_response(codes[min(len(requests), len(codes)) - 1])
        if redirect:
            request.send_header("Location", redirect + request.path)
        request.end_headers()
        request.wfile.write(body.encode())

    with serve(answer) as address:
        yield address, requests
