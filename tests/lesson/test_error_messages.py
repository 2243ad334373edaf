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
from tests.helpers.lesson_steps import NoGateway, Steps, Warehouses, clear_session

import pytest
from pyspark.errors import StreamingQueryException
from pyspark.sql import SparkSession

Damage = Callable[[Path], None]


@pytest.fixture
def steps_on(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Steps]:
    """A function that returns the steps on a copy of a warehouse."""

    def copy(ready_made: Path) -> Steps:
        warehouse = tmp_path / "ware house's"
        monkeypatch.setenv("VISITS_WAREHOUSE", str(warehouse))
        steps = Steps(spark, shutil.copytree(ready_made, warehouse))
        steps.register()
        return steps

    return copy


@pytest.fixture
def steps(steps_on: Callable[[Path], Steps], warehouses: Warehouses) -> Steps:
    """The steps on a table at version 3, all of which the consumer has read."""
    return steps_on(warehouses.read_to_3)


@pytest.fixture
def steps_at_6(steps_on: Callable[[Path], Steps], warehouses: Warehouses) -> Steps:
    """The steps on a table at version 6. The consumer has read version 3."""
    return steps_on(warehouses.at_6_read_to_3)


def message_of(step: Callable[[], object]) -> str:
    """Take a step that must fail, and return the sentence that a script would print."""
    with pytest.raises(Exception) as failure:  # noqa: PT011 the sentence is what is checked
        step()
    message = error_message(failure.value)
    assert "\n" not in message
    assert "Exception" not in message
    assert "LAG_DETECTOR_DEBUG" not in message, f"there is no sentence for it: {message}"
    return message


def set_checkpoint_aside_as_in(message: str, steps: Steps) -> None:
    """Run the command that a sentence names, which must destroy nothing."""
    command = re.search(r"mv .*?/visits_consumer\.old'?", message)
    assert command, message
    before = sorted(file.name for file in steps.disk.checkpoint.rglob("*"))
    subprocess.run(command[0], shell=True, check=True, timeout=60)
    assert sorted(file.name for file in steps.disk.checkpoint.with_suffix(".old").rglob("*")) == before


def empty(file: Path) -> None:
    rewrite(file, "")


def garble(file: Path) -> None:
    rewrite(file, "garbage {")


def truncate(file: Path) -> None:
    content = file.read_bytes()
    delete_checksum(file)
    file.write_bytes(content[: len(content) // 2])


def flip_bit(file: Path) -> None:
    """Change one byte and keep the old checksum."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def delete(file: Path) -> None:
    delete_checksum(file)
    file.unlink()


def rewrite(file: Path, text: str) -> None:
    delete_checksum(file)
    file.write_text(text)


def delete_checksum(file: Path) -> None:
    (file.parent / f".{file.name}.crc").unlink(missing_ok=True)


def first_of(cases: Sequence[object], fast: int = 1) -> Iterator[Any]:
    """Yield all cases. Those after the first ones are slow: `make test` needs one of each kind."""
    for number, case in enumerate(cases):
        values = case if isinstance(case, tuple) else (case,)
        yield pytest.param(*values, marks=() if number < fast else pytest.mark.slow)


def each_once(files: Sequence[object], damages: Sequence[Damage]) -> Iterator[Any]:
    """Yield all pairs. Those that `make test` needs to see each file and each damage are not slow."""
    once = set(zip(cycle(files), damages, strict=False))
    for pair in product(files, damages):
        yield pytest.param(*pair, marks=() if pair in once else pytest.mark.slow)


@pytest.mark.parametrize(
    ("file", "damage"), each_once(["offsets/1", "commits/1", "metadata"], [empty, garble, truncate, delete])
)
def test_consumer_with_damaged_checkpoint_names_command_to_set_it_aside(
    file: str, damage: Damage, steps_on: Callable[[Path], Steps], warehouses: Warehouses
) -> None:
    steps = steps_on(warehouses.read_to_6)
    damage(steps.disk.checkpoint / file)
    if (file, damage) == ("commits/1", delete):
        assert steps.consume() == 6  # the batch counts as not done and is repeated
        return
    message = message_of(steps.consume)
    assert f"checkpoint cannot be used: its file {file} is {'missing' if damage is delete else 'damaged'}" in message
    set_checkpoint_aside_as_in(message, steps)
    assert steps.consume() == 6


def test_consumer_when_table_gets_a_column_while_it_runs_says_run_again(steps: Steps) -> None:
    stream = steps.spark.readStream.table(TABLE).writeStream.foreachBatch(lambda rows, batch_id: None)
    query = stream.option("checkpointLocation", str(steps.disk.checkpoint)).trigger(processingTime="0 seconds").start()
    query.processAllAvailable()
    steps.spark.sql(f"ALTER TABLE {TABLE} ADD COLUMN referrer STRING")
    steps.spark.sql(f"INSERT INTO {TABLE} VALUES ('visit 4', now(), 'user 4', '/', 'here')")
    message = message_of(lambda: query.awaitTermination(60))
    assert "columns changed while the consumer was running; run it again" in message
    assert "mv " not in message
    assert steps.consume() == 5


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
            message = message_of(step)
            assert message.startswith("a disk is full, the warehouse's or")
        (tmp_path / "filler").unlink()
        if any((steps.disk.checkpoint / "offsets").glob(".*.tmp")):  # what Spark leaves behind makes it refuse to start
            message = message_of(steps.consume)
            assert "a run was interrupted before its first batch, and nothing has been read yet" in message
            set_checkpoint_aside_as_in(message, steps)
        assert steps.consume() == 3
    finally:
        clear_session(spark)
        subprocess.run(["umount", str(tmp_path)], check=True, timeout=60)


def test_consumer_when_checkpoint_is_a_file_leaves_it_alone(steps: Steps) -> None:
    shutil.rmtree(steps.disk.checkpoint)
    steps.disk.checkpoint.write_text("mine")
    assert "cannot be written" in message_of(steps.consume)
    assert steps.disk.checkpoint.read_text() == "mine"


@pytest.mark.parametrize(("version", "damage"), each_once([6, 0, 3, 5], [empty, garble, truncate, flip_bit, delete]))
def test_consumer_with_damaged_log_says_start_over(version: int, damage: Damage, steps_at_6: Steps) -> None:
    damage(steps_at_6.disk.commit(version))
    if (version, damage) == (6, delete):
        assert steps_at_6.consume() == 5  # nothing shows that there was one more
        return
    message = message_of(steps_at_6.consume)
    assert f"{version:020d}.json is empty" in message if damage is empty else "log" in message
    assert "start over with python create_table.py" in message
    steps_at_6.create()
    assert steps_at_6.consume() == 0


@pytest.mark.parametrize("damage", first_of([truncate, empty, garble, flip_bit]))
def test_consumer_with_damaged_log_checkpoint_says_start_over(damage: Damage, steps_at_6: Steps) -> None:
    for _ in range(2):
        steps_at_6.write()
    damage(steps_at_6.disk.log / f"{10:020d}.checkpoint.parquet")
    if damage is empty:
        assert steps_at_6.consume() == 12  # Delta falls back to the commits
        return
    shutil.rmtree(steps_at_6.disk.checkpoint)  # a consumer at version 3 does not need the log's checkpoint
    assert "start over with python create_table.py" in message_of(steps_at_6.consume)


@pytest.mark.parametrize("damage", first_of([delete, flip_bit, empty, garble, truncate], fast=2))
def test_consumer_with_damaged_data_file_names_it(damage: Damage, steps: Steps) -> None:
    before = set(steps.disk.data())
    steps.write()
    file = (set(steps.disk.data()) - before).pop()
    damage(file)
    message = message_of(steps.consume)
    assert file.name in message
    assert "start over with python create_table.py" in message


@pytest.mark.parametrize(
    ("change", "expected"),
    first_of(
        [
            ("DELETE FROM {}", "deleted existing rows"),
            ("UPDATE {} SET page = 'other' WHERE visit_id = 'visit 1-0'", "changed existing rows (UPDATE)"),
            (
                "MERGE INTO {} USING (SELECT 1) ON visit_id = 'visit 1-0' WHEN MATCHED THEN UPDATE SET page = '/'",
                "changed existing rows (MERGE)",
            ),
            ("INSERT OVERWRITE {0} SELECT * FROM {0}", "changed existing rows (WRITE)"),
        ]
    ),
)
def test_consumer_after_existing_rows_changed_names_the_change(change: str, expected: str, steps: Steps) -> None:
    steps.spark.sql(change.format(TABLE))
    assert f"version 4 of the table {expected}" in message_of(steps.consume)


def test_consumer_after_existing_rows_changed_names_two_ways_to_continue(steps: Steps) -> None:
    steps.spark.sql(f"DELETE FROM {TABLE} WHERE visit_id = 'visit 1-0'")
    message = message_of(steps.consume)
    assert "version 4 of the table changed existing rows (DELETE)" in message
    assert '.option("skipChangeCommits", "true")' in message
    assert steps.consume(skipChangeCommits="true") == 4
    set_checkpoint_aside_as_in(message, steps)
    assert steps.consume() == 4


def test_consumer_with_checkpoint_of_earlier_table_names_command_to_set_it_aside(steps: Steps) -> None:
    shutil.rmtree(steps.disk.warehouse / "visits")
    checkpoint = shutil.copytree(steps.disk.checkpoint, steps.disk.warehouse / "kept")
    steps.create()
    shutil.copytree(checkpoint, steps.disk.checkpoint)
    message = message_of(steps.consume)
    assert "checkpoint belongs to an earlier table" in message
    set_checkpoint_aside_as_in(message, steps)
    assert steps.consume() == 0


def test_consumer_with_checkpoint_ahead_of_table_names_command_to_set_it_aside(steps: Steps) -> None:
    for version in (2, 3):
        delete(steps.disk.commit(version))
    message = message_of(steps.consume)
    assert "has read version 3, which the table" in message
    set_checkpoint_aside_as_in(message, steps)
    assert steps.consume() == 1


def test_consumer_after_log_clean_up_names_command_to_set_checkpoint_aside(steps_at_6: Steps) -> None:
    steps_at_6.clean_up_log()
    assert steps_at_6.disk.versions() == [7]
    message = message_of(steps_at_6.consume)
    assert "log was cleaned up" in message
    set_checkpoint_aside_as_in(message, steps_at_6)
    assert steps_at_6.consume() == 7


def test_consumer_when_batch_function_fails_names_cause_and_repeats_batch(
    steps_at_6: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This is the first error that you meet when you replace the function with your own."""
    with monkeypatch.context() as patch:
        patch.setattr(visits_consumer, "print_visits", lambda rows, batch_id: int("many"))
        with pytest.raises(StreamingQueryException) as failure:
            steps_at_6.consume()
    message = error_message(failure.value)
    assert (
        "the function that processes a batch failed (ValueError: invalid literal for int() with base 10: 'many')"
        in message
    )
    assert steps_at_6.consume() == 6


def test_consumer_after_column_was_renamed_names_command_to_set_checkpoint_aside(steps: Steps) -> None:
    steps.spark.sql(f"ALTER TABLE {TABLE} SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name')")
    steps.spark.sql(f"ALTER TABLE {TABLE} RENAME COLUMN page TO path")
    message = message_of(steps.consume)
    assert "a column of the table was renamed, dropped or changed its type" in message
    set_checkpoint_aside_as_in(message, steps)
    assert steps.consume() == 5


@pytest.mark.parametrize(
    ("warehouse", "expected"),
    [
        ("s3a://bucket/visits", "Spark has no file system for s3a://bucket/visits"),
        ("foo://host/visits", "Spark has no file system for foo://host/visits"),
        ("hdfs://127.0.0.1:1/visits", "does not answer at localhost:1"),
    ],
)
def test_steps_when_file_system_is_missing_name_it(
    warehouse: str, expected: str, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISITS_WAREHOUSE", warehouse)
    for step in (register_table, lambda spark: start_over(spark, NoGateway())):
        assert expected in message_of(lambda step=step: step(spark))  # type: ignore[misc]


ODD_NAME = 'with space, it\'s "a" `tick` 100% %20 a#b k=v naïve 店 a;b,c [x] {y} a&b a?*'


@pytest.mark.parametrize("form", first_of(["link", "relative", "{}", "file:{}", "{}/", "file://{}/"], fast=2))
def test_steps_with_any_form_of_warehouse_succeed(
    form: str, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ODD_NAME
    monkeypatch.chdir(tmp_path)
    if form == "link":
        (tmp_path / "target").mkdir()
        folder.symlink_to(tmp_path / "target")
    monkeypatch.setenv(
        "VISITS_WAREHOUSE", ODD_NAME if form == "relative" else form.format(folder) if "{" in form else str(folder)
    )
    steps = Steps(spark, folder)
    steps.create()
    steps.write()
    assert steps.consume() == 3
    assert sorted(file.name for file in folder.iterdir()) == ["checkpoints", "visits"]
    steps.create()
    assert not steps.disk.checkpoint.exists()


def test_bucket_whose_server_refuses_connections_names_the_address() -> None:
    log = "Unable to execute HTTP request: Connect to 127.0.0.1:9000 [/127.0.0.1] failed: Connection refused"
    assert "does not answer at 127.0.0.1:9000" in str(known_message(f"SdkClientException: {log}"))


def test_fetch_through_proxy_with_own_certificate_names_the_trust_store() -> None:
    log = "Server access error at url https://example.org/x.pom (SSLHandshakeException: PKIX path building failed)"
    assert "JAVA_TOOL_OPTIONS" in str(known_message(f"{log}\nunresolved dependency: io.delta#delta-spark;4.4.0"))
