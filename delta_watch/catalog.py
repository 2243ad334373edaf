"""Ask a Unity Catalog server where a table is, and which of its commits are ratified, but not in the log yet."""

import re
import time
from functools import cache
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import HTTPRedirectHandler, Request, build_opener

from msgspec import MsgspecError, Struct, json

from .commits import Ratified
from .discovery import Text
from .errors import WatchError
from .threads import Threads, TimedOut

TIME_LIMIT = 5.0  # seconds for a request, which usually takes milliseconds
PAUSE = 10.0  # seconds in which nobody waits for a server that has not answered
API = "api/2.1/unity-catalog/delta/v1"
STAGED = re.compile(r"\d{20}\.[\w-]+\.json")


class CatalogTable(Struct, frozen=True, forbid_unknown_fields=True):
    """A table in a Unity Catalog.

    Args:
        catalog: URL of the server.
        name: `catalog.schema.table`.
        location: path or URL of the table; None for where the catalog says it is.
        token_file: path of a file with the token for the server; None if it needs none.
    """

    catalog: Text
    name: Text
    location: Text | None = None
    token_file: Text | None = None


class Answer(NamedTuple):
    """What a catalog says of a table: where it is, and what was committed."""

    location: str
    ratified: Ratified


class _Commit(Struct, rename="kebab"):
    version: int
    file_name: str


class _Metadata(Struct):
    location: str


class _Table(Struct, rename="kebab"):
    metadata: _Metadata
    latest_table_version: int | None = None  # if it manages the table's commits
    commits: list[_Commit] = []


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Follow none: the token is for this server only."""


_opener = build_opener(_NoRedirects)
_threads = cache(lambda server: Threads())  # of each server: one that hangs holds up no other
_silent_until: dict[str, float] = {}  # by server


async def ask(table: CatalogTable, place: str, time_limit: float | None) -> Answer:
    """Ask the catalog of a table.

    Args:
        table: which one.
        place: what no other table has. A request that still hangs is not repeated.
        time_limit: seconds, at most TIME_LIMIT.

    Raises:
        WatchError: the catalog does not answer (`catalog`), refuses to (`catalog_denied`), or does not know the table
            (`catalog_unknown`).
    """
    limit = min(time_limit or TIME_LIMIT, TIME_LIMIT)
    if time.monotonic() < _silent_until.get(table.catalog, 0):
        raise _silence(table, "timed out")
    try:
        return await _threads(table.catalog).run(place, _ask(table, limit), limit)
    except TimedOut:
        _silent_until[table.catalog] = time.monotonic() + PAUSE
        raise _silence(table, "timed out") from None


async def _ask(table: CatalogTable, limit: float) -> Answer:
    parts = zip(("catalogs", "schemas", "tables"), table.name.split("."), strict=True)
    path = "/".join(f"{kind}/{quote(part, safe='')}" for kind, part in parts)
    request = Request(f"{table.catalog.rstrip('/')}/{API}/{path}")
    if table.token_file:  # at each request: it may be replaced
        request.add_header("Authorization", f"Bearer {_read_token(Path(table.token_file))}")
    try:
        with _opener.open(request, timeout=limit) as response:
            found = json.decode(response.read(), type=_Table)
    except HTTPError as error:
        raise _refusal(table, error.code) from None
    except MsgspecError as error:
        raise WatchError("catalog", f"the answer of {_name(table)} cannot be understood ({error})") from None
    except Exception as error:  # an unforeseen error costs what only the catalog knows, not the watcher
        cause = getattr(error, "reason", error)
        if isinstance(cause, TimeoutError):
            raise TimedOut from None
        raise _silence(table, str(getattr(cause, "strerror", None) or cause).lower()) from None
    for commit in found.commits:
        if not STAGED.fullmatch(commit.file_name):  # else it could be anywhere
            raise WatchError("catalog", f"{_name(table)} names {commit.file_name!r}, which is no staged commit")
    last = -1 if found.latest_table_version is None else found.latest_table_version
    files = {commit.version: f"_staged_commits/{commit.file_name}" for commit in found.commits}
    return Answer(found.metadata.location, Ratified(last, files))


def _silence(table: CatalogTable, reason: object) -> WatchError:
    return WatchError("catalog", f"{_name(table)} does not answer ({reason}); check the server")


def _refusal(table: CatalogTable, code: int) -> WatchError:
    if code in (401, 403):
        advice = f"put a valid token into {table.token_file}" if table.token_file else "it needs a token_file"
        return WatchError("catalog_denied", f"{_name(table)} refuses ({code}); {advice}")
    if code == 404:
        return WatchError("catalog_unknown", f"{_name(table)} has no such table; check its name")
    advice = "name the server that it redirects to" if 300 <= code < 400 else "check the server"
    return WatchError("catalog", f"{_name(table)} answers with status {code}; {advice}")


def _read_token(path: Path) -> str:
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = str(error.strerror).lower() if isinstance(error, OSError) else "it is not ASCII"
        raise WatchError("catalog_denied", f"the token in {path} cannot be read ({reason})") from None
    if not re.fullmatch(r"[!-~]+", token):
        raise WatchError("catalog_denied", f"{path} holds no token; write it there, on one line")
    return token


def _name(table: CatalogTable) -> str:
    return f"the catalog {table.catalog}, asked for {table.name},"
