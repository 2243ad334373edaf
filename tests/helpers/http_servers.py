"""HTTP servers that answer as a Pushgateway should not, or forward what they receive."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

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
