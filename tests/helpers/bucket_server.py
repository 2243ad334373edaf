"""An S3 server on loopback that counts its requests: a folder on disk is the bucket, whoever writes into it."""

import asyncio
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import formatdate
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from delta_watch import store

Answer = tuple[str, dict[str, object], bytes]
PAGE = 1000  # names in an answer, as S3 does


@dataclass
class BucketServer:
    """The server: it has the folder /lake/orders as `s3://lake/orders`.

    Args:
        root: the folder whose folders are the buckets.
        delay: seconds until each answer.
        in_order: whether a listing is sorted and may start after a name. It is not for S3 Express.
    """

    root: Path = Path("/")
    delay: float = 0
    in_order: bool = True
    address: str = ""
    counts: Counter[str] = field(default_factory=Counter)  # by operation: head, get, list
    log: list[str] = field(default_factory=list)  # operation and key or prefix
    hidden: set[str] = field(default_factory=set)  # keys that are answered as missing, as a cache may
    silent: Callable[[str], bool] = lambda request: False  # which lines of the log get no answer
    failing: Callable[[str], bool] = lambda request: False  # which ones are answered with 503

    def environment(self) -> dict[str, str]:
        """Return the variables with which a watcher uses this server, and make it forget the server before."""
        store._bucket.cache_clear()
        login = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "a"}
        return {**login, "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true", "AWS_ENDPOINT": self.address}

    @contextmanager
    def running(self) -> Iterator["BucketServer"]:
        """Serve until the end of the `with` block."""
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        thread = Thread(target=loop.run_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            server.close()
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

    def take(self) -> Counter[str]:
        """Return the number of requests by operation since the last call."""
        counts = Counter(self.counts)
        self.counts.clear()
        self.log.clear()
        return counts

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = lines[0].split(" ")
                # The next request may come before the answer to this one.
                await asyncio.sleep(self.delay)
                status, headers, body = await self._answer(method, target)
                if wanted := next((line for line in lines if line.lower().startswith("range:")), None):
                    first, last = map(int, re.findall(r"\d+", wanted))
                    headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
                    status, body = "206 Partial Content", body[first : last + 1]
                    headers["Content-Length"] = len(body)
                headers.setdefault("Content-Length", len(body))
                head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                writer.write(f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + (b"" if method == "HEAD" else body))
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            writer.close()

    async def _answer(self, method: str, target: str) -> Answer:
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        operation = "list" if "list-type" in query else method.lower()
        key = query.get("prefix", key)
        self.counts[operation] += 1
        self.log.append(f"{operation} {key}")
        if self.silent(self.log[-1]):
            await asyncio.Event().wait()
        if self.failing(self.log[-1]):
            return "503 Slow Down", {}, b"<Error><Code>SlowDown</Code></Error>"
        if operation == "list":
            return self._list(self.root / bucket, query)
        path = self.root / bucket / key
        try:
            status = path.stat()
            body = path.read_bytes() if method == "GET" else b""
        except OSError:
            return "404 Not Found", {}, b""
        if key in self.hidden or not stat.S_ISREG(status.st_mode):
            return "404 Not Found", {}, b""
        return (
            "200 OK",
            {"Content-Length": status.st_size, **_tags(status, formatdate(status.st_mtime, usegmt=True))},
            body,
        )

    def _list(self, bucket: Path, query: dict[str, str]) -> Answer:
        prefix, after = query.get("prefix", ""), query.get("continuation-token", "")
        if self.in_order:
            after = max(after, query.get("start-after", ""))
        found: dict[str, os.stat_result | None] = {}
        for path in _walk(str(bucket / prefix.rpartition("/")[0]), "delimiter" in query):
            key = path[len(str(bucket)) + 1 :]
            if key > after and key.startswith(prefix):
                with suppress(FileNotFoundError):
                    found[key] = os.stat(path)
        keys = sorted(found)
        page, rest = keys[:PAGE], keys[PAGE:]
        entries = []
        for key in page if self.in_order else sorted(page, key=lambda key: key[::-1]):
            status = found[key]
            if key.endswith("/"):
                entries.append(f"<CommonPrefixes><Prefix>{escape(key)}</Prefix></CommonPrefixes>")
            elif status:
                when = datetime.fromtimestamp(int(status.st_mtime), timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
                tag = _tags(status, when)["ETag"]
                entries.append(
                    f"<Contents><Key>{escape(key)}</Key><LastModified>{when}</LastModified><ETag>{escape(str(tag))}"
                    f"</ETag><Size>{status.st_size}</Size></Contents>"
                )
        more = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if rest else ""
        body = f"<ListBucketResult><IsTruncated>{'true' if rest else 'false'}</IsTruncated>{more}{''.join(entries)}"
        return "200 OK", {"Content-Type": "application/xml"}, f"{body}</ListBucketResult>".encode()


def _walk(folder: str, flat: bool) -> Iterator[str]:
    """Yield the paths of the files in a folder, and either those of its folders, which end with a /, or all in them."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if not entry.is_dir():
            yield entry.path
        elif flat:
            yield f"{entry.path}/"
        else:
            yield from _walk(entry.path, flat)


def _tags(status: os.stat_result, modified: str) -> dict[str, object]:
    return {"ETag": f'"{status.st_mtime_ns:x}-{status.st_size:x}"', "Last-Modified": modified}


def url(path: Path) -> str:
    """Return where the server has a folder."""
    return f"s3:/{path}"
