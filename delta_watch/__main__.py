"""Watch Delta tables and the streams that read them from outside, and serve their lags as metrics for Prometheus."""

import argparse
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

try:
    from msgspec.structs import replace

    from .config import Config, read_config, shard
    from .errors import DeltaWatchError
    from .exporter import serve
    from .once import format_states, is_known
    from .watcher import TIME_LIMIT, Watcher
except ModuleNotFoundError as error:
    sys.exit(f"Error: {error.name} is not installed; run pip install 'lag-detector[watch]'.")

UNKNOWN, MISTAKE, INTERRUPTED = 2, 1, 130  # exit codes


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit with 1, because 2 means that a lag is unknown."""
        raise DeltaWatchError(f"{message}; {self.prog} --help lists the options")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    try:
        return _run(arguments)
    except DeltaWatchError as error:
        _say(f"Error: {error}.")
        return MISTAKE
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(arguments: Sequence[str] | None) -> int:
    parser = _Parser(prog="delta-watch", description=__doc__)
    parser.add_argument("--version", action="version", version=f"delta-watch {version('lag-detector')}")
    parser.add_argument("config", type=Path, metavar="CONFIG.toml", help="what to watch")
    parser.add_argument("--once", action="store_true", help="look once, print a table, exit with 2 if a lag is unknown")
    parser.add_argument("--port", type=int, help="port of the metrics, 9464 by default; 0 for any that is free")
    parser.add_argument("--address", help="address to listen on, 127.0.0.1 by default")
    parser.add_argument("--shard", metavar="K/N", help="watch a part of the tables: the K-th of N, from 0 on")
    options = parser.parse_args(arguments)
    config = read_config(options.config)
    if options.shard is not None:
        config = shard(config, options.shard)
    server = config.web
    if options.port is not None:
        if not 0 <= options.port <= 65535:
            parser.error("--port must be from 0 to 65535")
        server = replace(server, port=options.port)
    if options.address is not None:
        server = replace(server, address=options.address)
    time_limit = config.time_limit or (None if options.once else TIME_LIMIT)
    watcher = Watcher(
        config.tables, config.consumers, config.discoveries, time_limit, config.discovery_interval, report=_say
    )
    if options.once:
        return _once(watcher)
    try:
        httpd = serve(watcher, server)
    except (OSError, OverflowError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise DeltaWatchError(
            f"the metrics cannot be served at {server.address}:{server.port} ({reason}); choose another --port or "
            "--address, or check the certificate"
        ) from error
    scheme = "https" if server.certificate else "http"
    host = f"[{server.address}]" if ":" in server.address else server.address
    _say(f"Serving metrics at {scheme}://{host}:{httpd.server_port}/metrics")
    return _watch(watcher, config)


def _once(watcher: Watcher) -> int:
    watcher.run_round()
    sys.stdout.write(f"{format_states(watcher.states, time.time())}\n")
    discovered = {discovery.table for discovery in watcher.discoveries}
    return 0 if is_known(watcher.states, discovered) else UNKNOWN


def _watch(watcher: Watcher, config: Config) -> NoReturn:
    while True:
        start = time.monotonic()
        watcher.run_round()
        time.sleep(max(start + config.interval - time.monotonic(), 0))


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
