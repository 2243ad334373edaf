"""Read files from a local disk or an object store. All access to tables and checkpoints is here."""

import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from .errors import DeltaWatchError, WatchError

# As Hadoop names them, and as they are called elsewhere.
OBJECT_STORES = {name: name for name in ("s3", "gs", "az", "abfs", "abfss")} | {"s3a": "s3", "s3n": "s3", "azure": "az"}
REQUESTS_AT_ONCE = 16
RETRY_TIMEOUT = timedelta(seconds=20)
MAX_RETRIES = 2

requests: Counter[str] = Counter()  # how many requests object stores got, by operation: head, get, list


class File(NamedTuple):
    """A file's content, and when it was written, in Unix time."""

    content: bytes
    modified: float


class Folder(ABC):
    """A folder, whether it exists or not.

    All methods raise a `WatchError` if it may not be read (`permission`) or the store does not answer (`store`).
    """

    @abstractmethod
    def child(self, *names: str) -> "Folder":
        """Return the folder of this name in this one."""

    @abstractmethod
    def read(self, name: str) -> File:
        """Read a file.

        Raises:
            FileNotFoundError: there is none.
        """

    def read_all(self, names: Iterable[str]) -> Iterator[File | FileNotFoundError]:
        """Read these files, in this order."""
        return map(self._read_or_missing, names)

    @abstractmethod
    def tag(self, name: str) -> str | None:
        """Return what changes if another file replaces this one, or None if there is no such file."""

    @abstractmethod
    def tags_from(self, name: Callable[[int], str], first: int) -> list[str]:
        """Return the tags of the files with these numbered names, from `first` on up to the first that is missing.

        Names must sort as their numbers do.
        """

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of all files, none if there is no such folder."""

    def matching_folders(self, pattern: str) -> list[str]:
        """Return the paths of the folders inside that match a pattern such as `*/checkpoint`."""
        paths = [""]
        for part in pattern.split("/"):
            found = ((path, name) for path in paths for name in sorted(self._folders(path)) if _matches(name, part))
            paths = [f"{path}/{name}".lstrip("/") for path, name in found]
        return paths

    @abstractmethod
    def _folders(self, path: str) -> list[str]:
        """Return the names of the folders at a path in this one."""

    def _read_or_missing(self, name: str) -> File | FileNotFoundError:
        try:
            return self.read(name)
        except FileNotFoundError as error:
            return error


def open_folder(location: str) -> Folder:
    """Return the folder at a path or URL, as Spark or Hadoop writes it.

    Hadoop does not encode URLs: `%20` is three characters of a name.

    Args:
        location: a path, `file:/path`, or `s3://`, `s3a://`, `gs://`, `az://`, `abfss://` and the like.

    Raises:
        DeltaWatchError: there is no support for this kind of store.
    """
    scheme, has_scheme, rest = location.partition(":")
    if not has_scheme or "/" in scheme:
        return LocalFolder(location)
    if scheme == "file":
        return LocalFolder(re.sub("^/+", "/", rest))
    if scheme not in OBJECT_STORES:
        known = ", ".join(f"{name}://" for name in ("s3", "gs", "az", "abfss"))
        raise DeltaWatchError(f"there is no support for {scheme}:; use a local path, file: or one of {known}")
    bucket, _, path = rest.lstrip("/").partition("/")
    return ObjectFolder(f"{OBJECT_STORES[scheme]}://{bucket}", "/".join(part for part in path.split("/") if part))


def is_local(location: str) -> bool:
    """Return whether a location is on a local disk."""
    return isinstance(open_folder(location), LocalFolder)


class LocalFolder(Folder):
    """A folder of the operating system."""

    def __init__(self, path: str) -> None:
        self._path = path.rstrip("/") or "/"

    def __str__(self) -> str:
        return self._path

    def child(self, *names: str) -> Folder:
        return LocalFolder("/".join((self._path, *names)))

    def read(self, name: str) -> File:
        with self._errors(name), open(f"{self._path}/{name}", "rb", buffering=0) as file:
            return File(file.read(), os.fstat(file.fileno()).st_mtime)

    def tag(self, name: str) -> str | None:
        with suppress(FileNotFoundError), self._errors(name):
            status = os.stat(f"{self._path}/{name}")
            return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"
        return None

    def tags_from(self, name: Callable[[int], str], first: int) -> list[str]:
        tags: list[str] = []
        while (tag := self.tag(name(first + len(tags)))) is not None:
            tags.append(tag)
        return tags

    def names(self) -> list[str]:
        with suppress(FileNotFoundError), self._errors():
            return os.listdir(self._path)
        return []

    def _folders(self, path: str) -> list[str]:
        with suppress(FileNotFoundError), self._errors(path), os.scandir(f"{self._path}/{path}") as entries:
            return [entry.name for entry in entries if entry.is_dir()]
        return []

    @contextmanager
    def _errors(self, name: str = "") -> Iterator[None]:
        """Turn the errors of the operating system into ours. Only a missing file stays a FileNotFoundError."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(name) from error
        except OSError as error:
            path = f"{self._path}/{name}".rstrip("/")
            if isinstance(error, PermissionError):
                raise WatchError("permission", f"{path} may not be read; give this user the permission") from error
            raise WatchError("store", f"{path} cannot be read ({(error.strerror or str(error)).lower()})") from error


class ObjectFolder(Folder):
    """A prefix in a bucket of an object store. The library takes the credentials from the environment."""

    def __init__(self, bucket: str, path: str) -> None:
        self._bucket, self._path, self._store = bucket, path, _open_bucket(bucket)

    def __str__(self) -> str:
        return f"{self._bucket}/{self._path}"

    def child(self, *names: str) -> Folder:
        return ObjectFolder(self._bucket, self._key("/".join(names)))

    def read(self, name: str) -> File:
        with self._errors(name):
            requests["get"] += 1
            result = obstore.get(self._store, self._key(name))
            return File(bytes(result.bytes()), result.meta["last_modified"].timestamp())

    def read_all(self, names: Iterable[str]) -> Iterator[File | FileNotFoundError]:
        rest = list(names)
        while rest:
            # Not all at once: the caller may stop at the first missing one.
            now, rest = rest[:REQUESTS_AT_ONCE], rest[REQUESTS_AT_ONCE:]
            with ThreadPoolExecutor(len(now)) as pool:
                yield from pool.map(self._read_or_missing, now)

    def tag(self, name: str) -> str | None:
        with suppress(FileNotFoundError), self._errors(name):
            requests["head"] += 1
            return _tag(obstore.head(self._store, self._key(name)))
        return None

    def tags_from(self, name: Callable[[int], str], first: int) -> list[str]:
        # One request, however many there are. Objects that sort after these names are not fetched.
        tags: list[str] = []
        wanted = self._key(name(first))
        after = wanted.rpartition(".")[0]
        with self._errors():
            requests["list"] += 1
            for entry in chain.from_iterable(obstore.list(self._store, self._path, offset=after, chunk_size=1000)):
                if entry["path"] == wanted:
                    tags.append(_tag(entry))
                    wanted = self._key(name(first + len(tags)))
                elif entry["path"] > wanted:
                    break
        return tags

    def names(self) -> list[str]:
        return [entry["path"].rpartition("/")[2] for entry in self._list("")["objects"]]

    def _folders(self, path: str) -> list[str]:
        return [prefix.rstrip("/").rpartition("/")[2] for prefix in self._list(path)["common_prefixes"]]

    def _list(self, path: str) -> Any:
        with self._errors(path):
            requests["list"] += 1
            return obstore.list_with_delimiter(self._store, self._key(path).rstrip("/") or None)

    def _key(self, name: str) -> str:
        return f"{self._path}/{name}" if self._path else name

    @contextmanager
    def _errors(self, name: str = "") -> Iterator[None]:
        """Turn the errors of the library into ours. Only a missing object stays a FileNotFoundError."""
        try:
            yield
        except FileNotFoundError:
            raise
        except (BaseError, ValueError, OSError) as error:
            location = f"{self._bucket}/{self._key(name)}".rstrip("/")
            # Not by the kind of error: while listing, the library raises the same one for everything.
            if re.search(r"status code: 40[13]\b", str(error)):
                raise WatchError("permission", f"{location} may not be read; check the credentials") from error
            raise WatchError("store", f"{location} cannot be read ({_without_secrets(error)})") from error


@cache
def _open_bucket(url: str) -> Any:
    try:
        # Options for the client would replace those of the environment. By default it waits for 30 seconds.
        return from_url(url, retry_config={"max_retries": MAX_RETRIES, "retry_timeout": RETRY_TIMEOUT})
    except (BaseError, ValueError) as error:
        raise DeltaWatchError(f"{url} cannot be used ({_without_secrets(error)})") from error


def _tag(entry: Any) -> str:
    return f"{entry['e_tag']} {entry['size']} {entry['last_modified'].timestamp()}"


def _without_secrets(error: BaseException) -> str:
    """Return the essential part of the library's message. The rest quotes the request, which may contain a token."""
    text = str(error)
    status = re.search(r"status code: (\d{3} [\w ]+)", text)
    code = re.search(r"<Code>(\w+)</Code>", text)
    if status:
        return f"{status[1]}, {code[1]}" if code else status[1]
    return re.sub(r"\S+://\S+", "…", text.partition("\n")[0])[:200]


def _matches(name: str, part: str) -> bool:
    """Return whether a name matches a part of a pattern. As in a shell, a wildcard matches no hidden name."""
    return fnmatchcase(name, part) and name.startswith(".") <= part.startswith(".")
