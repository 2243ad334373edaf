"""What goes wrong for a reader: one sentence with the mend, exit 1, and nothing lost."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from demo.stack import ROOT, free_port
from lag_detector.cli import STOPPED
from tests.conftest import GIVE_UP_ROOT, Reader
from tests.truth import Disk

import pytest
from pyspark.sql import SparkSession


@pytest.mark.parametrize("script", ["visits_creator_job.py", "visits_reader.py", "visits_consumer.py"])
def test_without_a_table(alone: Reader, script: str) -> None:
    assert "run python create_table.py first" in alone.fail(script)
    assert not (alone.warehouse / "visits").exists()


def test_a_pushgateway_that_is_down_costs_no_rows(alone: Reader) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    assert "nothing was changed" in alone.fail("create_table.py", PUSHGATEWAY_URL=nobody)
    assert not alone.warehouse.exists()
    alone.succeed("create_table.py")
    told = alone.fail("visits_creator_job.py", PUSHGATEWAY_URL=nobody)
    assert nobody in told
    assert "connection refused" in told
    assert "docker compose up -d --wait" in told
    assert alone.succeed("visits_creator_job.py").startswith("visits_writer_version 6 ")
    alone.fail("visits_consumer.py", PUSHGATEWAY_URL=nobody)
    assert alone.succeed("visits_consumer.py").startswith("visits_reader_version 6 ")


def test_a_malformed_setting_costs_nothing(alone: Reader) -> None:
    alone.succeed("create_table.py")
    for script in ("create_table.py", "visits_creator_job.py", "visits_consumer.py"):
        assert "PUSHGATEWAY_URL is not of the form" in alone.fail(script, PUSHGATEWAY_URL="localhost:9091")
    assert Disk(alone.warehouse).last_version() == 0
    assert "SPARK_MASTER" in alone.fail("visits_reader.py", SPARK_MASTER="my cluster")


def test_a_warehouse_that_is_a_file(alone: Reader) -> None:
    alone.warehouse.write_text("mine")
    assert "set VISITS_WAREHOUSE" in alone.fail("create_table.py")
    assert alone.warehouse.read_text() == "mine"


def test_a_warehouse_that_cannot_be_written(alone: Reader) -> None:
    assert "set VISITS_WAREHOUSE" in alone.fail("create_table.py", VISITS_WAREHOUSE="/proc/visits")


def test_a_warehouse_that_has_become_read_only(alone: Reader) -> None:
    alone.succeed("create_table.py")
    alone.succeed("visits_creator_job.py")
    folders = [alone.warehouse, *(path for path in alone.warehouse.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    for script in ("visits_creator_job.py", "visits_consumer.py", "create_table.py"):
        assert "the warehouse cannot be written; set VISITS_WAREHOUSE" in alone.fail(script, prefix=GIVE_UP_ROOT)
    assert alone.succeed("visits_reader.py", prefix=GIVE_UP_ROOT).count("|visit ") == 9
    for folder in folders:
        folder.chmod(0o755)


def test_an_odd_warehouse_and_a_locale_without_letters(alone: Reader) -> None:
    odd = {"VISITS_WAREHOUSE": str(alone.folder / 'it\'s 100% "naïve" #1, k=v `店` '), "LC_ALL": "C"}
    alone.succeed("create_table.py", **odd)
    alone.succeed("visits_creator_job.py", **odd)
    assert alone.succeed("visits_reader.py", **odd).count("|visit ") == 9
    assert alone.succeed("visits_consumer.py", **odd).count("|visit ") == 9
    assert {path.name for path in Path(odd["VISITS_WAREHOUSE"]).iterdir()} == {"visits", "checkpoints"}


def test_changed_rows_that_the_consumer_has_to_read(alone: Reader, spark: SparkSession) -> None:
    alone.succeed("create_table.py")
    alone.succeed("visits_creator_job.py")
    alone.succeed("visits_consumer.py")
    spark.sql(f"DELETE FROM delta.`{alone.warehouse}/visits` WHERE visit_id = 'visit 1-0'")
    told = alone.fail("visits_consumer.py")
    assert "version 4 of the table changed rows that it had before (DELETE)" in told
    assert "skipChangeCommits" in told
    assert f"rm -r {alone.warehouse}/checkpoints/visits_consumer" in told


def test_a_folder_that_is_no_delta_table_is_left_alone(alone: Reader) -> None:
    thesis = alone.warehouse / "visits" / "thesis.txt"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("ten years")
    assert "no Delta table" in alone.fail("create_table.py")
    assert thesis.read_text() == "ten years"


def test_no_java(alone: Reader) -> None:
    settings = {"PATH": str(alone.desk), "JAVA_HOME": ""}
    assert "install Java 17, 21 or 25" in alone.fail("visits_reader.py", **settings)
    assert "install Java 17, 21 or 25" in alone.fail("visits_reader.py", JAVA_HOME="/nowhere")


def test_java_too_old(alone: Reader) -> None:
    java = alone.folder / "old" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    java.chmod(0o755)
    told = alone.fail("visits_reader.py", JAVA_HOME=str(alone.folder / "old"))
    assert "Java 11" in told
    assert "install Java 17, 21 or 25" in told


def test_ctrl_c_ends_quietly_and_the_next_run_goes_on(alone: Reader) -> None:
    alone.succeed("create_table.py")
    process = alone.start("visits_consumer.py")
    try:
        assert process.stderr is not None
        assert any("Streaming" in line for line in process.stderr)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert told == f"{STOPPED}\n"
    assert "visits_reader_version 0 " in alone.succeed("visits_consumer.py")


def test_ctrl_c_while_spark_is_imported() -> None:
    code = "import lag_detector.cli, os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(10)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"{STOPPED}\n")


def test_a_spark_home_of_another_spark(alone: Reader) -> None:
    assert "unset SPARK_HOME" in alone.fail("visits_reader.py", SPARK_HOME=str(alone.desk))


def test_delta_jars_that_cannot_be_fetched(alone: Reader) -> None:
    """In a copy without the kept jars, with a proxy for the JVM that nobody serves."""
    copy = alone.folder / "copy"
    shutil.copytree(ROOT / "lag_detector", copy / "lag_detector")
    shutil.copy(ROOT / "visits_reader.py", copy)
    proxy = f"-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort={free_port()} -Divy.home={alone.folder}/ivy"
    environment = {
        **os.environ,
        "JAVA_TOOL_OPTIONS": f"{proxy} -Duser.home={alone.folder}",
        "VISITS_WAREHOUSE": str(alone.warehouse),
    }
    command = [sys.executable, str(copy / "visits_reader.py")]
    done = subprocess.run(command, env=environment, cwd=alone.desk, capture_output=True, text=True, timeout=180)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: Delta's jars could not be fetched")
    assert "at org." not in done.stderr


@pytest.mark.parametrize(
    "script", ["create_table.py", "visits_creator_job.py", "visits_reader.py", "visits_consumer.py"]
)
def test_before_the_set_up(script: str) -> None:
    """A Python that has none of the packages."""
    bare = [sys.executable, "-S", str(ROOT / script)]
    done = subprocess.run(bare, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert re.fullmatch(
        r"Error: \w+ is not installed here; run make setup, then source .venv/bin/activate.\n", done.stderr
    )
