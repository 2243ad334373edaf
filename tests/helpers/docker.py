"""The compose stack in a real Docker engine, for the tests that need one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from demo.compose import WITHOUT_GRAFANA, DockerError, compose_stack
from demo.stack import Stack

import pytest


@contextmanager
def stack_in_docker(
    folder: Path,
    timing: dict[str, str],
    services: Sequence[str] = WITHOUT_GRAFANA,
    files: Sequence[str] = ("docker-compose.yml",),
) -> Iterator[Stack]:
    """Run the stack as `compose_stack` does. Without a Docker that can do it, end all tests with one sentence."""
    try:
        with compose_stack(folder, timing, services, files) as running:
            yield running
    except DockerError as error:
        pytest.exit(f"{error}; fix that and run the tests again", 1)
