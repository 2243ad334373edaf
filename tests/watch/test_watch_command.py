"""The command: a table for people, or metrics until it is stopped."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from demo.stack import ROOT
from tests.helpers.handmade_tables import Files, add, offset, remove
from tests.helpers.workspace import WITHOUT_ROOT, wait_until_equal

import pytest

COMMAND = [sys.executable, "-m", "delta_watch"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def files(files: Files) -> Files:
    """The same table and consumer, with commits that are older than an hour."""
    committed = time.time() - 5000
    for commit in files.log.iterdir():
        os.utime(commit, (committed, committed))
    return files


def config(files: Files, more: str = "") -> Path:
    path = files.table.parent / "watch.toml"
    path.write_text(
        'interval = 0.1\n[tables]\norders = "table"\n'
        '[[consumer]]\nname = "fraud"\ntable = "orders"\ncheckpoint = "checkpoint"\n' + more
    )
    return path


def run(*arguments: str | Path, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*prefix, *COMMAND, *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, cwd="/", capture_output=True, text=True, timeout=60)


def once(files: Files, configuration: str) -> subprocess.CompletedProcess[str]:
    """Look once with this configuration."""
    path = files.table.parent / "watch.toml"
    path.write_text(configuration)
    return run(path, "--once")


def without_age(text: str) -> str:
    """Replace the age of the oldest commit, which depends on the clock."""
    return re.sub(r"(?m)^((?:\S+ +){5})([1-9][\d,]*)", lambda found: found[1] + "N".rjust(len(found[2])), text)


def test_once_prints_a_table(files: Files) -> None:
    more = '[[consumer]]\nname = "search"\ntable = "orders"\ncheckpoint = "up to date"\n'
    up_to_date = files.table.parent / "up to date"
    for kind, text in (("offsets", f"v1\n{{}}\n{offset(7)}"), ("commits", "v1\n{}")):
        (up_to_date / kind).mkdir(parents=True)
        (up_to_date / kind / "0").write_text(text)
    done = run(config(files, more), "--once")
    assert done.stderr == ""
    assert without_age(done.stdout).splitlines() == [
        "consumer  table   head  read  versions  seconds  files  bytes  rows  state",
        "fraud     orders     6     3         3        N      3    300     3  behind",
        "search    orders     6     6         0        0      0      0     0  up to date",
    ]
    assert done.returncode == 0


def test_once_with_rewrites_and_without_statistics(files: Files) -> None:
    files.commit(7, remove("6.parquet"), add("7.parquet"))
    files.commit(8, add("8.parquet", rows=None, size=1234567))
    done = run(config(files), "--once")
    assert without_age(done.stdout).splitlines()[1].split() == [
        *("fraud", "orders", "8", "3", "5", "N", "4", "1,234,867", "?", "behind,", "1", "rewrite")
    ]


def test_once_with_what_is_unknown(files: Files) -> None:
    more = '[[consumer]]\nname = "search"\ntable = "orders"\ncheckpoint = "none"\n'
    path = config(files, more + "[[consumer]]\nname = 'x'\ntable = 'no table'\ncheckpoint = 'checkpoint'\n")
    done = run(path, "--once")
    assert done.returncode == 2
    assert [line.split() for line in done.stdout.splitlines()[2:]] == [
        ["search", "orders", "6", "?", "?", "?", "?", "?", "?", "missing"],
        ["x", "no", "table", "?", "?", "?", "?", "?", "?", "?", "not_a_table"],
    ]
    folder = files.table.parent
    assert sorted(done.stderr.splitlines()) == [
        f"search of orders: there is no checkpoint at {folder}/none; check the path (missing)",
        f"x of no table: there is no Delta table at {folder}/no table; check the path (not_a_table)",
    ]


def test_once_inside_the_initial_snapshot(files: Files) -> None:
    files.read(1, offset(4, 0, initial=True))
    done = run(config(files), "--once")
    assert without_age(done.stdout).splitlines()[1].split() == [
        *("fraud", "orders", "6", "none", "7", "N", "5", "500", "5", "first", "read")
    ]


def test_table_without_a_consumer(files: Files) -> None:
    done = once(files, '[tables]\norders = "table"\n')
    assert done.returncode == 0
    assert done.stdout.splitlines()[1].split() == ["-", "orders", "6", "no", "consumer"]
    done = once(files, '[tables]\norders = "none"\n')
    assert done.returncode == 2
    assert done.stdout.splitlines()[1].split() == ["-", "orders", "?", "not_a_table"]


def test_pattern_that_matches_no_consumer(files: Files) -> None:
    discovery = '[tables]\norders = "table"\n[[discover]]\ntable = "orders"\ncheckpoints = "{}"\n'
    done = once(files, discovery.format("chekpoints/*"))
    assert done.returncode == 2
    assert done.stdout.splitlines()[1].split() == ["-", "orders", "6", "no", "consumer"]
    assert once(files, discovery.format("*")).returncode == 0


@pytest.mark.skipif(not WITHOUT_ROOT and os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize(("what", "reason"), [("table/_delta_log", "permission"), ("checkpoint/commits", "permission")])
def test_folder_without_permission(files: Files, what: str, reason: str) -> None:
    folder = files.table.parent / what
    bounding = (*WITHOUT_ROOT[:1], "--bounding-set=-dac_override,-dac_read_search") if WITHOUT_ROOT else ()
    path = config(files)
    folder.chmod(0)
    try:
        done = run(path, "--once", prefix=bounding)
    finally:
        folder.chmod(0o755)
    assert done.returncode == 2
    assert done.stdout.split()[-1] == reason
    assert "may not be read; give this user the permission (permission)\n" in done.stderr
    assert done.stderr.count("\n") == 1
    assert run(path, "--once", prefix=bounding).returncode == 0


def test_once_ends_although_a_store_hangs(files: Files) -> None:
    files.commit_path(6).unlink()
    os.mkfifo(files.commit_path(6))
    path = config(files)
    path.write_text(f"time_limit = 0.5\n{path.read_text()}")
    done = run(path, "--once")
    assert done.returncode == 2
    assert done.stdout.split()[-1] == "timeout"
    assert done.stderr == (
        "fraud of orders: the table orders has not answered within 0.5 seconds; check its store (timeout)\n"
    )


def test_mistake_in_the_configuration(files: Files) -> None:
    done = run(config(files, "nme = 1"), "--once")
    assert (done.returncode, done.stdout) == (1, "")
    path = files.table.parent / "watch.toml"
    assert done.stderr == f"Error: {path}, line 8: the key nme is unknown; perhaps it is name.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the following arguments are required: CONFIG.toml"),
        (("none.toml",), "the configuration none.toml cannot be read (no such file or directory); check its path"),
        (("none.toml", "--prot"), "unrecognized arguments: --prot"),
        (("none.toml", "--port", "x"), "argument --port: invalid int value: 'x'"),
    ],
)
def test_mistake_in_the_arguments(arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {message}")
    assert done.stderr.count("\n") == 1


@contextmanager
def running(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command, and yield it and the address of its metrics."""
    command = [*COMMAND, *map(str, arguments)]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            line = process.stderr.readline()
            yield process, line.removeprefix("Serving metrics at ").strip()
        finally:
            process.kill()


def lag(address: str) -> str | None:
    with urlopen(address, timeout=10) as response:
        found = re.search(r"(?m)^delta_consumer_lag_versions\{.*} (\d+)$", response.read().decode())
    return found[1] if found else None


def test_metrics_follow_the_table_until_interrupted(files: Files) -> None:
    with running(config(files), "--port", "0") as (process, address):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", address)
        wait_until_equal(lambda: lag(address), "3")
        files.append(7, 8)
        wait_until_equal(lambda: lag(address), "5")
        files.read(1, offset(9))
        wait_until_equal(lambda: lag(address), "0")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr
        assert process.stderr.read() == ""


def test_port_that_is_taken(files: Files) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run(config(files), "--port", port)
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: the metrics cannot be served at 127.0.0.1:{port} (address already in use); choose another --port or "
        "--address, or check the certificate.\n"
    )


def test_it_needs_no_spark(files: Files) -> None:
    code = "import sys; from delta_watch.__main__ import main; main(sys.argv[1:]); print('pyspark' in sys.modules)"
    command = [sys.executable, "-c", code, str(config(files)), "--once"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "False"
