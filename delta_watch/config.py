"""Read the watcher's configuration, a TOML file, and find mistakes before anything starts."""

import re
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, cast, get_args

from .backlog import Reads
from .errors import DeltaWatchError
from .exporter import ADDRESS, PORT, Server
from .store import open_folder
from .watcher import TIME_LIMIT, Consumer, Discovery, has_wildcard

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

INTERVAL = 15.0  # seconds

KEYS = {
    "": ("interval", "time_limit", "web", "tables", "consumer", "discover"),
    "web": ("address", "port", "certificate", "private_key", "username", "password_file"),
    "consumer": ("name", "table", "checkpoint", "reads"),
    "discover": ("table", "checkpoints", "reads"),
}


@dataclass(frozen=True)
class Config:
    """What to watch, and how.

    Args:
        tables: path or URL of each table by its name.
        consumers: the consumers that are named.
        discoveries: where to look for more.
        interval: seconds from the start of one round to the start of the next.
        time_limit: seconds until a table or checkpoint that does not answer is given up until the next round.
        server: how to serve the metrics.
    """

    tables: dict[str, str]
    consumers: tuple[Consumer, ...]
    discoveries: tuple[Discovery, ...]
    interval: float = INTERVAL
    time_limit: float = TIME_LIMIT
    server: Server = field(default_factory=Server)


def read_config(path: Path) -> Config:
    """Read a configuration. Relative paths in it start at its own folder.

    Raises:
        DeltaWatchError: the file cannot be read, or has a mistake. The message names the key and the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DeltaWatchError(f"{path} is not a text in UTF-8; save it as one") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DeltaWatchError(f"the configuration {path} cannot be read ({reason}); check its path") from error
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        reason = str(error).partition(" (at ")[0].lower()
        where = f"line {line[1] if line else len(text.splitlines())}"
        raise DeltaWatchError(f"{path}, {where}: this is not valid TOML ({reason}); correct it") from None
    return _Reader(path, text).config(parsed)


class _Reader:
    def __init__(self, path: Path, text: str) -> None:
        self._path, self._text = path, text

    def config(self, parsed: dict[str, Any]) -> Config:
        top = _Section(self, "", 0, parsed)
        top.check_keys(KEYS[""])
        tables = self._tables(top)
        consumers = tuple(self._consumer(section, tables) for section in top.sections("consumer"))
        seen: set[tuple[str, str]] = set()
        for number, consumer in enumerate(consumers):
            if (consumer.table, consumer.name) in seen:
                section = _Section(self, "consumer", number, {})
                section.fail("name", f"{consumer.name} of {consumer.table} is there twice; give one another name")
            seen.add((consumer.table, consumer.name))
        discoveries = tuple(self._discovery(section, tables) for section in top.sections("discover"))
        if not tables:
            self.fail(1, "there is nothing to watch; add a [[consumer]] with name, table and checkpoint")
        return Config(
            tables,
            consumers,
            discoveries,
            top.number("interval", INTERVAL),
            top.number("time_limit", TIME_LIMIT),
            self._server(top),
        )

    def fail(self, line: int, mistake: str) -> NoReturn:
        raise DeltaWatchError(f"{self._path}, line {line}: {mistake}")

    def line(self, name: str, number: int, key: str) -> int:
        """Return the line of a key in a section with this name, or that of the section if the key is not there."""
        section, count, found = "", {"": 0}, 1
        for position, line in enumerate(self._text.splitlines(), 1):
            if header := re.match(r"\s*\[\[?\s*(\w+)\s*\]\]?\s*(#|$)", line):
                section = header[1]
                count[section] = count.get(section, -1) + 1
                if (section, count[section]) == (name, number) or (not name and section == key):
                    found = position
            elif (section, count.get(section)) == (name, number) and re.match(
                rf"\s*(['\"]?){re.escape(key)}\1\s*[=.]", line
            ):
                return position
        return found

    def _tables(self, top: "_Section") -> dict[str, str]:
        section = top.section("tables")
        return {name: self._location(section, name) for name in section.values}

    def _table(self, section: "_Section", tables: dict[str, str]) -> str:
        """Return the name of a section's table. One that is not in [tables] is named by its path."""
        name = section.text("table")
        if name not in tables:
            tables[name] = self._location(section, "table")
        return name

    def _consumer(self, section: "_Section", tables: dict[str, str]) -> Consumer:
        section.check_keys(KEYS["consumer"])
        return Consumer(
            name=section.text("name"),
            table=self._table(section, tables),
            checkpoint=self._location(section, "checkpoint"),
            reads=self._reads(section),
        )

    def _discovery(self, section: "_Section", tables: dict[str, str]) -> Discovery:
        section.check_keys(KEYS["discover"])
        table = self._table(section, tables)
        parts = self._location(section, "checkpoints").rstrip("/").split("/")
        first = next((number for number, part in enumerate(parts) if has_wildcard(part)), None)
        if first is None:
            section.fail("checkpoints", "checkpoints has no *; name a single checkpoint in a [[consumer]]")
        folder, pattern = "/".join(parts[:first]), "/".join(parts[first:])
        return Discovery(table, folder or "/", pattern, self._reads(section))

    def _reads(self, section: "_Section") -> Reads:
        reads = section.text("reads", "appends")
        if reads not in get_args(Reads):
            section.fail("reads", f"reads must be one of {', '.join(get_args(Reads))}")
        return cast(Reads, reads)

    def _location(self, section: "_Section", key: str) -> str:
        location = section.text(key)
        try:
            open_folder(location)
        except DeltaWatchError as error:
            section.fail(key, f"{key}: {error}")
        is_relative = not location.startswith("/") and ":" not in location.partition("/")[0]
        return str(self._path.parent.absolute() / location) if is_relative else location

    def _server(self, top: "_Section") -> Server:
        web = top.section("web")
        web.check_keys(KEYS["web"])
        for one, other in (("certificate", "private_key"), ("username", "password_file")):
            for key, needed in ((one, other), (other, one)):
                if key in web.values and needed not in web.values:
                    web.fail(key, f"{key} needs {needed} too")
        return Server(
            address=web.text("address", ADDRESS),
            port=web.port(PORT),
            certificate=self._file(web, "certificate"),
            private_key=self._file(web, "private_key"),
            username=web.text("username") if "username" in web.values else None,
            password=self._password(web),
        )

    def _file(self, section: "_Section", key: str) -> str | None:
        if key not in section.values:
            return None
        path = self._path.parent / section.text(key)
        try:
            path.open("rb").close()
        except OSError as error:
            section.fail(key, f"{key} {path} cannot be read ({(error.strerror or str(error)).lower()})")
        return str(path)

    def _password(self, web: "_Section") -> str:
        file = self._file(web, "password_file")
        password = Path(file).read_text().rstrip("\n") if file else ""
        if file and not password:
            web.fail("password_file", f"password_file {file} is empty; write the password into it")
        return password


class _Section:
    """A table of the TOML file, the `number`th with this name."""

    def __init__(self, reader: _Reader, name: str, number: int, values: Any) -> None:
        self._reader, self._name, self._number = reader, name, number
        self.values: dict[str, Any] = values

    def fail(self, key: str, mistake: str) -> NoReturn:
        self._reader.fail(self._reader.line(self._name, self._number, key), mistake)

    def check_keys(self, known: Collection[str]) -> None:
        for key in self.values:
            if key not in known:
                close = get_close_matches(key, known, 1)
                advice = f"perhaps it is {close[0]}" if close else f"use {', '.join(known)}"
                self.fail(key, f"the key {key} is unknown; {advice}")

    def section(self, name: str) -> "_Section":
        values = self.values.get(name, {})
        if not isinstance(values, dict):
            self.fail(name, f"{name} must be a section; write [{name}]")
        return _Section(self._reader, name, 0, values)

    def sections(self, name: str) -> list["_Section"]:
        values = self.values.get(name, [])
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            self.fail(name, f"{name} must be a list of sections; write [[{name}]]")
        return [_Section(self._reader, name, number, value) for number, value in enumerate(values)]

    def text(self, key: str, default: str | None = None) -> str:
        value = self.values.get(key, default)
        if value is None:
            self.fail(key, f"the key {key} is missing in [[{self._name}]]; add it")
        if not isinstance(value, str) or not value.strip():
            self.fail(key, f'{key} must be a text that is not empty; write {key} = "…"')
        return value

    def number(self, key: str, default: float) -> float:
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
            self.fail(key, f"{key} must be a number of seconds above 0")
        return float(value)

    def port(self, default: int) -> int:
        value: Any = self.values.get("port", default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 65535:
            self.fail("port", "port must be a whole number from 0 to 65535")
        return int(value)
