"""Read the watcher's configuration, a TOML file, and find its mistakes before anything starts."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, NoReturn, get_args
from zlib import crc32

from msgspec import DecodeError, Meta, Struct, ValidationError, convert, field, toml
from msgspec.structs import replace

from .backlog import Reads
from .catalog import CatalogTable
from .errors import DeltaWatchError
from .exporter import Server
from .lake import Lake
from .store import open_folder
from .watcher import DISCOVERY_INTERVAL, Consumer, Discovery, Text

Seconds = Annotated[float, Meta(gt=0, lt=1e9)]


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """What to watch, and how.

    Args:
        interval: seconds from the start of one round to the start of the next.
        time_limit: seconds until a table or checkpoint that does not answer is given up until the next round; None for
            the default, with which a single look waits for everything.
        discovery_interval: seconds between two looks for consumers.
        web: how to serve the metrics.
        tables: path or URL of each table by its name, or where to ask its catalog.
        consumers: the consumers with a name.
        discoveries: where to look for more.
        lakes: where to look for tables and for their consumers.
        stale_after: seconds since its last batch after which a discovered consumer that is behind is left out; None for
            never.
    """

    interval: Seconds = 15.0
    time_limit: Seconds | None = None
    discovery_interval: Annotated[float, Meta(ge=0, lt=1e9)] = DISCOVERY_INTERVAL
    web: Server = Server()
    tables: dict[str, Text | CatalogTable] = {}
    consumers: tuple[Consumer, ...] = field(default=(), name="consumer")
    discoveries: tuple[Discovery, ...] = field(default=(), name="discover")
    lakes: tuple[Lake, ...] = field(default=(), name="lake")
    stale_after: Seconds | None = None


SECTIONS = {
    "": Config,
    "web": Server,
    "tables": CatalogTable,
    "consumer": Consumer,
    "discover": Discovery,
    "lake": Lake,
}
# What to say where msgspec expected this.
EXPECTED = {
    "str": '{key} must be non-empty text; write {key} = "…"',
    "float": "{key} must be a number of seconds above 0",
    "int": "{key} must be a whole number from 0 to 65535",
    "object": "{key} must be a section; write [{key}]",
    "array": "{key} must be a list of sections; write [[{key}]]",
    "exclude": '{key} must be a list of patterns; write {key} = ["…"]',
    "enum": f"{{key}} must be one of {', '.join(get_args(Reads))}",
}


def read_targets(targets: Sequence[str]) -> Config:
    """Read all of these as one configuration: files of that kind, `*.toml`, and paths or URLs of lakes.

    Raises:
        DeltaWatchError: one has a mistake, or they contradict each other.
    """
    paths = configurations(targets)
    lakes = tuple(Lake(target) for target in targets if Path(target) not in paths)
    for lake in lakes:
        open_folder(lake.path)
    whole, *others = [*map(read_config, paths)] or [Config()]
    for path, config in zip(paths[1:], others, strict=True):
        for key in ("interval", "time_limit", "discovery_interval", "stale_after", "web"):
            values = {getattr(whole, key), getattr(config, key), default := getattr(Config(), key)} - {default}
            if len(values) > 1:
                raise DeltaWatchError(f"{path}: another configuration has a different {key}; keep one of them")
            whole = replace(whole, **{key: next(iter(values), default)})
        for name in whole.tables.keys() & config.tables.keys():
            if whole.tables[name] != config.tables[name]:
                raise DeltaWatchError(f"{path}: another configuration has a different table {name}; rename one")
        for table, name in {_label(consumer) for consumer in whole.consumers} & set(map(_label, config.consumers)):
            raise DeltaWatchError(f"{path}: another configuration has a consumer {name} of {table} too; rename one")
        whole = replace(
            whole,
            tables=whole.tables | config.tables,
            consumers=whole.consumers + config.consumers,
            discoveries=whole.discoveries + config.discoveries,
            lakes=whole.lakes + config.lakes,
        )
    return replace(whole, lakes=whole.lakes + lakes)


def configurations(targets: Sequence[str]) -> list[Path]:
    """Return those of these targets that are configurations."""
    return [Path(target) for target in targets if target.endswith(".toml")]


def _label(consumer: Consumer) -> tuple[str, str]:
    return consumer.table, consumer.name


def read_config(path: Path) -> Config:
    """Read a configuration. Relative paths in it start at its own folder.

    Raises:
        DeltaWatchError: the file cannot be read, or has a mistake. The message names the key and the line.
    """
    return _File(path, _read(path, f"the configuration {path}")).config()


def shard(text: str | None) -> Callable[[str], bool]:
    """Return whether one of several watchers of the same targets is responsible for a table, by the hash of its name.

    Args:
        text: which one of how many, such as `0/3`, `1/3` and `2/3`; None for all of it.

    Raises:
        DeltaWatchError: the text has another form.
    """
    if text is None:
        return lambda name: True
    number, shards = map(int, text.split("/")) if re.fullmatch(r"\d+/\d+", text) else (0, 0)
    if number >= shards:
        raise DeltaWatchError(f"--shard must be from 0/N to N-1/N, such as 0/3, not {text}")
    return lambda name: crc32(name.encode()) % shards == number


class _File:
    """The file. Places in it are written as msgspec does: `interval`, `web.port`, `consumer[0].name`."""

    def __init__(self, path: Path, text: str) -> None:
        self._path, self._text = path, text

    def config(self) -> Config:
        config = self._decode()
        tables = {name: self._table(table, f"tables.{name}") for name, table in config.tables.items()}
        sections: dict[str, Consumer | Discovery] = {f"consumer[{n}]": each for n, each in enumerate(config.consumers)}
        sections |= {f"discover[{n}]": each for n, each in enumerate(config.discoveries)}
        for place, section in sections.items():
            if section.table not in tables:  # then its name is its path
                if not re.search("[/:]", section.table):
                    close = get_close_matches(section.table, tables, 1)
                    advice = f"perhaps it is {close[0]}" if close else f"write ./{section.table} if it is a folder"
                    self._fail(f"{section.table} is not in [tables]; {advice}", f"{place}.table")
                tables[section.table] = self._location(section.table, f"{place}.table")
        if not (tables or config.lakes):
            self._fail(
                "there is nothing to watch; add a [[lake]] with path, or a [[consumer]]",
                "",
            )
        consumers: dict[tuple[str, str], Consumer] = {}
        for number, consumer in enumerate(config.consumers):
            place, name = f"consumer[{number}]", (consumer.table, consumer.name)
            if name in consumers:
                self._fail(f"{name[0]} has two consumers with the name {name[1]}; rename one", f"{place}.name")
            checkpoint = self._location(consumer.checkpoint, f"{place}.checkpoint")
            consumers[name] = replace(consumer, checkpoint=checkpoint)
        discoveries = []
        for number, discovery in enumerate(config.discoveries):
            place = f"discover[{number}].checkpoints"
            discoveries.append(replace(discovery, checkpoints=self._location(discovery.checkpoints, place)))
            if not discoveries[-1].split()[1]:
                self._fail("checkpoints has no *; name a single checkpoint in a [[consumer]]", place)
        lakes = tuple(
            replace(lake, path=self._location(lake.path, f"lake[{number}].path"))
            for number, lake in enumerate(config.lakes)
        )
        web, named, found = self._web(config.web), tuple(consumers.values()), tuple(discoveries)
        return replace(config, web=web, tables=tables, consumers=named, discoveries=found, lakes=lakes)

    def _decode(self) -> Config:
        try:
            return toml.decode(self._text, type=Config)
        except ValidationError as error:
            problem, _, place = str(error).partition(" - at `$.")
            self._explain(problem, place.rstrip("`"))
        except DecodeError as error:
            reason, _, position = str(error).lower().partition(" (at ")
            line = re.match(r"line (\d+)", position)
            number = line[1] if line else len(self._text.splitlines())
            raise DeltaWatchError(f"{self._path}, line {number}: not valid TOML ({reason}); correct it") from None

    def _explain(self, problem: str, place: str) -> NoReturn:
        """Report what msgspec says of a place, such as "Expected `str`, got `int`"."""
        if place.startswith("tables[...]"):  # msgspec does not say which
            place = place.replace("[...]", f".{self._wrong_table()}")
        section, index, key = re.findall(r"(\w*)(\[\d+\])?\.?(.*)", place)[0]
        key = key.rpartition(".")[2]
        if missing := re.match(r"Object .*(unknown|missing).* field `(.*)`", problem):
            known = SECTIONS[section].__struct_encode_fields__
            close = get_close_matches(missing[2], known, 1)
            advice = f"perhaps it is {close[0]}" if close else f"use {', '.join(known)}"
            header = f"[{place}]" if section == "tables" else f"[[{section}]]"
            what = {"unknown": f"unknown; {advice}", "missing": f"missing in {header}; add it"}[missing[1]]
            self._fail(f"the key {missing[2]} is {what}", f"{place}.{missing[2]}".lstrip("."))
        expected = re.match(r"Expected `(\w+)", problem)
        kind = "array" if index and not key else expected[1] if expected else "enum"
        message = EXPECTED.get(key) or EXPECTED[kind]
        self._fail(message.format(key=key or section), place)

    def _wrong_table(self) -> str:
        for name, table in toml.decode(self._text)["tables"].items():
            try:
                convert(table, Text | CatalogTable)
            except ValidationError:
                return str(name)
        return ""

    def _table(self, table: str | CatalogTable, place: str) -> str | CatalogTable:
        if isinstance(table, str):
            return self._location(table, place)
        if not re.fullmatch(r"https?://[^\s/?#@]+[^\s?#@]*", table.catalog):
            self._fail("catalog must be the server's URL, such as https://unity.example.com", f"{place}.catalog")
        if not re.fullmatch(r"[^.]+\.[^.]+\.[^.]+", table.name):
            self._fail("name must be catalog.schema.table", f"{place}.name")
        if table.location:
            table = replace(table, location=self._location(table.location, f"{place}.location"))
        if table.token_file:
            table = replace(table, token_file=self._secret(table.token_file, f"{place}.token_file"))
        return table

    def _location(self, location: str, place: str) -> str:
        try:
            open_folder(location)
        except DeltaWatchError as error:
            self._fail(f"{place.partition('.')[2]}: {error}", place)
        is_relative = not location.startswith("/") and ":" not in location.partition("/")[0]
        return str(self._path.parent.absolute() / location) if is_relative else location

    def _web(self, web: Server) -> Server:
        for one, other in (("certificate", "private_key"), ("username", "password_file")):
            for key, needed in ((one, other), (other, one)):
                if getattr(web, key) and not getattr(web, needed):
                    self._fail(f"{key} needs {needed} too", f"web.{key}")
        for key in ("certificate", "private_key", "password_file"):
            if name := getattr(web, key):
                web = replace(web, **{key: self._secret(name, f"web.{key}")})
        return web

    def _secret(self, name: str, place: str) -> str:
        """Return the path of a file that must not be empty."""
        path, key = self._path.parent / name, place.rpartition(".")[2]
        try:
            if not _read(path, f"{key} {path}").rstrip("\n"):
                raise DeltaWatchError(f"{key} {path} is empty; check its path")
        except DeltaWatchError as error:
            self._fail(str(error), place)
        return str(path)

    def _fail(self, message: str, place: str) -> NoReturn:
        """Report a mistake with its line, or with that of its section."""
        lines, count, section = {"": 1}, Counter[str](), ""
        for number, line in enumerate(self._text.splitlines(), 1):
            if header := re.match(r"\s*(\[+)\s*([^\[\]]+?)\s*\]", line):
                section = f"{header[2]}[{count[header[2]]}]" if header[1] == "[[" else re.sub("['\"]", "", header[2])
                count[header[2]] += 1
                lines.setdefault(header[2], number)
                lines[section] = number
            elif key := re.match(r"\s*(['\"]?)(.+?)\1\s*[=.]", line):
                lines.setdefault(f"{section}.{key[2]}".lstrip("."), number)
        line_number = lines.get(place) or lines.get(place.rpartition(".")[0], 1)
        raise DeltaWatchError(f"{self._path}, line {line_number}: {message}")


def _read(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DeltaWatchError(f"{name} is not UTF-8 text; save it as that") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DeltaWatchError(f"{name} cannot be read ({reason}); check its path") from error
