"""A file or folder of the warehouse, through Hadoop's file system: on a local disk or in an object store."""

from typing import Any

from tutorial.error_messages import READ_ONLY

from lag_detector.errors import LagDetectorError

from pyspark.sql import SparkSession


def warehouse_path(spark: SparkSession, location: str) -> "WarehousePath":
    """Return the path of this location."""
    jvm: Any = spark.sparkContext._jvm
    path = jvm.org.apache.hadoop.fs.Path(location)
    return WarehousePath(path.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf()), path)


class WarehousePath:
    """A path in the warehouse, whether anything is there or not: Hadoop's file system, and the path in it."""

    def __init__(self, files: Any, path: Any) -> None:
        self._files, self._path = files, path
        self.name = str(path.getName())

    def exists(self) -> bool:
        """Return whether there is a file or a folder."""
        return bool(self._files.exists(self._path))

    def children(self) -> "list[WarehousePath]":
        """Return what a folder contains; nothing if it does not exist."""
        found = self._files.listStatus(self._path) if self.exists() else ()
        return [WarehousePath(self._files, status.getPath()) for status in found]

    def read(self) -> str:
        """Return a file's text."""
        stream = self._files.open(self._path)
        try:
            return bytes(stream.readAllBytes()).decode()
        finally:
            stream.close()

    def delete(self) -> None:
        """Delete a file, or a folder with all that is in it."""
        self._files.delete(self._path, True)
        if self.exists():  # Hadoop does not report it
            raise LagDetectorError(READ_ONLY)
