"""A checkpoint is inspected before a message says that it cannot be used: what counts as damage, and what does not."""

from collections.abc import Callable
from pathlib import Path

from tutorial.checkpoint import damage

import pytest

OFFSETS = (
    'v1\n{"batchTimestampMs":1,"conf":{}}\n{"sourceVersion":1,"reservoirId":"a","reservoirVersion":4,"index":-1}\n'
)
COMMITS = 'v1\n{"nextBatchWatermarkMs":0}'
METADATA = '{"id":"2d3f8a5e-6a3c-4b52-9d1e-0a7b8c9d0e1f"}'


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint with two finished batches and a planned one, as Spark leaves it on a local disk."""
    for log, text, batches in (("offsets", OFFSETS, 3), ("commits", COMMITS, 2)):
        (tmp_path / log).mkdir()
        for batch in range(batches):
            (tmp_path / log / str(batch)).write_text(text)
            (tmp_path / log / f".{batch}.crc").write_bytes(b"crc\x00")
    (tmp_path / "metadata").write_text(METADATA)
    return tmp_path


def change(file: str, text: str) -> Callable[[Path], object]:
    return lambda checkpoint: (checkpoint / file).write_text(text)


def remove(*files: str) -> Callable[[Path], object]:
    def unlink(checkpoint: Path) -> None:
        for file in files:
            (checkpoint / file).unlink()

    return unlink


@pytest.mark.parametrize(
    "harmless",
    [
        pytest.param(lambda checkpoint: None, id="as Spark leaves it"),
        pytest.param(change("offsets/2", OFFSETS.replace('\n{"s', '\n-\n{"s')), id="several sources"),
        pytest.param(change("offsets/2", OFFSETS.replace('\n{"s', '\n0:{"s').replace("v1", "v2")), id="format 2"),
        pytest.param(change("offsets/2", OFFSETS.replace("v1", "v9")), id="a format that only Spark knows"),
        pytest.param(remove("commits/1"), id="a batch that did not finish"),
        pytest.param(change("offsets/.3.4f1c.tmp", ""), id="a temporary file"),
    ],
)
def test_damage_of_usable_checkpoint_is_none(checkpoint: Path, harmless: Callable[[Path], object]) -> None:
    harmless(checkpoint)
    assert damage(str(checkpoint)) is None
    assert damage(f"file://{checkpoint}") is None


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (change("offsets/2", ""), "its file offsets/2 is damaged"),
        (change("offsets/2", OFFSETS[:40]), "its file offsets/2 is damaged"),
        (change("offsets/2", "v1"), "its file offsets/2 is damaged"),
        (change("commits/1", "garbage {"), "its file commits/1 is damaged"),
        (change("metadata", METADATA.replace("-", "_")), "its file metadata is damaged"),
        (change("metadata", "{}"), "its file metadata is damaged"),
        (change("metadata", "[]"), "its file metadata is damaged"),
        (remove("metadata"), "its file metadata is missing"),
        (remove("offsets/1", "offsets/2"), "its file offsets/1 is missing"),
    ],
)
def test_damage_of_changed_file_names_it(checkpoint: Path, harm: Callable[[Path], object], expected: str) -> None:
    harm(checkpoint)
    assert damage(str(checkpoint)) == expected


def test_damage_before_the_first_batch_says_that_nothing_was_read(checkpoint: Path) -> None:
    remove("offsets/0", "offsets/1", "offsets/2", "commits/0", "commits/1")(checkpoint)
    assert damage(str(checkpoint)) == "a run was interrupted before its first batch, and nothing has been read yet"


@pytest.mark.parametrize("location", ["/nowhere/checkpoint", "s3a://bucket/checkpoint"])
def test_damage_of_checkpoint_elsewhere_is_none(location: str) -> None:
    assert damage(location) is None
