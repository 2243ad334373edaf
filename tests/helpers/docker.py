"""The compose stack in a real Docker engine, for the tests that need one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demo.compose import DockerError, compose_stack
from demo.stack import Stack

import pytest


@contextmanager
def stack_in_docker(folder: Path, timing: dict[str, str], **options: Any) -> Iterator[Stack]:
    """Run the stack as `compose_stack` does. Without a Docker that can do it, end all tests with one sentence."""
    try:
        with compose_stack(folder, timing, **options) as running:
            yield running
    except DockerError as error:
        pytest.exit(f"{error}; fix that and run the tests again", 1)
