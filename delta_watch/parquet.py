"""Read the actions in a Parquet checkpoint of a table's log, a thousand rows at a time."""

from collections.abc import Iterator
from os import SEEK_END
from typing import IO, Any

from arro3.core import Array, RecordBatchReader, struct_field
from arro3.io import read_parquet
from msgspec import convert

from .commits import Action

MAGIC = b"PAR1"

# The fields that say something about files or the table. The first one of each action is never null.
FIELDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "metaData": (("id",), ("configuration",)),
    "protocol": (("minWriterVersion",), ("writerFeatures",)),
    "sidecar": (("path",),),
    "add": (
        ("path",),
        ("size",),
        ("modificationTime",),
        ("stats",),
        ("stats_parsed", "numRecords"),
        ("deletionVector",),
    ),
}


def parquet_actions(file: IO[bytes]) -> Iterator[Action]:
    """Yield each action that says something about files or the table.

    Args:
        file: a checkpoint, or a sidecar of one. It must support `seek`.

    Raises:
        Exception: it is not valid Parquet.
    """
    for batch in _batches(file):
        for kind in FIELDS.keys() & set(batch.schema.names):
            columns = {path: _column(batch[kind], path) for path in FIELDS[kind]}
            known = {path[0]: _values(path, column) for path, column in columns.items() if column is not None}
            for values in zip(*known.values(), strict=True):
                if values[0] is not None:
                    yield convert({kind: dict(zip(known, values, strict=True))}, Action)


def _batches(file: IO[bytes]) -> RecordBatchReader:
    if file.seek(0, SEEK_END) < len(MAGIC) or file.seek(-len(MAGIC), SEEK_END) < 0 or file.read() != MAGIC:
        raise ValueError("it is not complete")
    file.seek(0)
    try:
        return read_parquet(file)
    except BaseException as error:  # of a damaged footer: the library panics
        raise ValueError(str(error)) from None


def _values(path: tuple[str, ...], column: Array) -> list[Any]:
    values = list(column.to_pylist())
    if path == ("configuration",):  # a map
        return [pairs and dict(pairs) for pairs in values]
    return [{path[1]: value} for value in values] if path[1:] else values


def _column(column: Array, path: tuple[str, ...]) -> Array | None:
    """Return a field of a column of structs, or None if it has none."""
    kind, indices = column.type, []
    for name in path:
        names = [field.name for field in kind.fields]
        if name not in names:
            return None
        indices.append(names.index(name))
        kind = kind.fields[indices[-1]].type
    return struct_field(column, indices)
