"""A catalog says where its tables are, and which commits are not in their logs yet."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event
from typing import Any

from delta_watch import catalog as catalog_module
from delta_watch.backlog import NOTHING, Amount, Backlog
from delta_watch.catalog import CatalogTable
from delta_watch.table import Head
from delta_watch.watcher import Consumer, Watcher
from tests.helpers.bucket_server import url
from tests.helpers.catalog_server import NAME, PATH, Catalog
from tests.helpers.handmade_tables import ID, OTHER, Files, known, lag, metadata, offset, reasons
from tests.helpers.http_servers import serve

import pytest

PROTOCOL = {"minReaderVersion": 3, "minWriterVersion": 7, "writerFeatures": ["catalogManaged"]}


@pytest.fixture(params=[str, url], ids=["disk", "bucket"])
def files(request: pytest.FixtureRequest, files: Files) -> Files:
    """A table with published commits up to 6, on a disk or in a bucket, and a consumer that has read 3."""
    if request.param is url:
        request.getfixturevalue("bucket")
    files.locate = request.param
    files.checksum(6, protocol=PROTOCOL)
    return files


@pytest.fixture
def catalog(files: Files) -> Iterator[Catalog]:
    made = Catalog(files.locate(files.table))
    with made.serve():
        yield made


def watch(files: Files, catalog: Catalog, location: str | None = None, token_file: Path | None = None) -> Watcher:
    table = CatalogTable(catalog.url, NAME, location, str(token_file) if token_file else None)
    return Watcher({"orders": table}, [Consumer("fraud", "orders", files.locate(files.checkpoint))], time_limit=10)


def error(watcher: Watcher) -> tuple[str, str] | None:
    """Return why the catalog said nothing in the last round."""
    (table,) = watcher.states
    return (table.error.reason, str(table.error)) if table.error else None


DISK = pytest.mark.parametrize("files", [str], ids=["disk"], indirect=True)


@pytest.mark.parametrize("is_located", [True, False])
def test_staged_commits_count_and_only_those_that_are_ratified(
    files: Files, catalog: Catalog, is_located: bool
) -> None:
    watcher = watch(files, catalog, files.locate(files.table) if is_located else None)
    assert known(watcher).amount == Amount(3, 300, 3)
    catalog.staged = {version: files.stage(version) for version in (7, 8)}
    files.stage(8)  # by a writer that lost
    files.stage(9)  # and by one that has not asked the catalog yet
    catalog.last = 8
    backlog = known(watcher)
    assert (backlog.version, backlog.versions, backlog.amount) == (3, 5, Amount(5, 500, 5))
    files.read(1, offset(8))
    backlog = known(watcher)
    path = files.log / "_staged_commits" / catalog.staged[8]
    time: Any = pytest.approx(path.stat().st_mtime, abs=1)
    assert backlog == Backlog(7, 1, time, Amount(1, 100, 1), 0)
    assert watcher.states[0].head == Head(8, backlog.since, 30 * 86400)
    files.append(7, 8)  # published, and the catalog does not know yet
    assert lag(watcher) == (7, 1)
    files.append(9, 9)
    assert lag(watcher) == (7, 2)
    assert error(watcher) is None


def test_initial_snapshot_of_a_staged_version(files: Files, catalog: Catalog) -> None:
    files.commit(0, metadata(ID), {"protocol": PROTOCOL})
    catalog.last, catalog.staged = 7, {7: files.stage(7)}
    files.read(1, offset(7, 2, initial=True))
    backlog = known(files.watcher())
    assert (backlog.versions, backlog.amount) == (8, None)
    backlog = known(watch(files, catalog))
    assert (backlog.versions, backlog.amount) == (8, Amount(4, 400, 4))


def test_one_request_in_each_round(files: Files, catalog: Catalog) -> None:
    watcher = watch(files, catalog)
    for count in (1, 2):
        files.append(6 + count, 6 + count)  # so that the round looks more than once
        known(watcher)
        assert len(catalog.requests) == count


@DISK
def test_consumer_of_a_name_follows_the_table_where_it_is_created_again(
    files: Files, catalog: Catalog, tmp_path: Path
) -> None:
    watcher = watch(files, catalog)
    assert lag(watcher) == (3, 3)
    catalog.location = None
    assert lag(watcher) == (3, 3)
    assert error(watcher) == (
        "catalog_unknown",
        f"the catalog {catalog.url}, asked for {NAME}, has no such table; check its name",
    )
    again = Files(tmp_path / "again", OTHER)
    catalog.location, catalog.last, catalog.staged = f"file://{again.table}", 1, {1: again.stage(1)}
    assert reasons(watcher) == ["wrong_table"]
    files.read(1, offset(1, table_id=OTHER))
    assert lag(watcher) == (0, 1)
    assert error(watcher) is None


@DISK
def test_catalog_that_does_not_say_costs_what_only_it_knows(files: Files, catalog: Catalog) -> None:
    watcher = watch(files, catalog, str(files.table))
    for setting, reason, message in (
        ({"location": None}, "catalog_unknown", f"asked for {NAME}, has no such table; check its name"),
        ({"location": "/elsewhere"}, "catalog_location", f"the table {NAME} at /elsewhere; correct location or name"),
        ({"location": "dbfs:/t"}, "catalog_location", "there is no support for dbfs:"),
        ({"status": 503}, "catalog", "answers with status 503; check the server"),
        ({"staged": {7: "../../8.json"}}, "catalog", "names '../../8.json', which is no staged commit"),
        ({"last": "x"}, "catalog", "cannot be understood"),
        ({"token": "secret"}, "catalog_denied", "refuses (401); it needs a token_file"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in setting.items():
                patch.setattr(catalog, name, value)
            assert lag(watcher) == (3, 3)
            assert (seen := error(watcher))
            assert seen[0] == reason
            assert message in seen[1]
            # Without it, a position proves that its version exists.
            files.read(1, offset(8))
            assert known(watcher) == Backlog(7, 0, None, NOTHING, 0)
            assert watcher.states[0].head == Head(7, None)
            files.read(1, offset(4))
        assert lag(watcher) == (3, 3)
        assert error(watcher) is None


@DISK
def test_what_a_catalog_has_said_stays_while_it_says_nothing(files: Files, catalog: Catalog) -> None:
    catalog.last, catalog.staged = 7, {7: files.stage(7)}
    watcher = watch(files, catalog)
    assert lag(watcher) == (3, 4)
    catalog.status = 500
    assert known(watcher).amount == Amount(4, 400, 4)
    assert (head := watcher.states[0].head)
    assert head.version == 7


@DISK
def test_table_that_is_gone_has_the_reason_of_its_catalog(files: Files, catalog: Catalog, tmp_path: Path) -> None:
    watcher = watch(files, catalog, str(files.table))
    files.table.rename(tmp_path / "elsewhere")
    assert reasons(watcher) == ["not_a_table"]
    catalog.location = str(tmp_path / "elsewhere")
    assert reasons(watcher) == ["catalog_location"]


@DISK
def test_catalog_that_is_down(files: Files) -> None:
    catalog = Catalog(None)
    with catalog.serve():
        pass
    watcher = watch(files, catalog, str(files.table))
    assert lag(watcher) == (3, 3)
    sentence = f"the catalog {catalog.url}, asked for {NAME}, does not answer (connection refused); check the server"
    assert error(watcher) == ("catalog", sentence)


@DISK
def test_unknown_location_is_the_consumers_reason(files: Files, catalog: Catalog) -> None:
    catalog.status = 500
    watcher = watch(files, catalog)
    assert reasons(watcher) == ["catalog"]
    assert error(watcher)
    catalog.status = None
    assert lag(watcher) == (3, 3)


@DISK
def test_ratified_commit_without_a_file_is_waited_for(files: Files, catalog: Catalog) -> None:
    catalog.last, catalog.staged = 7, {7: files.stage(7)}
    (staged,) = (files.log / "_staged_commits").iterdir()
    away = staged.rename(files.log / "away")
    watcher = watch(files, catalog)
    assert reasons(watcher) == ["store"]
    assert "version 7" in str(watcher.states[0].consumers[0].error)
    away.rename(staged)
    assert lag(watcher) == (3, 4)


@DISK
@pytest.mark.parametrize("sends", [b"", b" "])
def test_hanging_catalog_costs_its_own_time_only(
    files: Files, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, sends: bytes
) -> None:
    monkeypatch.setattr(catalog_module, "TIME_LIMIT", 0.3)
    released, requests = Event(), list[str]()

    def hang(request: BaseHTTPRequestHandler) -> None:
        requests.append(request.path)
        request.send_response(200)
        request.end_headers()
        while not released.wait(0.05):
            request.wfile.write(sends)

    with serve(hang) as address:
        catalog.url = f"http://{address}"
        watcher = watch(files, catalog, str(files.table))
        assert lag(watcher) == (3, 3)
        sentence = f"the catalog {catalog.url}, asked for {NAME}, does not answer (timed out); check the server"
        assert error(watcher) == ("catalog", sentence)
        assert watcher.last_round
        assert watcher.last_round.seconds < 10
        assert lag(watcher) == (3, 3)
        assert error(watcher) == ("catalog", sentence)
        assert requests == [PATH]  # nobody else waits for it
        released.set()


@DISK
def test_token_is_read_again_sent_to_nobody_else_and_never_shown(
    files: Files, catalog: Catalog, tmp_path: Path
) -> None:
    token_file, shown = tmp_path / "token", list[str]()
    watcher = watch(files, catalog, str(files.table), token_file)
    watcher._report = shown.append
    catalog.token = "s3cret"
    for content, reason in (
        ("old", "catalog_denied"),
        ("s3cret\n", None),
        ("s3cret\nmore", "catalog_denied"),
        ("s3cr€t", "catalog_denied"),
        ("", "catalog_denied"),
        (None, "catalog_denied"),
        ("s3cret", None),
    ):
        token_file.unlink(missing_ok=True)
        if content is not None:
            token_file.write_text(content)
        assert lag(watcher) == (3, 3)
        assert (error(watcher) or [None])[0] == reason
    other = Catalog(str(files.table))
    with other.serve():
        catalog.status, catalog.headers = 302, {"Location": f"{other.url}{PATH}"}
        assert lag(watcher) == (3, 3)
        assert (seen := error(watcher))
        assert seen[1].endswith("answers with status 302; name the server that it redirects to")
        assert other.requests == []
    assert len(shown) == 8
    assert "s3cr" not in "".join(shown)
