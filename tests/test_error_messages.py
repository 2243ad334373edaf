"""What can be wrong with a table or a checkpoint: one sentence names it, and its mend is tried."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import visits_consumer
from lag_detector.sentences import sentence
from lag_detector.visits import TABLE, open_table, start_over
from tests.steps import Steps

import pytest
from pyspark.errors import StreamingQueryException
from pyspark.sql import SparkSession

Harm = Callable[[Path], None]


@pytest.fixture(scope="module")
def ready_made(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table at version 3, all of it read."""
    warehouse = tmp_path_factory.mktemp("ready made") / "warehouse"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISITS_WAREHOUSE", str(warehouse))
        steps = Steps(spark, warehouse)
        steps.create()
        steps.write()
        assert steps.consume() == 3
    return warehouse


@pytest.fixture
def steps(spark: SparkSession, ready_made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    """A copy of it."""
    warehouse = tmp_path / "ware house's"
    monkeypatch.setenv("VISITS_WAREHOUSE", str(warehouse))
    steps = Steps(spark, shutil.copytree(ready_made, warehouse))
    steps.open()
    return steps


def told(step: Callable[[], object]) -> str:
    """Take a step that must fail; gives the sentence that a script would print."""
    with pytest.raises(Exception) as failed:  # noqa: PT011 the sentence is what is checked
        step()
    said = sentence(failed.value)
    assert "\n" not in said
    assert "Exception" not in said
    assert "LAG_DETECTOR_DEBUG" not in said, f"nobody has a sentence for it: {said}"
    return said


def delete_the_checkpoint_as(said: str) -> None:
    """Run the command that a sentence names."""
    command = re.search(r"rm -r .*?/visits_consumer'?(\"'\")?", said)
    assert command, said
    subprocess.run(command[0], shell=True, check=True, timeout=60)


def empty(file: Path) -> None:
    rewrite(file, "")


def garble(file: Path) -> None:
    rewrite(file, "garbage {")


def halve(file: Path) -> None:
    content = file.read_bytes()
    forget_checksum(file)
    file.write_bytes(content[: len(content) // 2])


def rot(file: Path) -> None:
    """Change a byte behind the back of the file's checksum."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def remove(file: Path) -> None:
    forget_checksum(file)
    file.unlink()


def rewrite(file: Path, text: str) -> None:
    forget_checksum(file)
    file.write_text(text)


def forget_checksum(file: Path) -> None:
    (file.parent / f".{file.name}.crc").unlink(missing_ok=True)


@pytest.mark.parametrize("harm", [empty, garble, halve, remove])
@pytest.mark.parametrize("file", ["offsets/1", "commits/1", "metadata"])
def test_a_damaged_checkpoint(file: str, harm: Harm, steps: Steps) -> None:
    steps.write()
    assert steps.consume() == 6
    harm(steps.disk.checkpoint / file)
    if (file, harm) == ("commits/1", remove):
        assert steps.consume() == 6  # the batch counts as not done and is done again
        return
    said = told(steps.consume)
    assert "checkpoint is damaged" in said
    delete_the_checkpoint_as(said)
    assert steps.consume() == 6


def test_a_checkpoint_that_is_a_file(steps: Steps) -> None:
    shutil.rmtree(steps.disk.checkpoint)
    steps.disk.checkpoint.write_text("mine")
    assert "cannot be written" in told(steps.consume)
    assert steps.disk.checkpoint.read_text() == "mine"


@pytest.mark.parametrize("harm", [empty, garble, halve, rot, remove])
@pytest.mark.parametrize("version", [0, 3, 5, 6])
def test_a_damaged_log(version: int, harm: Harm, steps: Steps) -> None:
    steps.write()
    harm(steps.disk.commit(version))
    if (version, harm) == (6, remove):
        assert steps.consume() == 5  # nobody can know that there was one more
        return
    said = told(steps.consume)
    assert f"{version:020d}.json is empty" in said if harm is empty else "log" in said
    assert "start over with python create_table.py" in said
    steps.create()
    steps.write()
    assert steps.consume() == 3


@pytest.mark.parametrize("harm", [empty, garble, halve, rot])
def test_a_damaged_log_checkpoint(harm: Harm, steps: Steps) -> None:
    for _ in range(3):
        steps.write()
    harm(steps.disk.log / f"{10:020d}.checkpoint.parquet")
    if harm is empty:
        assert steps.consume() == 12  # Delta goes back to the commits themselves
        return
    shutil.rmtree(steps.disk.checkpoint)  # who is at version 3 has no need of it
    assert "start over with python create_table.py" in told(steps.consume)


@pytest.mark.parametrize("harm", [empty, garble, halve, rot, remove])
def test_a_damaged_data_file(harm: Harm, steps: Steps) -> None:
    before = set(steps.disk.data())
    steps.write()
    file = (set(steps.disk.data()) - before).pop()
    harm(file)
    said = told(steps.consume)
    assert file.name in said
    assert "start over with python create_table.py" in said


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("DELETE FROM {} WHERE visit_id = 'visit 1-0'", "changed rows that it had before (DELETE)"),
        ("UPDATE {} SET page = 'other' WHERE visit_id = 'visit 1-0'", "changed rows that it had before (UPDATE)"),
        (
            "MERGE INTO {} USING (SELECT 1) ON visit_id = 'visit 1-0' WHEN MATCHED THEN UPDATE SET page = 'new'",
            "changed rows that it had before (MERGE)",
        ),
        ("INSERT OVERWRITE {0} SELECT * FROM {0}", "changed rows that it had before (WRITE)"),
        ("DELETE FROM {}", "deleted rows that it had before"),
        ("TRUNCATE TABLE {}", "deleted rows that it had before"),
        ("RESTORE TABLE {} TO VERSION AS OF 1", "deleted rows that it had before"),
    ],
)
def test_changed_or_deleted_rows(change: str, what: str, steps: Steps) -> None:
    """Both choices that keep the table are tried."""
    steps.spark.sql(change.format(TABLE))
    said = told(steps.consume)
    assert f"version 4 of the table {what}" in said
    assert '.option("skipChangeCommits", "true")' in said
    assert steps.consume(skipChangeCommits="true") == 4
    delete_the_checkpoint_as(said)
    assert steps.consume() == 4


def test_a_checkpoint_of_another_table(steps: Steps) -> None:
    shutil.rmtree(steps.disk.warehouse / "visits")
    checkpoint = shutil.copytree(steps.disk.checkpoint, steps.disk.warehouse / "kept")
    steps.create()
    shutil.copytree(checkpoint, steps.disk.checkpoint)
    said = told(steps.consume)
    assert "checkpoint belongs to an earlier table" in said
    delete_the_checkpoint_as(said)
    assert steps.consume() == 0


def test_a_table_older_than_the_checkpoint(steps: Steps) -> None:
    for version in (2, 3):
        remove(steps.disk.commit(version))
    said = told(steps.consume)
    assert "has read version 3, which the table" in said
    delete_the_checkpoint_as(said)
    assert steps.consume() == 1


def test_a_consumer_that_comes_too_late_for_the_log(steps: Steps) -> None:
    steps.write()
    steps.clean_up_the_log()
    assert steps.disk.versions() == [7]
    said = told(steps.consume)
    assert "log was cleaned up" in said
    delete_the_checkpoint_as(said)
    assert steps.consume() == 7


def test_work_on_a_batch_that_fails(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """What readers meet first when they put their own work in place of ours."""
    steps.write()
    with monkeypatch.context() as patch:
        patch.setattr(visits_consumer, "print_visits", lambda visits, batch: int("many"))
        with pytest.raises(StreamingQueryException) as failed:
            steps.consume()
    said = sentence(failed.value)
    assert "work on a batch failed (ValueError: invalid literal for int() with base 10: 'many')" in said
    assert steps.consume() == 6


def test_a_column_with_another_name(steps: Steps) -> None:
    steps.spark.sql(f"ALTER TABLE {TABLE} SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name')")
    steps.spark.sql(f"ALTER TABLE {TABLE} RENAME COLUMN page TO path")
    said = told(steps.consume)
    assert "columns of the table have changed" in said
    delete_the_checkpoint_as(said)
    assert steps.consume() == 5


@pytest.mark.parametrize(
    ("warehouse", "what"),
    [
        ("s3a://bucket/visits", "Spark has no file system for s3a://bucket/visits"),
        ("foo://host/visits", "Spark has no file system for foo://host/visits"),
        ("hdfs://127.0.0.1:1/visits", "does not answer at localhost:1"),
    ],
)
def test_a_file_system_that_is_none(
    warehouse: str, what: str, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISITS_WAREHOUSE", warehouse)
    for step in (open_table, start_over):
        assert what in told(lambda step=step: step(spark))  # type: ignore[misc]


ODD = [
    "with space",
    "it's",
    'a "quote"',
    "`tick`",
    "100%",
    "%20",
    "a#b",
    "k=v",
    "naïve 店",
    "a;b,c",
    "[x]",
    "{y}",
    "a&b",
    "a?*",
]


@pytest.mark.parametrize("form", ["{}", "{}/", "link", "relative", "file:{}", "file://{}/"])
def test_every_form_of_a_warehouse(
    form: str, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ODD if form == "{}" else ["it's 100% `naïve 店`"]:
        folder = tmp_path / name
        monkeypatch.chdir(tmp_path)
        if form == "link":
            (tmp_path / "behind").mkdir()
            folder.symlink_to(tmp_path / "behind")
        monkeypatch.setenv(
            "VISITS_WAREHOUSE", name if form == "relative" else form.format(folder) if "{" in form else str(folder)
        )
        steps = Steps(spark, folder)
        steps.create()
        steps.write()
        assert steps.consume() == 3
        assert sorted(file.name for file in folder.iterdir()) == ["checkpoints", "visits"]
        steps.create()
        assert not steps.disk.checkpoint.exists()


def test_a_deletion_that_was_cut_off_is_finished_by_the_next(steps: Steps) -> None:
    for file in (*steps.disk.data(), steps.disk.commit(0)):
        file.unlink()
    steps.create()
    steps.write()
    assert steps.consume() == 3
