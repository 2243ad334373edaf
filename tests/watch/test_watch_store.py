"""The watcher reads an object store as it reads a local disk, with few requests."""

import asyncio
import re
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote
from urllib.request import Request, urlopen

from delta_watch import store
from delta_watch.backlog import Amount
from delta_watch.checkpoint import RARE
from delta_watch.errors import DeltaWatchError, WatchError
from delta_watch.store import Folder, LocalFolder, open_folder
from delta_watch.threads import event_loop
from delta_watch.watcher import Consumer, Discovery, Watcher
from demo.stack import wait_for
from tests.helpers.bucket_server import BucketServer, url
from tests.helpers.handmade_tables import OTHER, Files, add, known, lag, look, offset, reasons, soon
from tests.helpers.http_servers import serve
from tests.helpers.workspace import wait_until_equal

import pytest

T = TypeVar("T")
SECRET = "not-for-the-eyes-of-others"
# As names of folders in an object store and on a local disk.
STRANGE = ["plain", "with space", "100%", "a%20b", "ключ", "a=1", "#1", "a+b", "[1]", "it's", "what?", "a:b"]


def ask(answer: Awaitable[T]) -> T:
    async def whole() -> T:
        return await answer

    return asyncio.run_coroutine_threadsafe(whole(), event_loop()).result(60)


@pytest.fixture
def in_bucket(bucket: BucketServer, files: Files) -> Files:
    """The hand-made table in a bucket."""
    files.locate = url
    return files


# The same on every store


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server by others, with a bucket `lake`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for("the S3 server", lambda: _put(f"{address}/lake", b"") or None, 60)
            yield address
        finally:
            process.kill()


def _put(address: str, content: bytes) -> bool:
    # The server wants to see a signature, but does not check it.
    login = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=a"
    headers = {"Authorization": login, "Content-Type": "application/octet-stream"}
    try:
        with urlopen(Request(address, content, headers, method="PUT"), timeout=10):
            return True
    except OSError:
        return False


def upload(folder: Path, address: str) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            assert _put(f"{address}/{quote(str(file.relative_to(folder)))}", file.read_bytes())


@pytest.mark.parametrize("name", STRANGE)
def test_same_results_as_on_a_local_disk(
    moto: str, bucket: BucketServer, monkeypatch: pytest.MonkeyPatch, files: Files, tmp_path: Path, name: str
) -> None:
    for part in ("table", "checkpoint"):
        shutil.copytree(tmp_path / part, tmp_path / name / part)
    upload(tmp_path / name, f"{moto}/lake/{quote(name)}")
    for root in (f"file:{tmp_path}", f"s3:/{tmp_path}", "s3a://lake"):
        if root == "s3a://lake":
            monkeypatch.setenv("AWS_ENDPOINT", moto)
            store._bucket.cache_clear()
        consumer = Consumer("fraud", "orders", f"{root}/{name}/checkpoint")
        backlog = known(Watcher({"orders": f"{root}/{name}/table"}, [consumer]))
        assert (backlog.version, backlog.versions, backlog.amount) == (3, 3, Amount(3, 300, 3))


def test_both_kinds_of_folder_answer_alike(bucket: BucketServer, tmp_path: Path) -> None:
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    names = {"08.json", "09.json", "10.json", "10.x", "12.json"}
    for name in (*names, "sub/1", "sub/deep/2"):
        (tmp_path / name).write_text(name)
    (tmp_path / "lines").write_bytes(b"1\n\n" + b"2" * 2 * store.PART + b"\n3\n4")
    folder: Folder
    for folder in (LocalFolder(str(tmp_path)), open_folder(url(tmp_path))):
        assert set(ask(folder.names())) - {"sub", "lines"} == names
        for bucket.in_order in (False, True):
            assert set(ask(folder.names("08.json", "10.x"))) == {"09.json", "10.json"}
            assert set(ask(folder.names("09", ":"))) == names - {"08.json"}
        assert ask(folder.read("sub/1")).content == b"sub/1"
        assert ask(folder.child("sub", "deep").read("2")).content == b"sub/deep/2"
        *tags, missing = ask(folder.tags(["08.json", "09.json", "10.json", "11.json"]))
        assert missing is None
        assert ask(folder.tags_from("{:02}.json".format, 8)) == tags
        assert ask(folder.child("none").names()) == []
        assert ask(folder.tags_from("{:02}.json".format, 11)) == []
        assert ask(folder.folders(["", "sub", "none"])) == [["sub"], ["deep"], []]
        answers = ask(folder.at_once(folder.read, ["08.json", "11.json"]))
        assert [type(answer) for answer in answers] == [store.File, FileNotFoundError]
        lines: list[bytes] = []
        ask(folder.read_lines("lines", lines.append))
        assert [(line[:1], len(line.rstrip())) for line in lines] == [
            (b"1", 1),
            (b"2", 2 * store.PART),
            (b"3", 1),
            (b"4", 1),
        ]
        assert sum(request.endswith("/lines") for request in bucket.log) == (
            0 if folder.is_local else 1 + 3
        )  # in parts
        (tmp_path / "09.json").write_text("replaced")
        assert [new == old for new, old in zip(ask(folder.tags(["08.json", "09.json"])), tags, strict=False)] == [1, 0]
        with pytest.raises(FileNotFoundError):
            ask(folder.read("none"))


# What it costs


def test_requests_of_a_first_look_and_of_later_ones(in_bucket: Files, bucket: BucketServer) -> None:
    (in_bucket.log / "_last_checkpoint").write_text('{"version": 5}')
    in_bucket.checksum(6)
    watcher = in_bucket.watcher()
    look(watcher)
    commits = [int(name[-25:-5]) for name in bucket.log if name.startswith("get") and name.endswith("json")]
    assert sorted(commits) == [4, 5, 6]
    assert bucket.take()["list"] == 3  # offsets, commits, and the log from the hint on
    look(watcher)
    # The last batch and the next one, the head and the next one.
    assert bucket.take() == Counter(head=4)
    for _ in range(RARE - 3):
        look(watcher)
    assert bucket.counts["list"] == bucket.counts["get"] == 0
    # Once in a while, also whether the log still has what the consumer reads next.
    assert bucket.take()["head"] <= 4 * (RARE - 3) + 1
    look(watcher)  # the consumer is behind and has not moved
    assert bucket.take()["list"] == 2
    in_bucket.append(7, 7)
    look(watcher)
    assert bucket.take()["get"] == 1
    in_bucket.read(1, offset(8))
    assert lag(watcher) == (7, 0)
    assert (bucket.counts["list"], bucket.counts["get"]) == (0, 1)
    assert store.requests["head"] > 0


@pytest.mark.parametrize("in_order", [True, False])
def test_hundreds_of_commits_and_batches(in_bucket: Files, bucket: BucketServer, in_order: bool) -> None:
    bucket.in_order = in_order
    in_bucket.append(7, 150)
    in_bucket.commit(151, add("a"), add("b"))
    (in_bucket.log / "_last_checkpoint").write_text('{"version": 140}')
    watcher = in_bucket.watcher()
    backlog = known(watcher)
    assert (backlog.versions, backlog.amount) == (148, Amount(149, 14900, 149))
    for batch in range(1, 130):
        in_bucket.read(batch, offset(batch + 4))
    in_bucket.append(152, 160)
    bucket.take()
    assert lag(watcher) == (132, 28)
    assert bucket.take()["list"] == 0


@pytest.mark.parametrize("kept", [2, 100])
def test_batches_that_skip_numbers_or_are_cleaned_up(in_bucket: Files, kept: int) -> None:
    watcher = in_bucket.watcher()
    assert lag(watcher) == (3, 3)
    for batch in (4, 9):  # as asynchronous progress tracking does
        in_bucket.read(batch, offset(batch - 3 if batch == 9 else 5))
        for kind in ("offsets", "commits"):
            for old in sorted((in_bucket.checkpoint / kind).iterdir(), key=lambda path: int(path.name))[:-kept]:
                old.unlink()
        soon(lambda: lag(watcher), (4, 2) if batch == 4 else (5, 1))


def test_failed_reads_make_nothing_read_again(in_bucket: Files, bucket: BucketServer) -> None:
    in_bucket.append(7, 100)
    watcher = in_bucket.watcher()
    assert lag(watcher) == (3, 97)
    bucket.failing = lambda request: "checkpoint" in request
    assert reasons(watcher) == ["store"]
    bucket.failing = lambda request: False
    bucket.take()
    assert lag(watcher) == (3, 97)
    assert bucket.take()["get"] == 0
    bucket.failing = lambda request: request.startswith("get") and request.endswith("105.json")
    in_bucket.append(101, 110)
    assert reasons(watcher) == ["store"]
    bucket.failing = lambda request: False
    bucket.take()
    assert lag(watcher) == (3, 107)
    assert bucket.take()["get"] == 1


def test_several_patterns_over_a_folder_list_it_once_in_an_interval(
    in_bucket: Files, bucket: BucketServer, tmp_path: Path
) -> None:
    found = [Discovery("orders", url(tmp_path / pattern)) for pattern in ("*", "c*")]
    watcher = Watcher({"orders": url(in_bucket.table)}, [], found)
    for _ in range(2):
        assert reasons(watcher) == [None]
    assert bucket.log.count(f"list {str(tmp_path).split('/', 2)[2]}/") == 1


def test_name_that_a_cache_says_is_missing(in_bucket: Files, bucket: BucketServer) -> None:
    def hide(version: int) -> None:
        bucket.hidden.add(str(in_bucket.commit_path(version)).split("/", 2)[2])

    watcher = in_bucket.watcher()
    assert lag(watcher) == (3, 3)
    in_bucket.append(7, 7)
    in_bucket.read(1, offset(8))
    hide(7)
    assert reasons(watcher) == ["ahead"]
    in_bucket.append(8, 8)
    in_bucket.read(2, offset(9))
    assert lag(watcher) == (8, 0)  # found by a listing
    in_bucket.append(9, 10)
    hide(9)
    assert reasons(in_bucket.watcher()) == ["store"]  # it is listed, so nobody has lost it


def test_bucket_that_hangs_holds_up_no_other(in_bucket: Files, bucket: BucketServer, tmp_path: Path) -> None:
    healthy = Files(tmp_path / "healthy", OTHER)
    healthy.read(0, offset(1, table_id=OTHER))
    consumers = [Consumer(f"{n}", "orders", url(in_bucket.checkpoint) + "/" * n) for n in range(300)]
    consumers.append(Consumer("c", "returns", str(healthy.checkpoint)))
    watcher = Watcher({"orders": url(in_bucket.table), "returns": str(healthy.table)}, consumers, time_limit=1)
    bucket.silent = lambda request: True
    assert reasons(watcher) == ["timeout"] * 300 + [None]
    assert watcher.last_round
    assert watcher.last_round.seconds < 3  # not 1 second for each group of requests
    assert str(watcher.states[0].consumers[0].error).endswith("has not answered within 1 seconds; check its store")
    bucket.silent = lambda request: False
    wait_until_equal(lambda: set(reasons(watcher)), {None})


# What is missing or refused


def test_one_bucket_that_cannot_be_opened(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key.json").write_text("{")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    tables = {"orders": str(files.table), "clicks": "gs://lake/clicks", "visits": "az://lake/visits"}
    watcher = Watcher(tables, [Consumer("fraud", "orders", str(files.checkpoint))])
    assert reasons(watcher) == [None]
    errors = [str(state.error) for state in watcher.states]
    assert re.match(r"gs://lake cannot be read .*set GOOGLE_APPLICATION_CREDENTIALS", errors[1])
    assert re.match(r"az://lake.* cannot be read .*Account must be specified", errors[2])


ASKS: list[Callable[[Folder], Awaitable[object]]] = [
    lambda folder: folder.names(),
    lambda folder: folder.names("1"),
    lambda folder: folder.read("1"),
    lambda folder: folder.tags(["1"]),
    lambda folder: folder.folders([""]),
]


def refusal(location: str, what: Callable[[Folder], Awaitable[object]] = ASKS[0]) -> tuple[str, str]:
    """Return the reason and the sentence of what a folder raises."""
    with pytest.raises(WatchError) as caught:
        ask(what(open_folder(location)))
    return caught.value.reason, str(caught.value)


@pytest.mark.parametrize(("status", "reason"), [(403, "permission"), (401, "permission"), (500, "store")])
def test_refused_request(bucket: BucketServer, monkeypatch: pytest.MonkeyPatch, status: int, reason: str) -> None:
    body = f"<Error><Code>Refused</Code><Token>{SECRET}</Token></Error>".encode()

    def refuse(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    with serve(refuse) as address:
        monkeypatch.setenv("AWS_ENDPOINT", f"http://{address}")
        for what in ASKS:
            found, sentence = refusal("s3://lake/table", what)
            assert found == reason
            assert SECRET not in sentence
            assert address not in sentence


def test_store_that_is_down_or_has_no_such_bucket(
    bucket: BucketServer, moto: str, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT", moto)
    sentence = "s3://nowhere/table cannot be read (404 Not Found, NoSuchBucket)"
    assert refusal("s3://nowhere/table") == ("store", sentence)
    monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{closed_port}")
    reason, sentence = refusal("s3://lake/table")
    assert reason == "store"
    assert str(closed_port) not in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/data/orders", "/data/orders"),
        ("/data/orders/", "/data/orders"),
        ("/data/caf\udce9", "/data/caf\\xe9"),
        ("data/a b", "data/a b"),
        ("./a:b", "./a:b"),
        ("file:/data/a b", "/data/a b"),
        ("file:///data/a%20b", "/data/a%20b"),
        ("s3://lake/a b/%20", "s3://lake/a b/%20"),
        ("s3a://lake//orders/", "s3://lake/orders"),
        ("s3n://lake", "s3://lake/"),
        ("gs://lake/orders", "gs://lake/orders"),
        ("abfss://lake@account.dfs.core.windows.net/orders", "abfss://lake@account.dfs.core.windows.net/orders"),
    ],
)
def test_locations_as_hadoop_writes_them(location: str, path: str) -> None:
    assert str(open_folder(location)) == path


@pytest.mark.parametrize("location", ["hdfs://host/a", "wasbs://a@b/c", "https://host/a", "dbfs:/a"])
def test_location_without_support(location: str) -> None:
    with pytest.raises(DeltaWatchError, match="there is no support for .*use a local path, file: or one of s3://"):
        open_folder(location)
