"""A checkpoint is inspected before a message says that it cannot be used: what counts as damage, and what does not."""

from pathlib import Path

from tutorial.checkpoint import damage

import pytest

OFFSETS = (
    'v1\n{"batchTimestampMs":1,"conf":{}}\n{"sourceVersion":1,"reservoirId":"a","reservoirVersion":4,"index":-1}\n'
)
COMMITS = 'v1\n{"nextBatchWatermarkMs":0}'
METADATA = '{"id":"2d3f8a5e-6a3c-4b52-9d1e-0a7b8c9d0e1f"}'
BEFORE_FIRST_BATCH = "a run was interrupted before its first batch, and nothing has been read yet"


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


@pytest.mark.parametrize(
    ("files", "text", "expected"),
    [
        pytest.param("", None, None, id="as Spark leaves it"),
        pytest.param("offsets/2", OFFSETS.replace('\n{"s', '\n-\n{"s'), None, id="several sources"),
        pytest.param("offsets/2", OFFSETS.replace('\n{"s', '\n0:{"s').replace("v1", "v2"), None, id="format 2"),
        pytest.param("offsets/2", OFFSETS.replace("v1", "v9"), None, id="a format that only Spark knows"),
        pytest.param("commits/1", None, None, id="a batch that did not finish"),
        pytest.param("offsets/.3.4f1c.tmp", "", None, id="a temporary file"),
        ("offsets/2", "", "its file offsets/2 is damaged"),
        ("offsets/2", OFFSETS[:40], "its file offsets/2 is damaged"),
        ("offsets/2", "v1", "its file offsets/2 is damaged"),
        ("commits/1", "garbage {", "its file commits/1 is damaged"),
        ("metadata", METADATA.replace("-", "_"), "its file metadata is damaged"),
        ("metadata", "{}", "its file metadata is damaged"),
        ("metadata", "[]", "its file metadata is damaged"),
        ("metadata", None, "its file metadata is missing"),
        ("offsets/1 offsets/2", None, "its file offsets/1 is missing"),
        ("offsets/0 offsets/1 offsets/2 commits/0 commits/1", None, BEFORE_FIRST_BATCH),
    ],
)
def test_damage_of_checkpoint_with_other_files_names_the_damaged_one(
    files: str, text: str | None, expected: str | None, checkpoint: Path
) -> None:
    """Give these files another text, or delete them."""
    for file in files.split():
        (checkpoint / file).unlink() if text is None else (checkpoint / file).write_text(text)
    assert damage(str(checkpoint)) == expected
    assert damage(f"file://{checkpoint}") == expected


@pytest.mark.parametrize("location", ["/nowhere/checkpoint", "s3a://bucket/checkpoint"])
def test_damage_of_checkpoint_elsewhere_is_none(location: str) -> None:
    assert damage(location) is None
