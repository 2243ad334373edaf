"""A mistake in the configuration is one sentence with the key and its line, before anything starts."""

import re
from pathlib import Path

from delta_watch.catalog import CatalogTable
from delta_watch.config import SECTIONS, Config, read_config, shard
from delta_watch.errors import DeltaWatchError
from delta_watch.exporter import Server
from delta_watch.watcher import Consumer, Discovery
from demo.stack import ROOT

import pytest

CONSUMER = '[[consumer]]\nname = "fraud"\ntable = "/data/orders"\ncheckpoint = "/checkpoints/fraud"\n'

CATALOG = '[tables."orders"]\ncatalog = "https://host"\nname = "a.b.c"\n'
URL = "catalog must be the server's URL, such as https://unity.example.com"
NO_SUPPORT = "there is no support for {}:; use a local path, file: or one of s3://, gs://, az://, abfss://"


def read(folder: Path, text: str) -> Config:
    (folder / "watch.toml").write_text(text)
    return read_config(folder / "watch.toml")


def mistake(folder: Path, text: str) -> str:
    """Return the message without the path of the file."""
    with pytest.raises(DeltaWatchError) as caught:
        read(folder, text)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{folder / 'watch.toml'}, ")


def test_least(tmp_path: Path) -> None:
    config = read(tmp_path, CONSUMER)
    assert config.tables == {"/data/orders": "/data/orders"}
    assert config.consumers == (Consumer("fraud", "/data/orders", "/checkpoints/fraud"),)
    assert config.discoveries == ()
    assert (config.interval, config.time_limit, config.discovery_interval) == (15, None, 300)
    assert config.web == Server("127.0.0.1", 9464)


def test_everything(tmp_path: Path) -> None:
    for name, text in (("tls.crt", "c"), ("tls.key", "k"), ("password", "sécret\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    clicks = CatalogTable("https://unity.example.com", "main.web.clicks", f"{tmp_path}/clicks", f"{tmp_path}/password")
    config = read(
        tmp_path,
        """
        interval = 30
        time_limit = 2.5
        discovery_interval = 0

        [web]
        address = "0.0.0.0"
        port = 8000
        certificate = "tls.crt"
        private_key = "tls.key"
        username = "prometheus"
        password_file = "password"

        [tables]
        orders = "s3a://lake/orders 2/%20"
        "my visits" = "visits"

        [tables.clicks]
        catalog = "https://unity.example.com"
        name = "main.web.clicks"
        location = "clicks"
        token_file = "password"

        [[consumer]]
        name = "fraud"
        table = "orders"
        checkpoint = "file:/checkpoints/fraud"
        reads = "change_feed"

        [[discover]]
        table = "my visits"
        checkpoints = "jobs/*/checkpoint"

        [[discover]]
        table = "orders"
        checkpoints = "s3://lake/checkpoints/team ?/*"
        reads = "rewrites"
        """,
    )
    assert config.tables == {"orders": "s3a://lake/orders 2/%20", "my visits": f"{tmp_path}/visits", "clicks": clicks}
    assert config.consumers == (Consumer("fraud", "orders", "file:/checkpoints/fraud", "change_feed"),)
    assert config.discoveries == (
        Discovery("my visits", f"{tmp_path}/jobs/*/checkpoint"),
        Discovery("orders", "s3://lake/checkpoints/team ?/*", "rewrites"),
    )
    assert (config.interval, config.time_limit, config.discovery_interval) == (30, 2.5, 0)
    assert config.web == Server(
        "0.0.0.0", 8000, f"{tmp_path}/tls.crt", f"{tmp_path}/tls.key", "prometheus", f"{tmp_path}/password"
    )
    assert config.web.password == "sécret"


@pytest.mark.parametrize("shards", [1, 3, 16])
def test_shards_divide_the_tables(shards: int) -> None:
    names = [f"/data/{number}" for number in range(200)]
    parts = [set(filter(shard(f"{number}/{shards}"), names)) for number in range(shards)]
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert all(100 / shards < len(part) < 400 / shards for part in parts)
    for text in ("3/3", "1", "-1/3", "a/b", "0/0"):
        with pytest.raises(DeltaWatchError, match=f"^--shard must be from 0/N to N-1/N, such as 0/3, not {text}$"):
            shard(text)
    assert shard(None)("any")


def test_table_that_nobody_reads(tmp_path: Path) -> None:
    assert read(tmp_path, '[tables]\norders = "/data/orders"').tables == {"orders": "/data/orders"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: there is nothing to watch; add a [[lake]] with path, or a [[consumer]]"),
        (CONSUMER + "x = = 1", "line 5: not valid TOML (invalid value); correct it"),
        (CONSUMER + 'chekpoint = "x"', "line 5: the key chekpoint is unknown; perhaps it is checkpoint"),
        (
            "colour = 1\n" + CONSUMER,
            "line 1: the key colour is unknown; use interval, time_limit, discovery_interval, web, tables, consumer, "
            "discover, lake, stale_after",
        ),
        (
            CONSUMER + '\n[[consumer]]\ntable = "a"\ncheckpoint = "b"',
            "line 6: the key name is missing in [[consumer]]; add it",
        ),
        (CONSUMER + '[[consumer]]\nname = " "', 'line 6: name must be non-empty text; write name = "…"'),
        (CONSUMER + "[[consumer]]\nname = 7", 'line 6: name must be non-empty text; write name = "…"'),
        (CONSUMER + CONSUMER, "line 6: /data/orders has two consumers with the name fraud; rename one"),
        (
            CONSUMER.replace("/data", "hdfs://data"),
            f"line 3: table: {NO_SUPPORT.format('hdfs')}",
        ),
        (CONSUMER + 'reads = "all"', "line 5: reads must be one of appends, rewrites, change_feed"),
        ("interval = 0\n" + CONSUMER, "line 1: interval must be a number of seconds above 0"),
        ("interval = true\n" + CONSUMER, "line 1: interval must be a number of seconds above 0"),
        ('\n"time_limit" = "2s"\n' + CONSUMER, "line 2: time_limit must be a number of seconds above 0"),
        (CONSUMER + "[web]\nport = 70000", "line 6: port must be a whole number from 0 to 65535"),
        (
            CONSUMER + "[web]\ntls = 1",
            "line 6: the key tls is unknown; use address, port, certificate, private_key, username, password_file",
        ),
        (CONSUMER + "[web]\nport = false", "line 6: port must be a whole number from 0 to 65535"),
        (CONSUMER + '[web]\n\nusername = "x"', "line 7: username needs password_file too"),
        (CONSUMER + '[web]\nusername = ""', 'line 6: username must be non-empty text; write username = "…"'),
        (CONSUMER + '[web]\nprivate_key = "x"', "line 6: private_key needs certificate too"),
        (CONSUMER + "web = 1", "line 5: the key web is unknown; use name, table, checkpoint, reads"),
        ("web = 1\n" + CONSUMER, "line 1: web must be a section; write [web]"),
        ("[consumer]\nname = 1", "line 1: consumer must be a list of sections; write [[consumer]]"),
        ("consumer = [1]", "line 1: consumer must be a list of sections; write [[consumer]]"),
        ("tables = 1", "line 1: tables must be a section; write [tables]"),
        ("[tables]\n  a = 1\n" + CONSUMER, 'line 2: a must be non-empty text; write a = "…"'),
        (
            CONSUMER + '[[discover]]\ntable = "/a"\ncheckpoints = "/b"',
            "line 7: checkpoints has no *; name a single checkpoint in a [[consumer]]",
        ),
        (
            '[tables]\norders = "/orders"\n' + CONSUMER.replace("/data/orders", "oders"),
            "line 5: oders is not in [tables]; perhaps it is orders",
        ),
        (
            '[[lake]]\npath = "/lake"\nexclude = "tmp"',
            'line 3: exclude must be a list of patterns; write exclude = ["…"]',
        ),
        ('[[lake]]\npath = "/lake"\ndepth = -1', "line 3: depth must be a whole number from 0 to 65535"),
        (
            '[[lake]]\npath = "hdfs:/lake"',
            f"line 2: path: {NO_SUPPORT.format('hdfs')}",
        ),
        (CATALOG.replace("https", "ftp"), f"line 2: {URL}"),
        (CATALOG.replace("://", "://user:password@"), f"line 2: {URL}"),
        (CATALOG.replace("a.b.c", "b.c"), "line 3: name must be catalog.schema.table"),
        (CATALOG + 'location = "dbfs:/t"', f"line 4: orders.location: {NO_SUPPORT.format('dbfs')}"),
        (CATALOG + 'tokens = "t"', "line 4: the key tokens is unknown; perhaps it is token_file"),
        (CATALOG + "location = 1", 'line 4: location must be non-empty text; write location = "…"'),
        ("[tables.orders]\n" + 'name = "a.b.c"', "line 1: the key catalog is missing in [tables.orders]; add it"),
        (
            '[tables]\nclicks = "/c"\n' + 'orders = { catalog = "https://host", name = "orders" }',
            "line 3: name must be catalog.schema.table",
        ),
        (CONSUMER.replace("/data/", ""), "line 3: orders is not in [tables]; write ./orders if it is a folder"),
    ],
)
def test_mistake(tmp_path: Path, text: str, message: str) -> None:
    assert mistake(tmp_path, text) == message


def test_line_is_that_of_the_right_section(tmp_path: Path) -> None:
    second = CONSUMER.replace("fraud", "search") + "# name\n"
    assert mistake(tmp_path, CONSUMER + second + CONSUMER.replace('"fraud"', "3")).startswith("line 11: name")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (CONSUMER + '[web]\nusername = "a"\npassword_file = "secret"', "line 7: password_file"),
        (CATALOG + 'token_file = "secret"', "line 4: token_file"),
    ],
)
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read (no such file or directory); check its path"),
        (b"\n", "is empty; check its path"),
        (b"\xff", "is not UTF-8 text; save it as that"),
    ],
)
def test_file_with_a_secret(tmp_path: Path, content: bytes | None, problem: str, text: str, key: str) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    assert mistake(tmp_path, text) == f"{key} {tmp_path}/secret {problem}"


def test_file_that_is_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(DeltaWatchError, match="watch.toml cannot be read .no such file or directory.; check its path"):
        read_config(tmp_path / "watch.toml")
    (tmp_path / "watch.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(DeltaWatchError, match="watch.toml is not UTF-8 text; save it as that"):
        read_config(tmp_path / "watch.toml")


def test_example_says_all_that_there_is() -> None:
    example = ROOT / "examples" / "watch.toml"
    config = read_config(example)
    folder = ROOT / "examples" / ".." / "warehouse"
    assert config == Config(
        tables={"visits": f"{folder}/visits"},
        consumers=(Consumer("visits_consumer", "visits", f"{folder}/checkpoints/visits_consumer"),),
        discoveries=(Discovery("visits", f"{folder}/checkpoints/*"),),
    )
    named = set(re.findall(r"(?m)^(?:# )?(?:\[\[?)?(\w+)\]?\]?(?= =|\s*$|  #)", example.read_text()))
    assert named - {"visits"} == {key for section in SECTIONS.values() for key in section.__struct_encode_fields__}
