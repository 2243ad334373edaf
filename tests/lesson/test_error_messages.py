"""What can be wrong with a table or a checkpoint: one sentence names it, and the fix that it names works."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, product
from pathlib import Path
from typing import Any

from tutorial.error_messages import error_message, known_message
from tutorial.reset import start_over
from tutorial.visits import TABLE, register_table

import visits_consumer
from tests.helpers.lesson_steps import NoGateway, Steps, clear_session
from tests.helpers.running_streams import v2_enabled

import pytest
from pyspark.sql import SparkSession

START_OVER = "start over with python create_table.py"


@pytest.fixture(params=[True, pytest.param(False, marks=pytest.mark.slow)], ids=["v2", "classic"])
def v2(request: pytest.FixtureRequest) -> bool:
    """Which of Delta's sources the consumer reads with."""
    return bool(request.param)


@pytest.fixture
def steps(
    request: pytest.FixtureRequest,
    v2: bool,
    spark: SparkSession,
    warehouses: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Steps:
    """The steps on a copy of a ready-made warehouse. By default the consumer has read all of a table at version 3."""
    warehouse = tmp_path / "ware house's"
    shutil.copytree(warehouses / getattr(request, "param", "read_to_3"), warehouse)
    monkeypatch.setenv("VISITS_WAREHOUSE", str(warehouse))
    steps = Steps(spark, warehouse, v2)
    steps.register()
    return steps


at_6_read_to_3 = pytest.mark.parametrize("steps", ["at_6_read_to_3"], indirect=True)


def message_of(step: Callable[[], object]) -> str:
    """Take a step that must fail, and return the sentence that a script would print."""
    with pytest.raises(Exception) as failure:  # noqa: PT011 the sentence is what is checked
        step()
    message = error_message(failure.value)
    assert "\n" not in message
    assert "LAG_DETECTOR_DEBUG" not in message.replace("(with LAG_DETECTOR_DEBUG=1 to see where)", ""), message
    assert "Exception" not in message
    return message


def set_checkpoint_aside_as_in(message: str, steps: Steps) -> None:
    """Run the command that a sentence names, which must destroy nothing."""
    command = re.search(r"mv .*?/visits_consumer\.old'?", message)
    assert command, message
    before = sorted(file.name for file in steps.disk.checkpoint.rglob("*"))
    subprocess.run(command[0], shell=True, check=True, timeout=60)
    assert sorted(file.name for file in steps.disk.checkpoint.with_suffix(".old").rglob("*")) == before


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "garbage": lambda content: b"garbage {",
    "truncated": lambda content: content[: len(content) // 2],
    "one bit flipped": lambda content: content[:40] + bytes([content[40] ^ 1]) + content[41:],
}


def damage(file: Path, how: str) -> None:
    """Damage a file, or delete it. Only a flipped bit is without a new checksum."""
    if how != "one bit flipped":
        (file.parent / f".{file.name}.crc").unlink(missing_ok=True)
    if how == "deleted":
        file.unlink()
    else:
        file.write_bytes(DAMAGES[how](file.read_bytes()))


def first_of(cases: Sequence[object], fast: int = 1) -> Iterator[Any]:
    """Yield all cases. Those after the first ones are slow: `make test` needs one of each kind."""
    for number, case in enumerate(cases):
        values = case if isinstance(case, tuple) else (case,)
        yield pytest.param(*values, marks=() if number < fast else pytest.mark.slow)


def each_once(files: Sequence[object], damages: Sequence[str]) -> Iterator[Any]:
    """Yield all pairs. Those that `make test` needs to see each file and each damage are not slow."""
    once = set(zip(cycle(files), damages, strict=False))
    for pair in product(files, damages):
        yield pytest.param(*pair, marks=() if pair in once else pytest.mark.slow)


@pytest.mark.parametrize("steps", ["read_to_6"], indirect=True)
@pytest.mark.parametrize(
    ("file", "how"), each_once(["offsets/1", "commits/1", "metadata"], ["empty", "garbage", "truncated", "deleted"])
)
def test_consumer_with_damaged_checkpoint_names_command_to_set_it_aside(file: str, how: str, steps: Steps) -> None:
    damage(steps.disk.checkpoint / file, how)
    if (file, how) != ("commits/1", "deleted"):  # then the batch counts as not done and is repeated
        message = message_of(steps.consume)
        assert f"checkpoint cannot be used: its file {file} is {'missing' if how == 'deleted' else 'dam'}" in message
        set_checkpoint_aside_as_in(message, steps)
    assert steps.consume() == 6


def test_consumer_when_checkpoint_is_a_file_leaves_it_alone(steps: Steps) -> None:
    shutil.rmtree(steps.disk.checkpoint)
    steps.disk.checkpoint.write_text("mine")
    assert "cannot be written" in message_of(steps.consume)
    assert steps.disk.checkpoint.read_text() == "mine"


def create_again_with_old_checkpoint(steps: Steps) -> None:
    shutil.rmtree(steps.disk.warehouse / "visits")
    checkpoint = shutil.copytree(steps.disk.checkpoint, steps.disk.warehouse / "kept")
    steps.create()
    shutil.copytree(checkpoint, steps.disk.checkpoint)


def lose_commits(steps: Steps) -> None:
    """As when an older copy of the table was restored."""
    for version in range(3, steps.disk.last_version() + 1):
        damage(steps.disk.commit(version), "deleted")
        damage(steps.disk.commit(version).with_suffix(".crc"), "deleted")


def lose_commits_of_unfinished_batch(steps: Steps) -> None:
    for version in (5, 6):
        damage(steps.disk.commit(version), "deleted")
        damage(steps.disk.commit(version).with_suffix(".crc"), "deleted")
    damage(steps.disk.checkpoint / "commits/1", "deleted")


def clean_up_log(steps: Steps) -> None:
    steps.clean_up_log()
    assert steps.disk.versions() == [7]


def rename_column(steps: Steps) -> None:
    steps.spark.sql(f"ALTER TABLE {TABLE} SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name')")
    steps.spark.sql(f"ALTER TABLE {TABLE} RENAME COLUMN page TO path")


@pytest.mark.parametrize(
    ("steps", "happens", "expected", "version"),
    [
        ("read_to_3", create_again_with_old_checkpoint, "checkpoint belongs to an earlier table", 0),
        ("read_to_6", lose_commits, "has read version 6, which the table", 2),
        ("read_to_6", lose_commits_of_unfinished_batch, "has read version 6, which the table", 4),
        ("at_6_read_to_3", clean_up_log, "log was cleaned up", 7),
        ("read_to_3", rename_column, "a column of the table was renamed, dropped or changed its type", 5),
    ],
    indirect=["steps"],
)
def test_consumer_with_checkpoint_that_does_not_fit_the_table_names_command_to_set_it_aside(
    steps: Steps, happens: Callable[[Steps], None], expected: str, version: int
) -> None:
    happens(steps)
    message = message_of(steps.consume)
    assert expected in message
    set_checkpoint_aside_as_in(message, steps)
    assert steps.consume() == version


MERGE = "MERGE INTO {} USING (SELECT 1) ON visit_id = 'visit 1-0' WHEN MATCHED THEN UPDATE SET page = '/'"


@pytest.mark.parametrize(
    ("change", "expected"),
    first_of(
        [
            ("DELETE FROM {} WHERE visit_id = 'visit 1-0'", "changed existing rows (DELETE)"),
            ("DELETE FROM {}", "deleted existing rows"),
            ("UPDATE {} SET page = 'other' WHERE visit_id = 'visit 1-0'", "changed existing rows (UPDATE)"),
            (MERGE, "changed existing rows (MERGE)"),
            ("INSERT OVERWRITE {0} SELECT * FROM {0}", "changed existing rows (WRITE)"),
        ],
        fast=2,
    ),
)
def test_consumer_after_existing_rows_changed_names_two_ways_to_continue(
    change: str, expected: str, steps: Steps
) -> None:
    steps.spark.sql(change.format(TABLE))
    message = message_of(steps.consume)
    assert f"version 4 of the table {expected}" in message
    assert '.option("skipChangeCommits", "true")' in message
    assert steps.consume(skipChangeCommits="true") == 4
    set_checkpoint_aside_as_in(message, steps)
    assert steps.consume() == 4


@at_6_read_to_3
def test_consumer_continues_checkpoint_of_the_other_source(steps: Steps) -> None:
    """As after an update of the tutorial, or on a cluster."""
    for version in (6, 9):
        steps.v2 = not steps.v2
        assert steps.consume() == version
        steps.write()


def test_consumer_when_table_gets_a_column_while_it_runs_says_run_again(steps: Steps) -> None:
    with v2_enabled(steps.spark, steps.v2):
        stream = steps.spark.readStream.table(TABLE).writeStream.foreachBatch(lambda rows, batch_id: None)
    stream = stream.option("checkpointLocation", str(steps.disk.checkpoint)).trigger(processingTime="0 seconds")
    query = stream.start()
    query.processAllAvailable()
    steps.spark.sql(f"ALTER TABLE {TABLE} ADD COLUMN referrer STRING")
    steps.spark.sql(f"INSERT INTO {TABLE} VALUES ('visit 4', now(), 'user 4', '/', 'here')")
    message = message_of(lambda: query.awaitTermination(60))
    assert "columns changed while the consumer was running; run it again" in message
    assert "mv " not in message
    assert steps.consume() == 5


@at_6_read_to_3
def test_consumer_when_batch_function_fails_names_cause_and_repeats_batch(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This is the first error that you meet when you replace the function with your own."""
    with monkeypatch.context() as patch:
        patch.setattr(visits_consumer, "print_visits", lambda rows, batch_id: int("many"))
        message = message_of(steps.consume)
    assert "a batch failed (ValueError: invalid literal for int() with base 10: 'many')" in message
    assert steps.consume() == 6


@at_6_read_to_3
@pytest.mark.parametrize(("version", "how"), each_once([6, 0, 3, 5], [*DAMAGES, "deleted"]))
def test_consumer_with_damaged_log_says_start_over(version: int, how: str, steps: Steps) -> None:
    damage(steps.disk.commit(version), how)
    if (version, how, steps.v2) == (6, "deleted", False):
        assert steps.consume() == 5  # the classic source does not see that there was one more
        return
    message = message_of(steps.consume)
    assert (f"{version:020d}.json is empty" if how == "empty" else "log") in message
    assert START_OVER in message
    steps.create()
    assert steps.consume() == 0


@at_6_read_to_3
@pytest.mark.parametrize("how", first_of(["truncated", "empty", "garbage", "one bit flipped"]))
def test_consumer_with_damaged_log_checkpoint_says_start_over(how: str, steps: Steps) -> None:
    for _ in range(2):
        steps.write()
    damage(steps.disk.log / f"{10:020d}.checkpoint.parquet", how)
    if how == "empty":
        assert steps.consume() == 12  # Delta falls back to the commits
        return
    shutil.rmtree(steps.disk.checkpoint)  # a consumer at version 3 does not need the log's checkpoint
    assert START_OVER in message_of(steps.consume)


@pytest.mark.parametrize("how", first_of(["deleted", "one bit flipped", "empty", "garbage", "truncated"], fast=2))
def test_consumer_with_damaged_data_file_names_it(how: str, steps: Steps) -> None:
    before = set(steps.disk.data())
    steps.write()
    file = (set(steps.disk.data()) - before).pop()
    damage(file, how)
    message = message_of(steps.consume)
    assert file.name in message
    assert START_OVER in message


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("free", first_of([0, 4_000, 16_000]))
def test_steps_when_disk_is_full_keep_the_checkpoint(
    free: int, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up before the consumer's first file, or between two of its files."""
    monkeypatch.setenv("VISITS_WAREHOUSE", str(tmp_path))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(tmp_path)], check=True, timeout=60)
    try:
        steps = Steps(spark, tmp_path)
        steps.create()
        steps.write()
        disk = os.statvfs(tmp_path)
        (tmp_path / "filler").write_bytes(b"x" * (disk.f_bavail * disk.f_bsize - free))
        for step in (steps.consume, steps.write) if free == 0 else (steps.consume,):
            assert message_of(step).startswith("a disk is full, the warehouse's or")
        (tmp_path / "filler").unlink()
        if any((steps.disk.checkpoint / "offsets").glob(".*.tmp")):  # what Spark leaves behind makes it refuse to start
            message = message_of(steps.consume)
            assert "a run was interrupted before its first batch, and nothing has been read yet" in message
            set_checkpoint_aside_as_in(message, steps)
        assert steps.consume() == 3
    finally:
        clear_session(spark)
        # Spark may still have a file open that it could not write.
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True, timeout=60)


@pytest.mark.parametrize(
    ("warehouse", "expected"),
    [
        ("s3a://bucket/visits", "Spark has no file system for s3a://bucket/visits"),
        ("foo://host/visits", "Spark has no file system for foo://host/visits"),
        ("hdfs://127.0.0.1:{port}/visits", "does not answer at localhost:{port}"),
    ],
)
def test_steps_when_file_system_is_missing_name_it(
    warehouse: str, expected: str, spark: SparkSession, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISITS_WAREHOUSE", warehouse.format(port=closed_port))
    for step in (register_table, lambda spark: start_over(spark, NoGateway())):
        assert expected.format(port=closed_port) in message_of(lambda step=step: step(spark))  # type: ignore[misc]


def test_known_message_for_bucket_that_refuses_connections_names_its_address() -> None:
    log = "Unable to execute HTTP request: Connect to 127.0.0.1:9000 [/127.0.0.1] failed: Connection refused"
    assert "does not answer at 127.0.0.1:9000" in str(known_message(f"SdkClientException: {log}"))


def test_known_message_for_proxy_with_own_certificate_names_the_trust_store() -> None:
    log = "Server access error at url https://example.org/x.pom (SSLHandshakeException: PKIX path building failed)"
    assert "JAVA_TOOL_OPTIONS" in str(known_message(f"{log}\nunresolved dependency: io.delta#delta-spark;4.4.0"))
