"""Run the services of docker-compose.yml on free ports, as a project of their own: you may have yours running."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tutorial.script import progress

from demo.stack import ROOT, Stack, last_line, local_stack, prometheus_files
from lag_detector.errors import LagDetectorError

PROJECT = f"lag-detector-{os.getpid()}"
PORTS = {"prometheus": 9090, "pushgateway": 9091, "grafana": 3000}
WITHOUT_GRAFANA = ("prometheus", "pushgateway")


class DockerError(LagDetectorError):
    """Docker cannot run the services. The message is its own reason."""


@contextmanager
def any_stack(folder: Path, timing: dict[str, str], where: str) -> Iterator[tuple[Stack, str]]:
    """Run Prometheus and Pushgateway with Docker, or as programs of this machine if Docker cannot.

    Args:
        folder: the folder for their files.
        timing: REAL or COMPRESSED.
        where: `docker` or `local` to allow only that; empty to allow both.

    Yields:
        Their addresses, and what runs them.

    Raises:
        LagDetectorError: nothing that is allowed can run them, or `where` is something else.
    """
    if where not in ("", "docker", "local"):
        raise LagDetectorError(f"STACK={where} is unknown; use STACK=docker, STACK=local, or unset it")
    with ExitStack() as running:
        if where == "docker" or (where == "" and shutil.which("docker")):
            try:
                stack = running.enter_context(compose_stack(folder / "compose", timing))
            except DockerError as error:
                if where == "docker":
                    raise LagDetectorError(f"{error}; fix that, or use STACK=local") from error
                progress(f"{error}. Using the local programs …")
            else:
                yield stack, "compose stack"
                return
        yield running.enter_context(local_stack(folder, timing)), "local programs"


@contextmanager
def compose_stack(
    folder: Path,
    timing: dict[str, str],
    services: Sequence[str] = WITHOUT_GRAFANA,
    files: Sequence[str] = ("docker-compose.yml",),
) -> Iterator[Stack]:
    """Run these services of the compose files until the end of the `with` block, then delete their data too.

    Args:
        folder: a new folder for the configuration of Prometheus.
        timing: REAL or COMPRESSED.

    Raises:
        DockerError: they cannot be started.
    """
    folder.mkdir()
    configuration = prometheus_files(folder, "pushgateway:9091", timing)
    for path in (folder.parent, folder, configuration, *configuration.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)  # in its container Prometheus runs as another user
    free_ports = {f"{service.upper()}_PORT": "0" for service in PORTS}  # with port 0 Docker chooses one
    environment = {**os.environ, **free_ports, "PROMETHEUS_FILES": str(configuration)}
    compose = ["docker", "compose", "--project-directory", str(ROOT), "-p", PROJECT]
    compose += [f"--file={ROOT / file}" for file in files]
    check_docker()
    try:
        progress("Starting the compose stack, which fetches the images the first time …")
        docker([*compose, "up", "-d", "--wait", *services], 600, environment)
        address = {
            service: "http://" + docker([*compose, "port", service, str(PORTS[service])], 30, environment)
            for service in services
        }
        yield Stack(**address)
    finally:
        docker([*compose, "down", "-v"], 120, environment)


def check_docker() -> None:
    """Raise a DockerError if Docker cannot run the services."""
    docker(["docker", "version", "--format", "{{.Server.Version}}"], 30)
    if "compose" not in docker(["docker", "info", "--format", "{{range .ClientInfo.Plugins}}{{.Name}} {{end}}"], 30):
        raise DockerError("Docker failed (it has no compose plugin)")


def docker(command: list[str], limit: float, environment: dict[str, str] | None = None) -> str:
    """Run a command of Docker for up to `limit` seconds, and return the last line that it prints.

    Raises:
        DockerError: there is no Docker, or the command fails or takes longer.
    """
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit)
        reason = done.returncode and (last_line(done.stderr).rstrip(".") or f"exit code {done.returncode}")
    except FileNotFoundError:
        reason = "there is no docker on the PATH"
    except subprocess.TimeoutExpired:
        reason = f"no answer within {limit:.0f} s"
    if reason:
        raise DockerError(f"Docker failed ({reason})")
    return last_line(done.stdout)
