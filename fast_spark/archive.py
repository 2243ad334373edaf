"""The archive from which Java starts faster: an AppCDS archive on Java 17 and 21, an AOT cache from Java 25 on.

Most of a start is loading and verifying 14,000 classes. The archive has them ready to use. It fits one build of Java
and one set of jars. Java checks that itself, and runs without an archive that does not fit. A truncated one would
crash it, so the file's name contains its size.
"""

import hashlib
from contextlib import suppress
from pathlib import Path

from fast_spark.environment import CACHE
from fast_spark.jars import JARS
from fast_spark.java import Java

from pyspark.find_spark_home import _find_spark_home

AOT_SINCE = 25


def archive_kind(java: Java) -> str:
    """Return what this Java calls its archive."""
    return "AOT cache" if java.version >= AOT_SINCE else "AppCDS archive"


def option_to_use(java: Java, archive: Path) -> str:
    """Return the Java option to start from an archive."""
    return f"-XX:{'AOTCache' if java.version >= AOT_SINCE else 'SharedArchiveFile'}={archive}"


def option_to_make(java: Java, archive: Path) -> str:
    """Return the Java option to write an archive of every class that was loaded, when Java ends."""
    return f"-XX:{'AOTCacheOutput' if java.version >= AOT_SINCE else 'ArchiveClassesAtExit'}={archive}"


def find_archive(java: Java) -> Path | None:
    """Return the complete archive for this Java, this Spark and this Delta, or None if there is none."""
    for file in CACHE.glob(f"{archive_stem(java)}-*.jsa"):
        with suppress(OSError):  # another set-up may have just deleted it
            if file.stem.endswith(f"-{file.stat().st_size}"):
                return file
    return None


def archive_stem(java: Java) -> str:
    """Return the archive's name without its size. It identifies all that the archive must fit."""
    identity = hashlib.sha256(java.build.encode())
    for jar in [*sorted(JARS.glob("*.jar")), *sorted(Path(_find_spark_home(), "jars").glob("*.jar"))]:
        file = jar.stat()
        identity.update(f"{jar} {file.st_size} {file.st_mtime_ns}".encode())
    return f"java-{java.version}-{identity.hexdigest()[:16]}"


def delete_other_archives(java: Java, archive: Path) -> None:
    """Delete the archives for this version of Java that `archive` replaces."""
    for other in set(CACHE.glob(f"java-{java.version}-*.jsa")) - {archive}:
        with suppress(OSError):  # another user's
            other.unlink()
