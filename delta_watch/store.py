"""Read files from a local disk or an object store. All access to tables and checkpoints is here.

The methods of a folder are coroutines. Those of a local one never wait: `threads` runs them.
"""

import asyncio
import os
import re
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from functools import cache
from typing import IO, Any, NamedTuple, TypeVar, cast

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from .errors import DeltaWatchError, WatchError

T = TypeVar("T")
A = TypeVar("A")

# As Hadoop names them, and as they are called elsewhere.
OBJECT_STORES = {name: name for name in ("s3", "gs", "az", "abfs", "abfss")} | {"s3a": "s3", "s3n": "s3", "azure": "az"}
REQUESTS_AT_ONCE = 128  # for each bucket
FILES_AT_ONCE = 16  # of one folder: the caller may stop at the first missing one
SMALL, PART = 512 * 1024, 4 * 1024 * 1024  # bytes of an object that is read at once, and of a part of a larger one
LARGE = asyncio.Semaphore(8)  # objects that are read in parts at the same time
PAGE = 1000  # names in the answer to a LIST
RETRY_TIMEOUT = timedelta(seconds=20)
MAX_RETRIES = 2
# What it says when it has found no credentials, and asks the machine for its role.
NO_CREDENTIALS = re.compile(r"169\.254\.|metadata\.google|[Cc]redential|InvalidGrant")
VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT for a store of another vendor, and "
    "AWS_ALLOW_HTTP for one without TLS; profiles in ~/.aws are not read",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}

requests: Counter[str] = Counter()  # how many requests object stores got, by operation: head, get, list


class Tag(NamedTuple):
    """What changes if another file replaces this one, and when it was written, in Unix time."""

    version: str
    modified: float


class File(NamedTuple):
    """A file's content, and its tag."""

    content: bytes
    tag: Tag


class Folder(ABC):
    """A folder, whether it exists or not.

    All methods raise a `WatchError` if it may not be read (`permission`) or the store does not answer (`store`,
    `timeout`).

    Args:
        is_local: whether it is on a disk, where to look costs nothing, but may hang.
    """

    __slots__ = ()
    is_local: bool

    @abstractmethod
    def child(self, *names: str) -> "Folder":
        """Return the folder of this name in this one."""

    @abstractmethod
    async def read(self, name: str) -> File:
        """Read a small file.

        Raises:
            FileNotFoundError: there is none.
        """

    @abstractmethod
    async def read_lines(self, name: str, take: Callable[[bytes], None]) -> float:
        """Call `take` with each line that is not empty, and return when the file was written, in Unix time.

        Raises:
            FileNotFoundError: there is none.
        """

    def real(self, path: str) -> str:
        """Return a path in this folder without links."""
        return path

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """Open a large file, of which only parts are in memory. It blocks: see `in_thread`.

        Raises:
            FileNotFoundError: there is none.
        """

    @abstractmethod
    async def in_thread(self, function: Callable[[], T]) -> T:
        """Call a function that takes long, without holding up other folders."""

    @abstractmethod
    async def tags(self, names: Sequence[str]) -> list[Tag | None]:
        """Return what changes if another file replaces these, or None for each that is missing."""

    async def tags_from(self, name: Callable[[int], str], first: int, most: int | None = None) -> list[Tag]:
        """Return the tags of the files with these numbered names, from `first` on up to the first that is missing.

        It asks for one, then for two, four, …: on average less than a listing costs.
        """
        found: list[Tag] = []
        at_once = 1
        while most is None or len(found) < most:
            start = first + len(found)
            for tag in await self.tags([name(number) for number in range(start, start + at_once)]):
                if tag is None:
                    return found
                found.append(tag)
            at_once = min(2 * at_once, FILES_AT_ONCE)
        return found

    @abstractmethod
    async def at_once(self, ask: Callable[[A], Awaitable[T]], subjects: Sequence[A]) -> list[T | BaseException]:
        """Return what a function answers to each of these, or the error that it raises."""

    @abstractmethod
    async def names(self, after: str = "", before: str = "") -> list[str]:
        """Return the names of all files, or of those between two names; none if there is no such folder."""

    @abstractmethod
    async def folders(self, paths: Sequence[str]) -> list[list[str]]:
        """Return the names of the folders at each of these paths in this one."""


def open_folder(location: str, time_limit: float | None = None) -> Folder:
    """Return the folder at a path or URL, as Spark or Hadoop writes it.

    Hadoop does not encode URLs: `%20` is three characters of a name.

    Args:
        location: a path, `file:/path`, or `s3://`, `s3a://`, `gs://`, `az://`, `abfss://` and the like.
        time_limit: seconds for each request to an object store; None for as long as its library waits.

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
    url, parts = f"{OBJECT_STORES[scheme]}://{bucket}", [part for part in path.split("/") if part]
    return ObjectFolder(_bucket(url), "/".join(parts), time_limit)


def printable(name: str) -> str:
    """Return a name that is UTF-8: on a disk, it may be anything."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


class LocalFolder(Folder):
    """A folder of the operating system."""

    __slots__ = ("_path",)
    is_local = True

    def __init__(self, path: str) -> None:
        self._path = path.rstrip("/") or "/"

    def __str__(self) -> str:
        return printable(self._path)

    def child(self, *names: str) -> Folder:
        return LocalFolder("/".join((self._path, *names)))

    async def read(self, name: str) -> File:
        with self._errors(name), open(f"{self._path}/{name}", "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            return File(file.read(), _local_tag(status))

    async def read_lines(self, name: str, take: Callable[[bytes], None]) -> float:
        with self._errors(name), open(f"{self._path}/{name}", "rb") as file:
            for line in file:
                if line != b"\n":
                    take(line)
            return os.fstat(file.fileno()).st_mtime

    def real(self, path: str) -> str:
        return os.path.realpath(f"{self._path}/{path}")

    def open(self, name: str) -> IO[bytes]:
        with self._errors(name):
            return open(f"{self._path}/{name}", "rb")

    async def in_thread(self, function: Callable[[], T]) -> T:
        return function()  # all of a local folder runs in a thread

    async def tags(self, names: Sequence[str]) -> list[Tag | None]:
        return [self._tag(name) for name in names]

    def _tag(self, name: str) -> Tag | None:
        try:
            return _local_tag(os.stat(f"{self._path}/{name}"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            with self._errors(name):
                raise
        return None

    async def at_once(self, ask: Callable[[A], Awaitable[T]], subjects: Sequence[A]) -> list[T | BaseException]:
        answers: list[T | BaseException] = []
        for subject in subjects:
            try:
                answers.append(await ask(subject))
            except (WatchError, FileNotFoundError) as error:
                answers.append(error)
        return answers

    async def names(self, after: str = "", before: str = "") -> list[str]:
        with suppress(FileNotFoundError), self._errors():
            return [name for name in os.listdir(self._path) if name > after and not (before and name >= before)]
        return []

    async def folders(self, paths: Sequence[str]) -> list[list[str]]:
        return [self._folders(path) for path in paths]

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
            path = f"{self}/{printable(name)}".rstrip("/")
            if isinstance(error, PermissionError):
                raise WatchError("permission", f"{path} may not be read; give this user the permission") from error
            raise WatchError("store", f"{path} cannot be read ({(error.strerror or str(error)).lower()})") from error


class _Bucket:
    """A bucket of an object store. The library takes the credentials from the environment."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.store: Any = None
        self._slots = asyncio.Semaphore(REQUESTS_AT_ONCE)
        self._silent_until = 0.0

    @asynccontextmanager
    async def request(self, operation: str, time_limit: float | None) -> AsyncIterator[Any]:
        """Wait for a turn, count the request, and yield the library's store.

        A bucket that has not answered is left alone for a while: nobody waits for it in a queue.
        """
        async with self._slots:
            if time.monotonic() < self._silent_until:
                raise asyncio.TimeoutError
            # It opens now, not at the start: what is wrong here concerns no other bucket. Options for the client would
            # replace those of the environment. By default it waits for 30 seconds.
            retries: Any = {"max_retries": MAX_RETRIES, "retry_timeout": RETRY_TIMEOUT}
            self.store = self.store or from_url(self.url, retry_config=retries)
            requests[operation] += 1
            silent_until = 0.0
            try:
                yield self.store
            except asyncio.TimeoutError:
                silent_until = time.monotonic() + (time_limit or 0)
                raise
            finally:
                self._silent_until = silent_until


_bucket = cache(_Bucket)


class ObjectFolder(Folder):
    """A prefix in a bucket."""

    __slots__ = ("_bucket", "_path", "_time_limit")
    is_local = False

    def __init__(self, bucket: _Bucket, path: str, time_limit: float | None) -> None:
        self._bucket, self._path, self._time_limit = bucket, path, time_limit

    def __str__(self) -> str:
        return f"{self._bucket.url}/{self._path}"

    def child(self, *names: str) -> Folder:
        return ObjectFolder(self._bucket, self._key("/".join(names)), self._time_limit)

    async def read(self, name: str) -> File:
        async with self._request("get", name) as store:
            result = await self._answer(obstore.get_async(store, self._key(name)))
            content = bytes(await self._answer(result.bytes_async()))
            return File(content, _object_tag(result.meta))

    async def read_lines(self, name: str, take: Callable[[bytes], None]) -> float:
        content, meta = await self._get(name, {})
        if content is not None:
            for line in filter(None, content.split(b"\n")):
                take(line)
        else:  # in parts, each a request of its own: a whole one could take longer than the library waits
            async with LARGE:
                rest = b""
                for start in range(0, meta["size"], PART):
                    options = {"range": (start, min(start + PART, meta["size"])), "if_match": meta["e_tag"]}
                    content, _ = await self._get(name, options)
                    *lines, rest = (rest + (content or b"")).split(b"\n")
                    for line in filter(None, lines):
                        take(line)
            if rest:
                take(rest)
        return float(meta["last_modified"].timestamp())

    async def _get(self, name: str, options: Any) -> tuple[bytes | None, Any]:
        """Return the content of an object, None if it is large and should be read in parts, and its metadata."""
        async with self._request("get", name) as store:
            result = await self._answer(obstore.get_async(store, self._key(name), options=options))
            if not options and result.meta["size"] > SMALL:
                return None, result.meta
            return bytes(await self._answer(result.bytes_async())), result.meta

    def open(self, name: str) -> IO[bytes]:
        reader = obstore.open_reader(self._bucket.store, self._key(name), buffer_size=PART)
        requests["get"] += -(-reader.size // PART)
        return cast(IO[bytes], reader)

    async def in_thread(self, function: Callable[[], T]) -> T:
        async with self._request("head", ""):
            return await asyncio.to_thread(function)

    async def tags(self, names: Sequence[str]) -> list[Tag | None]:
        return await asyncio.gather(*map(self._tag, names))

    async def at_once(self, ask: Callable[[A], Awaitable[T]], subjects: Sequence[A]) -> list[T | BaseException]:
        return await asyncio.gather(*map(ask, subjects), return_exceptions=True)

    async def _tag(self, name: str) -> Tag | None:
        with suppress(FileNotFoundError):
            async with self._request("head", name) as store:
                return _object_tag(await self._answer(obstore.head_async(store, self._key(name))))
        return None

    async def names(self, after: str = "", before: str = "") -> list[str]:
        if not after:
            return [entry["path"].rpartition("/")[2] for entry in (await self._list(""))["objects"]]
        # Some stores list in no order, and from the start.
        found: list[str] = []
        async with self._request("list", "") as store:
            pages = obstore.list(store, self._path, offset=self._key(after), chunk_size=PAGE)
            with suppress(StopAsyncIteration):
                while True:
                    page = [entry["path"][len(self._key("")) :] for entry in await self._answer(anext(pages))]
                    found += [name for name in page if after < name and "/" not in name]
                    if before and page == sorted(page) and page[-1] >= before:
                        break
        return [name for name in found if not (before and name >= before)]

    async def folders(self, paths: Sequence[str]) -> list[list[str]]:
        listed = await asyncio.gather(*map(self._list, paths))
        return [[prefix.rstrip("/").rpartition("/")[2] for prefix in each["common_prefixes"]] for each in listed]

    async def _list(self, path: str) -> Any:
        async with self._request("list", path) as store:
            prefix = self._key(path).rstrip("/") or None
            listed = await self._answer(obstore.list_with_delimiter_async(store, prefix))
            requests["list"] += (len(listed["objects"]) + len(listed["common_prefixes"])) // (PAGE + 1)  # more pages
            return listed

    def _key(self, name: str) -> str:
        return f"{self._path}/{name}" if self._path else name

    def _answer(self, request: Awaitable[T]) -> Awaitable[T]:
        """Wait for an answer, or for a part of it."""
        return asyncio.wait_for(request, self._time_limit) if self._time_limit else request

    @asynccontextmanager
    async def _request(self, operation: str, name: str) -> AsyncIterator[Any]:
        """Turn the errors of the library into ours. Only a missing object stays a FileNotFoundError."""
        try:
            async with self._bucket.request(operation, self._time_limit) as store:
                yield store
        except (FileNotFoundError, WatchError):
            raise
        except asyncio.TimeoutError:
            limit = f"{self._time_limit:g} seconds"
            location = f"{self._bucket.url}/{self._key(name)}".rstrip("/")
            raise WatchError("timeout", f"{location} has not answered within {limit}; check its store") from None
        except (BaseError, ValueError, OSError) as error:
            raise self._explained(error, f"{self._bucket.url}/{self._key(name)}".rstrip("/")) from error

    def _explained(self, error: Exception, location: str) -> WatchError:
        # Not by the kind of error: while listing, the library raises the same one for everything.
        if re.search(r"status code: 40[13]\b", str(error)):
            return WatchError("permission", f"{location} may not be read; check the credentials")
        if "status code" not in str(error) and NO_CREDENTIALS.search(str(error)):
            scheme = self._bucket.url.partition(":")[0]
            return WatchError(
                "permission",
                f"{self._bucket.url} cannot be read without credentials ({_without_secrets(error)}); set "
                f"{VARIABLES.get(scheme, VARIABLES['az'])}",
            )
        return WatchError("store", f"{location} cannot be read ({_without_secrets(error)})")


def _local_tag(status: os.stat_result) -> Tag:
    # Without the inode: some network file systems have another one at each look.
    return Tag(f"{status.st_size} {status.st_mtime_ns}", status.st_mtime)


def _object_tag(entry: Any) -> Tag:
    return Tag(f"{entry['e_tag']} {entry['size']}", entry["last_modified"].timestamp())


def _without_secrets(error: BaseException) -> str:
    """Return the essential part of the library's message. The rest quotes the request, which may contain a token."""
    text = str(error)
    status = re.search(r"status code: (\d{3} [\w ]+)", text)
    code = re.search(r"<Code>(\w+)</Code>", text)
    if status:
        return f"{status[1]}, {code[1]}" if code else status[1]
    return re.sub(r"\S+://\S+", "…", text.partition("\n")[0])[:200]
