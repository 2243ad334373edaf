"""`make reset` deletes the table and the checkpoints where VISITS_WAREHOUSE says, and nothing else."""

import os
import subprocess
from pathlib import Path

from demo.stack import ROOT


def reset(warehouse: str) -> subprocess.CompletedProcess[str]:
    ours = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(
        ["make", "reset"],
        cwd=ROOT,
        env={**ours, "VISITS_WAREHOUSE": warehouse},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_reset_in_any_warehouse_deletes_table_and_checkpoints(tmp_path: Path) -> None:
    for form in ("{}", "file:{}", "file://{}"):
        warehouse = tmp_path / "my lake"
        for folder in ("visits/_delta_log", "checkpoints/visits_consumer"):
            (warehouse / folder).mkdir(parents=True)
        (warehouse / "mine.txt").write_text("mine")
        assert reset(form.format(warehouse)).returncode == 0
        assert [file.name for file in warehouse.iterdir()] == ["mine.txt"]
    assert reset(str(warehouse)).returncode == 0


def test_reset_of_something_else_deletes_nothing(tmp_path: Path) -> None:
    (tmp_path / "visits").mkdir()
    (tmp_path / "visits" / "thesis.txt").write_text("ten years")
    (tmp_path / "checkpoints").mkdir()
    done = reset(str(tmp_path))
    assert done.returncode != 0
    assert f"Error: {tmp_path}/visits is not a Delta table" in done.stderr
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["checkpoints", "thesis.txt", "visits"]


def test_reset_of_an_object_store_names_the_other_way() -> None:
    done = reset("s3a://bucket/lake")
    assert done.returncode != 0
    assert "Error: s3a://bucket/lake is not a local folder; run python create_table.py to start over." in done.stderr
