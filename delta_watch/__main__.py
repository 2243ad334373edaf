"""Watch Delta tables and the streams that read them from outside: a page for people, and metrics for Prometheus."""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NoReturn

try:
    from msgspec.structs import replace

    from .config import Config, configurations, read_targets, shard
    from .errors import DeltaWatchError
    from .exporter import VERSION, WatcherCollector, serve
    from .once import format_json, format_table
    from .summary import is_known, lags
    from .watcher import TIME_LIMIT, Watcher, logger
except ModuleNotFoundError as error:
    sys.exit(f"Error: {error.name} is not installed; run pip install 'lag-detector[watch]'.")

UNKNOWN, MISTAKE, INTERRUPTED = 2, 1, 130  # exit codes
LOOK = 1.0  # seconds between two looks at the configuration's files


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit with 1, because 2 means that a lag is unknown."""
        raise DeltaWatchError(f"{message}; {self.prog} --help lists the options")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    try:
        return _run(arguments)
    except DeltaWatchError as error:
        sys.stderr.write(f"Error: {error}.\n")
        return MISTAKE
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(arguments: Sequence[str] | None) -> int:
    parser = _Parser(prog="delta-watch", description=__doc__)
    parser.add_argument("--version", action="version", version=f"delta-watch {VERSION}")
    parser.add_argument(
        "targets",
        nargs="+",
        metavar="TARGET",
        help="a folder or URL of a lake, or a configuration, *.toml",
    )
    parser.add_argument("--check", action="store_true", help="check the configuration, and exit with 1 if it is wrong")
    parser.add_argument("--once", action="store_true", help="look once, print the lags, exit with 2 if one is unknown")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="how --once prints them")
    parser.add_argument("--port", type=int, help="port of page and metrics, 9464 by default; 0 for any that is free")
    parser.add_argument("--address", help="address to listen on, 127.0.0.1 by default")
    parser.add_argument("--shard", metavar="K/N", help="watch a part of the tables: the K-th of N, from 0 on")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    options = parser.parse_args(arguments)
    if options.port is not None and not 0 <= options.port <= 65535:
        parser.error("--port must be from 0 to 65535")
    _log(options.log_level, "%(message)s" if options.once else "%(asctime)sZ %(levelname)s %(message)s")
    config = _read(options)
    watcher = _watcher(config, options.shard, None if options.once else TIME_LIMIT)
    if options.check:
        sys.stdout.write(f"The configuration is valid. {_summary(config)}.\n")
        return 0
    return _once(watcher, options.format) if options.once else _watch(watcher, config, options)


def _log(level: str, line: str) -> None:
    formatter = logging.Formatter(line, "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    logger.setLevel(level.upper())


def _read(options: argparse.Namespace) -> Config:
    config = read_targets(options.targets)
    given = {key: value for key in ("port", "address") if (value := getattr(options, key)) is not None}
    return replace(config, web=replace(config.web, **given))


def _watcher(config: Config, part: str | None, time_limit: float | None = TIME_LIMIT) -> Watcher:
    return Watcher(
        config.tables,
        config.consumers,
        config.discoveries,
        config.time_limit or time_limit,
        config.discovery_interval,
        config.lakes,
        config.stale_after,
        is_ours=shard(part),
    )


def _summary(config: Config) -> str:
    counts = {"table": config.tables, "consumer": config.consumers, "pattern": config.discoveries, "lake": config.lakes}
    return ", ".join(f"{len(each)} {name}{'s' * (len(each) != 1)}" for name, each in counts.items())


def _once(watcher: Watcher, output: str) -> int:
    watcher.run_round()
    problems = list(filter(None, watcher.inventory.problems.values()))
    if problems and not watcher.states:
        raise problems[0]
    found = list(lags(watcher.states, time.time()))
    sys.stdout.write(f"{format_json(found) if output == 'json' else format_table(found)}\n")
    discovered = {discovery.table for discovery in watcher.inventory.discoveries}
    return 0 if is_known(watcher.states, discovered) and not problems else UNKNOWN


def _watch(watcher: Watcher, config: Config, options: argparse.Namespace) -> NoReturn:
    for ending in (signal.SIGTERM, signal.SIGINT):  # there is nothing to save, and a store may hang
        signal.signal(ending, lambda *_: os._exit(0))
    hangups: SimpleQueue[None] = SimpleQueue()  # a queue, because a handler may interrupt anything
    signal.signal(signal.SIGHUP, lambda *_: hangups.put(None))
    files = configurations(options.targets)
    contents = _contents(files)
    collector = WatcherCollector(watcher)
    _serve(collector, config)
    while True:
        start = time.monotonic()
        watcher.run_round()
        collector.watcher = watcher  # after a reload, only now: until then the old results are better than none
        collector.rounds += 1
        logger.debug("Round %d took %.2f seconds", collector.rounds, time.monotonic() - start)
        rest = config.interval
        while rest > 0:
            rest = start + config.interval - time.monotonic()
            requested = _is_requested(hangups, within=min(max(rest, 0), LOOK))
            if requested or _contents(files) != contents:
                contents = _contents(files)
                if new := _reload(collector, config, options):
                    config, watcher = new
                    break


def _is_requested(hangups: SimpleQueue[None], within: float) -> bool:
    with suppress(Empty):
        hangups.get(timeout=within)
        return True
    return False


def _serve(collector: WatcherCollector, config: Config) -> None:
    server = config.web
    try:
        httpd = serve(collector, server)
    except (OSError, OverflowError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise DeltaWatchError(
            f"the metrics cannot be served at {server.address}:{server.port} ({reason}); choose another --port or "
            "--address, or check the certificate"
        ) from error
    scheme = "https" if server.certificate else "http"
    host = f"[{server.address}]" if ":" in server.address else server.address
    address = f"{scheme}://{host}:{httpd.server_port}"
    logger.info("Serving a page at %s/ and metrics at %s/metrics", address, address)


def _contents(files: Sequence[Path]) -> list[bytes | None]:
    """Return what is in the configuration's files, None for one that cannot be read."""
    contents: list[bytes | None] = []
    for file in files:
        try:
            contents.append(file.read_bytes())
        except OSError:
            contents.append(None)
    return contents


def _reload(collector: WatcherCollector, old: Config, options: argparse.Namespace) -> tuple[Config, Watcher] | None:
    """Read the configuration again, or return None and keep the old one if there is a mistake in the new one."""
    try:
        config = _read(options)
        if config.web != old.web:
            raise DeltaWatchError("[web] has changed, which needs a restart")
        watcher = _watcher(config, options.shard)
    except DeltaWatchError as error:
        collector.reloaded = False
        logger.error("The configuration is not reloaded, and the old one stays: %s", error)
        return None
    collector.reloaded, collector.last_reload = True, time.time()
    logger.info("The configuration is reloaded: %s", _summary(config))
    return config, watcher


if __name__ == "__main__":
    sys.exit(main())
