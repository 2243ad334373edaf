"""The command: a table for people, or metrics until it is stopped."""

import os
import re
import shutil
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
from tests.helpers.handmade_tables import Files, add, batch_text, offset, remove
from tests.helpers.workspace import WITHOUT_ROOT, wait_until_equal

import pytest

COMMAND = [sys.executable, "-m", "delta_watch"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


CONSUMER = '[[consumer]]\nname = "{}"\ntable = "{}"\ncheckpoint = "{}"\n'
FRAUD = 'interval = 0.1\n[tables]\norders = "table"\n' + CONSUMER.format("fraud", "orders", "checkpoint")


def config(files: Files, text: str = FRAUD) -> Path:
    path = files.table.parent / "watch.toml"
    path.write_text(text)
    return path


def run(*arguments: str | Path, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*prefix, *COMMAND, *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, cwd="/", capture_output=True, text=True, timeout=60)


def test_once_prints_a_table(files: Files) -> None:
    files.commit(7, remove("6.parquet"), add("7.parquet"))
    files.commit(8, add("8.parquet", rows=None, size=1234567))
    files.read(1, offset(7))
    committed = time.time() - 5000
    for commit in files.log.iterdir():
        os.utime(commit, (committed, committed))
    text = FRAUD
    offsets = {"behind": offset(4), "search": offset(9), "new": offset(8, 0, initial=True)}
    for name, position in offsets.items():
        checkpoint = files.table.parent / name
        shutil.copytree(files.checkpoint, checkpoint)
        (checkpoint / "offsets" / "1").write_text(batch_text(position))
        text += CONSUMER.format(name, "orders", name)
    text += CONSUMER.format("lost", "orders", "none") + CONSUMER.format("x", "no table", "checkpoint")
    done = run(config(files, text), "--once")
    assert re.sub(r"\b5,0\d\d\b", "5,0NN", done.stdout).splitlines() == [
        "consumer  table     head  read  versions  seconds  files      bytes  rows  state",
        "fraud     orders       8     6         2    5,0NN      1  1,234,567     ?  behind, 1 rewrite",
        "behind    orders       8     3         5    5,0NN      4  1,234,867     ?  behind, 1 rewrite",
        "search    orders       8     8         0        0      0          0     0  up to date",
        "new       orders       8  none         9    5,0NN      6  1,235,067     ?  first read",
        "lost      orders       8     ?         ?        ?      ?          ?     ?  missing",
        "x         no table     ?     ?         ?        ?      ?          ?     ?  not_a_table",
    ]
    folder = files.table.parent
    assert sorted(done.stderr.splitlines()) == [
        f"lost of orders: there is no checkpoint at {folder}/none; check the path (missing)",
        f"x of no table: there is no Delta table at {folder}/no table; check the path (not_a_table)",
    ]
    assert done.returncode == 2


TABLE = '[tables]\norders = "table"\n'
DISCOVER = TABLE + '[[discover]]\ntable = "orders"\ncheckpoints = "{}"\n'


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        (TABLE, 0, "- orders 6 no consumer"),
        ('[tables]\norders = "none"\n', 2, "- orders ? not_a_table"),
        (DISCOVER.format("chekpoints/*"), 2, "- orders 6 no consumer"),
        (DISCOVER.format("*"), 0, "checkpoint orders 6 3 3 0 3 300 3 behind"),
    ],
)
def test_once_with_a_table_or_a_pattern_alone(files: Files, text: str, code: int, line: str) -> None:
    now = time.time() + 60
    for commit in files.log.iterdir():
        os.utime(commit, (now, now))
    done = run(config(files, text), "--once")
    assert (done.returncode, " ".join(done.stdout.splitlines()[1].split())) == (code, line)


@pytest.mark.skipif(not WITHOUT_ROOT and os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("path", ["table/_delta_log", "checkpoint/commits"])
def test_folder_without_permission(files: Files, path: str) -> None:
    folder = files.table.parent / path
    bounding = (*WITHOUT_ROOT[:1], "--bounding-set=-dac_override,-dac_read_search") if WITHOUT_ROOT else ()
    folder.chmod(0)
    try:
        done = run(config(files), "--once", prefix=bounding)
    finally:
        folder.chmod(0o755)
    assert (done.returncode, done.stdout.split()[-1]) == (2, "permission")
    assert done.stderr.startswith(f"fraud of orders: {folder}")
    assert done.stderr.endswith(" may not be read; give this user the permission (permission)\n")
    assert done.stderr.count("\n") == 1
    assert run(config(files), "--once", prefix=bounding).returncode == 0


def test_once_ends_although_a_store_hangs(files: Files) -> None:
    files.commit_path(6).unlink()
    os.mkfifo(files.commit_path(6))
    done = run(config(files, f"time_limit = 0.5\n{FRAUD}"), "--once")
    assert (done.returncode, done.stdout.split()[-1]) == (2, "timeout")
    assert done.stderr == (
        "fraud of orders: the table orders has not answered within 0.5 seconds; check its store (timeout)\n"
    )


def test_mistake_in_the_configuration(files: Files) -> None:
    path = config(files, f"{FRAUD}nme = 1")
    done = run(path, "--once")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: {path}, line 8: the key nme is unknown; perhaps it is name.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the following arguments are required: CONFIG.toml"),
        (("none.toml",), "the configuration none.toml cannot be read (no such file or directory); check its path"),
        (("none.toml", "--prot"), "unrecognized arguments: --prot"),
        (("none.toml", "--port", "x"), "argument --port: invalid int value: 'x'"),
        (("examples/watch.toml", "--port", "70000"), "--port must be from 0 to 65535; delta-watch --help lists"),
    ],
)
def test_mistake_in_the_arguments(arguments: tuple[str, ...], message: str) -> None:
    done = run(*(ROOT / argument if "/" in argument else argument for argument in arguments))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"Error: {message}")


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
        found = re.search(r"(?m)^delta_consumer_lag_versions\{.*} (\d+)\.0$", response.read().decode())
    return found[1] if found else None


@pytest.mark.parametrize(("address", "host"), [("127.0.0.1", r"127\.0\.0\.1"), ("::1", r"\[::1\]")])
def test_metrics_follow_the_table_until_interrupted(files: Files, address: str, host: str) -> None:
    with running(config(files), "--port", "0", "--address", address) as (process, url):
        assert re.fullmatch(rf"http://{host}:\d+/metrics", url)
        wait_until_equal(lambda: lag(url), "3")
        files.append(7, 8)
        wait_until_equal(lambda: lag(url), "5")
        files.read(1, offset(9))
        wait_until_equal(lambda: lag(url), "0")
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


def test_it_needs_no_spark_and_names_what_it_needs(files: Files) -> None:
    code = "import sys; sys.modules['{}'] = None; from delta_watch.__main__ import main; sys.exit(main(sys.argv[1:]))"

    def without(module: str) -> tuple[int, str]:
        command = [sys.executable, "-c", code.format(module), str(config(files)), "--once"]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stderr

    assert without("pyspark") == (0, "")
    assert without("obstore") == (1, "Error: obstore is not installed; run pip install 'lag-detector[watch]'.\n")
