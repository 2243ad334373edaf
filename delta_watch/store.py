"""Read files from a local disk or an object store. All access to tables and checkpoints is here."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple, NoReturn, Protocol

from .errors import DeltaWatchError, WatchError

# As Hadoop names them, and as they are called elsewhere.
OBJECT_STORES = {
    "s3": "s3",
    "s3a": "s3",
    "s3n": "s3",
    "gs": "gs",
    "az": "az",
    "azure": "az",
    "abfs": "abfs",
    "abfss": "abfss",
}
REQUESTS_AT_ONCE = 16
RETRY_TIMEOUT = timedelta(seconds=20)
MAX_RETRIES = 2


class File(NamedTuple):
    """A file's content, and when it was written, in Unix time."""

    content: bytes
    modified: float


class Folder(Protocol):
    """A folder, whether it exists or not.

    All methods raise a `WatchError` if it may not be read (`permission`) or the store does not answer (`store`).
    """

    def child(self, *names: str) -> "Folder":
        """Return the folder of this name in this one."""

    def read(self, name: str) -> File:
        """Read a file.

        Raises:
            FileNotFoundError: there is none.
        """

    def read_all(self, names: Iterable[str]) -> Iterator[File | FileNotFoundError]:
        """Read these files, in this order."""

    def tag(self, name: str) -> str | None:
        """Return what changes if a file is replaced by another one, or None if there is no such file."""

    def tags_from(self, name: Callable[[int], str], first: int) -> list[str]:
        """Return the tags of the files with these numbered names, from `first` on up to the first that is missing.

        The names have the order of their numbers.
        """

    def names(self) -> list[str]:
        """Return the names of all files, none if there is no such folder."""

    def matching_folders(self, pattern: str) -> list[str]:
        """Return the paths of the folders inside that match a pattern such as `*/checkpoint`."""


def open_folder(location: str) -> Folder:
    """Return the folder at a path or URL, as Spark or Hadoop writes it.

    Hadoop does not encode URLs: a space is a space, and `%20` is part of a name.

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
    return ObjectFolder(_bucket(OBJECT_STORES[scheme], bucket), "/".join(part for part in path.split("/") if part))


def is_local(location: str) -> bool:
    """Return whether a location is on a local disk."""
    return isinstance(open_folder(location), LocalFolder)


class LocalFolder:
    """A folder that the operating system knows."""

    def __init__(self, path: str) -> None:
        self._path = path.rstrip("/") or "/"

    def __str__(self) -> str:
        return self._path

    def child(self, *names: str) -> "LocalFolder":
        return LocalFolder("/".join((self._path, *names)))

    def read(self, name: str) -> File:
        try:
            with open(f"{self._path}/{name}", "rb", buffering=0) as file:
                return File(file.read(), os.fstat(file.fileno()).st_mtime)
        except NotADirectoryError as error:
            raise FileNotFoundError(name) from error
        except FileNotFoundError:
            raise
        except OSError as error:
            self._fail(name, error)

    def read_all(self, names: Iterable[str]) -> Iterator[File | FileNotFoundError]:
        for name in names:
            yield _read_or_missing(self, name)

    def tag(self, name: str) -> str | None:
        try:
            status = os.stat(f"{self._path}/{name}")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._fail(name, error)
        return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"

    def tags_from(self, name: Callable[[int], str], first: int) -> list[str]:
        tags: list[str] = []
        while (tag := self.tag(name(first + len(tags)))) is not None:
            tags.append(tag)
        return tags

    def names(self) -> list[str]:
        try:
            return os.listdir(self._path)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self._fail("", error)

    def matching_folders(self, pattern: str) -> list[str]:
        return _matching(pattern, self._folders)

    def _folders(self, path: str) -> list[str]:
        try:
            with os.scandir(f"{self._path}/{path}") as entries:
                return [entry.name for entry in entries if entry.is_dir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self._fail(path, error)

    def _fail(self, name: str, error: OSError) -> NoReturn:
        at = f"{self._path}/{name}".rstrip("/")
        if isinstance(error, PermissionError):
            raise WatchError("permission", f"{at} may not be read; give this user the permission") from error
        raise WatchError("store", f"{at} cannot be read ({(error.strerror or str(error)).lower()})") from error


class ObjectFolder:
    """A prefix in a bucket of an object store."""

    def __init__(self, bucket: "_Bucket", path: str) -> None:
        self._bucket, self._path = bucket, path

    def __str__(self) -> str:
        return f"{self._bucket.url}/{self._path}"

    def child(self, *names: str) -> "ObjectFolder":
        return ObjectFolder(self._bucket, "/".join((self._path, *names)).lstrip("/"))

    def read(self, name: str) -> File:
        with self._bucket.errors(f"{self}/{name}"):
            result = self._bucket.api.get(self._bucket.store, self._key(name))
            return File(bytes(result.bytes()), result.meta["last_modified"].timestamp())

    def read_all(self, names: Iterable[str]) -> Iterator[File | FileNotFoundError]:
        rest = list(names)
        while rest:
            # Not all at once: whoever asks may stop at the first one that is missing.
            now, rest = rest[:REQUESTS_AT_ONCE], rest[REQUESTS_AT_ONCE:]
            with ThreadPoolExecutor(len(now)) as pool:
                yield from pool.map(lambda name: _read_or_missing(self, name), now)

    def tag(self, name: str) -> str | None:
        try:
            with self._bucket.errors(f"{self}/{name}"):
                return _tag(self._bucket.api.head(self._bucket.store, self._key(name)))
        except FileNotFoundError:
            return None

    def tags_from(self, name: Callable[[int], str], first: int) -> list[str]:
        # One request, however many there are. What follows the numbers in the order of names is not fetched.
        tags: list[str] = []
        after = self._key(name(first)).rpartition(".")[0]
        wanted = self._key(name(first))
        with self._bucket.errors(str(self)):
            for chunk in self._bucket.api.list(self._bucket.store, self._path, offset=after, chunk_size=1000):
                for entry in chunk:
                    if entry["path"] == wanted:
                        tags.append(_tag(entry))
                        wanted = self._key(name(first + len(tags)))
                    elif entry["path"] > wanted:
                        return tags
        return tags

    def names(self) -> list[str]:
        with self._bucket.errors(str(self)):
            entries = self._bucket.api.list_with_delimiter(self._bucket.store, self._path)["objects"]
            return [entry["path"].rpartition("/")[2] for entry in entries]

    def matching_folders(self, pattern: str) -> list[str]:
        return _matching(pattern, self._folders)

    def _folders(self, path: str) -> list[str]:
        prefix = "/".join(part for part in (self._path, path) if part)
        with self._bucket.errors(f"{self._bucket.url}/{prefix}"):
            found = self._bucket.api.list_with_delimiter(self._bucket.store, prefix or None)["common_prefixes"]
            return [folder.rstrip("/").rpartition("/")[2] for folder in found]

    def _key(self, name: str) -> str:
        return f"{self._path}/{name}" if self._path else name


class _Bucket:
    """A bucket, and the library that reads it. Credentials come from the environment, as that library documents."""

    def __init__(self, url: str) -> None:
        try:
            self.api: Any = import_module("obstore")
        except ModuleNotFoundError:
            raise DeltaWatchError(
                f"to read {url}, install the library for object stores with pip install 'lag-detector[watch]'"
            ) from None
        self._error: Any = import_module("obstore.exceptions").BaseError
        self.url = url
        from_url: Any = import_module("obstore.store").from_url
        try:
            # Options for the client would replace those of the environment. By default it waits for 30 seconds.
            self.store: Any = from_url(url, retry_config={"max_retries": MAX_RETRIES, "retry_timeout": RETRY_TIMEOUT})
        except (self._error, ValueError) as error:
            raise DeltaWatchError(f"{url} cannot be used ({_without_secrets(error)})") from error

    @contextmanager
    def errors(self, at: str) -> Iterator[None]:
        """Turn the library's errors into ours. A missing object stays a FileNotFoundError."""
        try:
            yield
        except FileNotFoundError:
            raise
        except (self._error, ValueError, OSError) as error:
            # Not by the kind of the error: while it lists, the library raises the same one for everything.
            if re.search(r"status code: 40[13]\b", str(error)):
                raise WatchError("permission", f"{at} may not be read; check the credentials") from error
            raise WatchError("store", f"{at} cannot be read ({_without_secrets(error)})") from error


@cache
def _bucket(scheme: str, name: str) -> _Bucket:
    return _Bucket(f"{scheme}://{name}")


def _tag(entry: Any) -> str:
    return f"{entry['e_tag']} {entry['size']} {entry['last_modified'].timestamp()}"


def _without_secrets(error: BaseException) -> str:
    """Return the essence of the library's message. It has the whole request, which may contain a token."""
    text = str(error)
    status = re.search(r"status code: (\d{3} [\w ]+)", text)
    code = re.search(r"<Code>(\w+)</Code>", text)
    if status:
        return f"{status[1]}, {code[1]}" if code else status[1]
    return re.sub(r"\S+://\S+", "…", text.partition("\n")[0])[:200]


def _read_or_missing(folder: Folder, name: str) -> File | FileNotFoundError:
    try:
        return folder.read(name)
    except FileNotFoundError as error:
        return error


def _matching(pattern: str, folders: Callable[[str], list[str]]) -> list[str]:
    paths = [""]
    for part in pattern.split("/"):
        paths = [f"{path}/{name}".lstrip("/") for path in paths for name in sorted(folders(path)) if _fits(name, part)]
    return paths


def _fits(name: str, part: str) -> bool:
    """Return whether a name matches a part of a pattern. As in a shell, a wildcard matches no hidden name."""
    return fnmatchcase(name, part) and name.startswith(".") <= part.startswith(".")
