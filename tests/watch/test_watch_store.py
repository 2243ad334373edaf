"""The watcher reads an object store as it reads a local disk, with few requests."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

from delta_watch import store
from delta_watch.backlog import Amount
from delta_watch.errors import DeltaWatchError, WatchError
from delta_watch.store import Folder, LocalFolder, open_folder
from delta_watch.watcher import Consumer, Discovery, Watcher
from demo.stack import wait_for
from tests.helpers.handmade_tables import Files, add, known, look, reasons
from tests.helpers.http_servers import serve

import pytest

BUCKET = "lake"
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
SECRET = "not-for-the-eyes-of-others"
# As names of folders in an object store and on a local disk.
STRANGE = ["plain", "with space", "100%", "a%20b", "ключ", "a=1", "#1", "a+b", "[1]", "it's", "what?", "a:b"]


class S3:
    """An S3 server on loopback."""

    def __init__(self, address: str, log: Path) -> None:
        self.address, self._log = address, log

    def put(self, key: str, content: bytes = b"") -> None:
        # The server wants to see a signature, but does not check it.
        login = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=a"
        headers = {"Authorization": login, "Content-Type": "application/octet-stream"}
        urlopen(Request(f"{self.address}/{BUCKET}/{quote(key)}", content, headers, method="PUT"), timeout=10).close()

    def upload(self, folder: Path, prefix: str) -> None:
        for file in folder.rglob("*"):
            if file.is_file():
                self.put(f"{prefix}/{file.relative_to(folder)}", file.read_bytes())

    def requests(self) -> list[str]:
        """Return the requests since the last call, as method, path and query."""
        seen = re.findall(r'"(?:\x1b\[\d+m)*(\w+) (\S+) HTTP', self._log.read_text())
        self._log.write_text("")
        return [" ".join(request) for request in seen]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    log = tmp_path_factory.mktemp("s3") / "log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("ab") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for("the S3 server", lambda: _create_bucket(address) or None, 60)
            yield S3(address, log)
        finally:
            process.kill()


def _create_bucket(address: str) -> bool:
    try:
        with urlopen(Request(f"{address}/{BUCKET}", method="PUT"), timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a test says is in the environment. Buckets are kept by the process, so each test has its own."""
    store._open_bucket.cache_clear()
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    for name in KEYS:
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    monkeypatch.setenv("AWS_ENDPOINT", server.address)
    server.requests()
    return server


def upload(s3: S3, files: Files, name: str) -> Watcher:
    s3.upload(files.table, f"{name}/table")
    s3.upload(files.checkpoint, f"{name}/checkpoint")
    consumer = Consumer("fraud", "orders", f"s3a://{BUCKET}/{name}/checkpoint")
    return Watcher({"orders": f"s3://{BUCKET}/{name}/table"}, [consumer])


@pytest.mark.parametrize("name", STRANGE)
def test_same_results_as_on_a_local_disk(s3: S3, files: Files, tmp_path: Path, name: str) -> None:
    shutil.copytree(files.table, tmp_path / name / "table")
    shutil.copytree(files.checkpoint, tmp_path / name / "checkpoint")
    consumer = Consumer("fraud", "orders", f"file://{tmp_path / name}/checkpoint")
    local = Watcher({"orders": f"file:{tmp_path / name}/table"}, [consumer])
    for watcher in (local, upload(s3, files, name)):
        backlog = known(watcher)
        assert (backlog.version, backlog.versions, backlog.amount) == (3, 3, Amount(3, 300, 3))


def test_requests_of_a_first_look_and_of_later_ones(s3: S3, files: Files) -> None:
    (files.log / "_last_checkpoint").write_text(json.dumps({"version": 5}))
    (files.log / f"{6:020d}.crc").write_text(json.dumps({"metadata": {"id": files.id}}))
    (files.log / "_sidecars").mkdir()
    (files.log / "_sidecars" / "1.parquet").write_text("")
    watcher = upload(s3, files, "requests")
    s3.requests()
    look(watcher)
    log = "/lake/requests/table/_delta_log"
    first = s3.requests()
    for version in range(4, 7):
        assert first.count(f"GET {log}/{version:020d}.json") == 1
    assert not any(f"/{version:020d}.json" in request for version in range(4) for request in first)
    assert not any("delimiter" in request and "_delta_log" in request for request in first)
    look(watcher)
    assert sorted(s3.requests()) == sorted(
        [
            # How far the consumer is, and whether its checkpoint is still the same.
            "GET /lake?delimiter=/&list-type=2&prefix=requests/checkpoint/offsets/",
            "GET /lake?delimiter=/&list-type=2&prefix=requests/checkpoint/commits/",
            "HEAD /lake/requests/checkpoint/offsets/0",
            # What is new from the last known version on.
            f"GET /lake?list-type=2&prefix=requests/table/_delta_log/&start-after=requests/table/_delta_log/{6:020d}",
            # Whether the log still has what the consumer reads next.
            f"HEAD {log}/{4:020d}.json",
        ]
    )
    s3.put(f"requests/table/_delta_log/{7:020d}.json", b'{"commitInfo":{}}')
    s3.requests()
    look(watcher)
    contents = [request for request in s3.requests() if ".json" in request and request.startswith("GET")]
    assert contents == [f"GET {log}/{7:020d}.json"]


def test_hundreds_of_commits(s3: S3, files: Files) -> None:
    files.append(7, 150)
    files.commit(151, add("a"), add("b"))
    backlog = known(upload(s3, files, "hundreds"))
    assert (backlog.versions, backlog.amount) == (148, Amount(149, 14900, 149))


def test_missing_table_and_checkpoint(s3: S3, files: Files) -> None:
    s3.upload(files.table, "some/table")
    consumer = Consumer("fraud", "orders", f"s3://{BUCKET}/some/checkpoint")
    assert reasons(Watcher({"orders": f"s3://{BUCKET}/some/table"}, [consumer])) == ["missing"]
    watcher = Watcher({"orders": f"s3://{BUCKET}/none"}, [])
    watcher.run_round()
    assert watcher.states[0].error
    assert watcher.states[0].error.reason == "not_a_table"


def test_discovery(s3: S3, files: Files) -> None:
    upload(s3, files, "found")
    for name in ("fraud 1", "search"):
        s3.upload(files.checkpoint, f"found/jobs/{name}/checkpoint")
    s3.put("found/jobs/other/readme")
    discovery = Discovery("orders", f"s3a://{BUCKET}/found/jobs/*/checkpoint")
    watcher = Watcher({"orders": f"s3a://{BUCKET}/found/table"}, [], [discovery])
    assert reasons(watcher) == [None, None]
    assert [state.consumer.name for state in watcher.states[0].consumers] == ["fraud 1", "search"]


ASKS: list[Callable[[Folder], object]] = [
    lambda folder: folder.names(),
    lambda folder: folder.read("1"),
    lambda folder: folder.tags_from(str, 1),
    lambda folder: folder.matching_folders("*"),
]


def refusal(location: str, ask: Callable[[Folder], object] = ASKS[0]) -> tuple[str, str]:
    """Return the reason and the sentence of what a folder raises."""
    with pytest.raises(WatchError) as caught:
        ask(open_folder(location))
    return caught.value.reason, str(caught.value)


def test_bucket_that_does_not_exist(s3: S3) -> None:
    sentence = "s3://nowhere/table cannot be read (404 Not Found, NoSuchBucket)"
    assert refusal("s3://nowhere/table") == ("store", sentence)


@pytest.mark.parametrize(("status", "reason"), [(403, "permission"), (401, "permission"), (500, "store")])
def test_refused_request(monkeypatch: pytest.MonkeyPatch, status: int, reason: str) -> None:
    body = f"<Error><Code>Refused</Code><Token>{SECRET}</Token></Error>".encode()

    def refuse(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with serve(refuse) as address:
        monkeypatch.setenv("AWS_ENDPOINT", f"http://{address}")
        for ask in ASKS:
            found, sentence = refusal(f"s3://{BUCKET}/table", ask)
            assert found == reason
            assert SECRET not in sentence
            assert address not in sentence


def test_store_that_is_down(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{closed_port}")
    reason, sentence = refusal(f"s3://{BUCKET}/table")
    assert reason == "store"
    assert str(closed_port) not in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/data/orders", "/data/orders"),
        ("/data/orders/", "/data/orders"),
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


def test_azure_container_of_the_account_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeltaWatchError, match="az://lake cannot be used .*Account must be specified"):
        open_folder("az://lake/orders")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    assert str(open_folder("az://lake/orders")) == "az://lake/orders"


@pytest.mark.parametrize("location", ["hdfs://host/a", "wasbs://a@b/c", "https://host/a", "dbfs:/a"])
def test_location_without_support(location: str) -> None:
    with pytest.raises(DeltaWatchError, match="there is no support for .*use a local path, file: or one of s3://"):
        open_folder(location)


def both(tmp_path: Path, s3: S3, name: str) -> list[Folder]:
    s3.upload(tmp_path, name)
    return [LocalFolder(str(tmp_path)), open_folder(f"s3://{BUCKET}/{name}")]


def test_both_kinds_of_folder_answer_alike(s3: S3, tmp_path: Path) -> None:
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    names = {"08.json", "09.json", "10.json", "10.x", "12.json"}
    for name in (*names, "sub/1", "sub/deep/2"):
        (tmp_path / name).write_text(name)
    for folder in both(tmp_path, s3, "alike"):
        assert set(folder.names()) - {"sub"} == names
        assert folder.read("sub/1").content == b"sub/1"
        assert folder.child("sub", "deep").read("2").content == b"sub/deep/2"
        tags = folder.tags_from("{:02}.json".format, 8)
        assert tags == [folder.tag(name) for name in ("08.json", "09.json", "10.json")]
        assert folder.tags_from("{:02}.json".format, 11) == folder.child("none").tags_from(str, 0) == []
        assert folder.tag("11.json") is None
        assert folder.child("none").names() == folder.matching_folders("none/*") == []
        assert folder.matching_folders("s*/d??p") == ["sub/deep"]
        assert [type(file) for file in folder.read_all(["08.json", "11.json"])][1] is FileNotFoundError
        with pytest.raises(FileNotFoundError):
            folder.read("none")


def test_tag_changes_when_a_file_is_replaced(s3: S3, tmp_path: Path) -> None:
    (tmp_path / "1").write_text("a")
    folders = both(tmp_path, s3, "tags")
    before = [folder.tag("1") for folder in folders]
    assert [folder.tag("1") for folder in folders] == before
    (tmp_path / "1").unlink()
    (tmp_path / "1").write_text("b")
    s3.upload(tmp_path, "tags")
    assert all(folder.tag("1") != tag for folder, tag in zip(folders, before, strict=True))
