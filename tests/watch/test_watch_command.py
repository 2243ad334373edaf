"""The command: a table for people, JSON for scripts, or metrics until it is stopped."""

import json
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

import psutil
import pytest

COMMAND = [sys.executable, "-m", "delta_watch"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


CONSUMER = '[[consumer]]\nname = "{}"\ntable = "{}"\ncheckpoint = "{}"\n'
FRAUD = 'interval = 0.1\n[tables]\norders = "table"\n' + CONSUMER.format("fraud", "orders", "checkpoint")


def config(files: Files, text: str = FRAUD) -> Path:
    path = files.table.parent / "watch.toml"
    path.with_suffix(".new").write_text(text)
    return path.with_suffix(".new").rename(path)


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
    text += CONSUMER.format("lost", "orders", "none") + CONSUMER.format("x", "./none", "checkpoint")
    done = run(config(files, text), "--once")
    assert re.sub(r"\b5,0\d\d\b", "5,0NN", done.stdout).splitlines() == [
        "consumer  table   head  read  versions  seconds  files      bytes  rows  state",
        "fraud     orders     8     6         2    5,0NN      1  1,234,567     ?  behind, 1 rewrite",
        "behind    orders     8     3         5    5,0NN      4  1,234,867     ?  behind, 1 rewrite",
        "search    orders     8     8         0        0      0          0     0  up to date",
        "new       orders     8  none         9    5,0NN      6  1,235,067     ?  first read",
        "lost      orders     8     ?         ?        ?      ?          ?     ?  missing",
        "x         ./none     ?     ?         ?        ?      ?          ?     ?  not_a_table",
    ]
    folder = files.table.parent
    assert sorted(done.stderr.splitlines()) == [
        f"lost of orders: there is no checkpoint at {folder}/none; check the path (missing)",
        f"x of ./none: there is no Delta table at {folder}/none; check the path (not_a_table)",
    ]
    assert done.returncode == 2


def test_once_prints_json(files: Files) -> None:
    files.commit(7, add("7.parquet", rows=None))
    committed = time.time() - 5000
    for commit in files.log.iterdir():
        os.utime(commit, (committed, committed))
    done = run(config(files, FRAUD + CONSUMER.format("lost", "orders", "none")), "--once", "--format", "json")
    assert done.returncode == 2
    fraud, lost = json.loads(done.stdout)["consumers"]
    assert fraud.pop("lag_seconds") == pytest.approx(5000, abs=60)
    assert fraud == {
        "table": "orders",
        "consumer": "fraud",
        "table_version": 7,
        "version": 3,
        "lag_versions": 4,
        "backlog_files": 4,
        "backlog_bytes": 400,
        "backlog_rows": None,
        "state": "behind",
        "reason": None,
    }
    known = {"table": "orders", "consumer": "lost", "table_version": 7, "state": "unknown", "reason": "missing"}
    assert lost == {**dict.fromkeys(fraud), "lag_seconds": None, **known}


def test_unknown_part_of_a_lag_is_exit_code_2(files: Files) -> None:
    assert run(config(files), "--once").returncode == 0
    files.commit(7, add("7.parquet", rows=None))
    assert run(config(files), "--once").returncode == 2
    files.read(1, offset(4, 2, initial=True))
    files.checksum(7)
    files.commit_path(0).unlink()
    done = run(config(files), "--once")
    assert (done.returncode, done.stderr) == (2, "")


def test_check(files: Files) -> None:
    done = run(config(files), "--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "The configuration is valid. 1 table, 1 consumer, 0 patterns, 0 lakes.\n"
    assert run(config(files, f"{FRAUD}nme = 1"), "--check").returncode == 1


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
        ((), "the following arguments are required: TARGET"),
        (("none.toml",), "the configuration none.toml cannot be read (no such file or directory); check its path"),
        (("none.toml", "--prot"), "unrecognized arguments: --prot"),
        (("none.toml", "--format", "yaml"), "argument --format: invalid choice: 'yaml' (choose from"),
        (("none.toml", "--port", "x"), "argument --port: invalid int value: 'x'"),
        (("examples/watch.toml", "--port", "70000"), "--port must be from 0 to 65535; delta-watch --help lists"),
    ],
)
def test_mistake_in_the_arguments(arguments: tuple[str, ...], message: str) -> None:
    done = run(*(ROOT / argument if "/" in argument else argument for argument in arguments))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"Error: {message}")


TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


@contextmanager
def running(*arguments: str | Path, prefix: tuple[str, ...] = ()) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command, and yield it and the address of its metrics."""
    command = [*prefix, *COMMAND, *map(str, arguments)]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = next_line(process)
            found = re.fullmatch(rf"{TIME} INFO Serving a page at (.*/) and metrics at (\1metrics)\n", line)
            assert found, line
            yield process, found[2]
        finally:
            process.kill()


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stderr
    return process.stderr.readline()


def value(address: str, metric: str = "delta_consumer_lag_versions") -> str | None:
    with urlopen(address, timeout=10) as response:
        found = re.search(rf"(?m)^{metric}(?:\{{.*}})? (\d+)\.0$", response.read().decode())
    return found[1] if found else None


@pytest.mark.parametrize(
    ("address", "host", "ending"),
    [("127.0.0.1", r"127\.0\.0\.1", signal.SIGINT), ("::1", r"\[::1\]", signal.SIGTERM)],
)
def test_metrics_follow_the_table_until_the_end(files: Files, address: str, host: str, ending: signal.Signals) -> None:
    with running(config(files), "--port", "0", "--address", address) as (process, url):
        assert re.fullmatch(rf"http://{host}:\d+/metrics", url)
        wait_until_equal(lambda: value(url), "3")
        files.append(7, 8)
        wait_until_equal(lambda: value(url), "5")
        files.read(1, offset(9))
        wait_until_equal(lambda: value(url), "0")
        process.send_signal(ending)
        assert process.wait(20) == 0
        assert next_line(process) == ""


def test_it_ends_at_once_without_an_init_and_while_a_store_hangs(files: Files) -> None:
    os.mkfifo(files.checkpoint / "commits" / "1")
    (files.checkpoint / "offsets" / "1").symlink_to("0")
    unshare = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")
    if subprocess.run([*unshare, "true"], capture_output=True, timeout=20).returncode:
        pytest.skip("this machine allows no process 1 of our own")
    with running(config(files, f"time_limit = 600\n{FRAUD}"), "--port", "0", prefix=unshare) as (process, _):
        (first,) = psutil.Process(process.pid).children()
        first.terminate()
        assert process.wait(5) == 0


def test_configuration_is_read_again_when_it_changes_or_on_sighup(files: Files) -> None:
    path = config(files)
    successful = "delta_watch_config_last_reload_successful"
    with running(path, "--port", "0") as (process, url):
        wait_until_equal(lambda: value(url), "3")
        config(files, f"{FRAUD}nme = 1")
        refused = "The configuration is not reloaded, and the old one stays"
        assert re.fullmatch(f"{TIME} ERROR {refused}: {path}, line 8: the key nme is .*\n", next_line(process))
        assert (value(url), value(url, successful)) == ("3", "0")
        config(files, f"{FRAUD}[web]\naddress = '::1'")
        assert next_line(process).endswith("[web] has changed, which needs a restart\n")
        config(files, FRAUD.replace('"fraud"', '"search"'))
        reloaded = rf"{TIME} INFO The configuration is reloaded: 1 table, 1 consumer, 0 patterns, 0 lakes\n"
        assert re.fullmatch(reloaded, next_line(process))
        wait_until_equal(lambda: value(url, 'delta_watch_up{consumer="search",table="orders"}'), "1")
        assert (value(url), value(url, successful)) == ("3", "1")
        process.send_signal(signal.SIGHUP)
        assert re.fullmatch(reloaded, next_line(process))
        path.unlink()
        assert next_line(process).endswith("cannot be read (no such file or directory); check its path\n")
        assert (value(url), value(url, successful)) == ("3", "0")


def test_log_level(files: Files) -> None:
    (files.checkpoint / "offsets" / "0").write_text("garbage")
    path = config(files)
    with running(path, "--port", "0", "--log-level", "debug") as (process, _):
        assert re.fullmatch(rf"{TIME} WARNING fraud of orders: .* \(corrupt\)\n", next_line(process))
        assert re.fullmatch(rf"{TIME} DEBUG Round 1 took \d\.\d\d seconds\n", next_line(process))
    assert run(path, "--once", "--log-level", "error").stderr == ""


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
