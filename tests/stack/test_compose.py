"""Where Docker cannot start the stack, the demo says why and uses this machine's programs, if there are any."""

import os
from collections.abc import Callable
from pathlib import Path

from demo import programs
from demo.compose import PROJECT, any_stack
from demo.stack import COMPRESSED
from lag_detector.errors import LagDetectorError

import pytest

NO_IMAGES = "Error response from daemon: no such host"
# What each kind of broken Docker does. A script stands for `docker`, since an engine cannot be broken at will.
BROKEN = {
    "no-engine": ("echo 'Cannot connect to the Docker daemon.' >&2; exit 1", "Cannot connect to the Docker daemon"),
    "no-plugin": ("exit 0", "it has no compose plugin"),
    "no-images": (
        f'case "$*" in version*) ;; info*) echo compose ;; *down*) ;; *) echo "{NO_IMAGES}" >&2; exit 1 ;; esac',
        NO_IMAGES,
    ),
}
Install = Callable[[str], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a `docker` on the PATH that runs a script, and return the file with its calls."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def docker(script: str) -> Path:
        program = tmp_path / "docker"
        program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n{script}\n')
        program.chmod(0o755)
        return tmp_path / "calls"

    return docker


@pytest.mark.parametrize(("script", "reason"), BROKEN.values(), ids=BROKEN)
def test_stack_without_working_docker_is_local_unless_only_docker_is_allowed_and_says_why(
    script: str, reason: str, install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = install(script)
    only_docker = tmp_path / "only docker"
    only_docker.mkdir()
    with pytest.raises(LagDetectorError) as error, any_stack(only_docker, COMPRESSED, "docker"):
        pass
    assert str(error.value) == f"Docker failed ({reason}); fix that, or use STACK=local"
    with any_stack(tmp_path, COMPRESSED, "") as (stack, kind):
        assert kind == "local programs"
        assert stack.alert_state() == "inactive"
    (said,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("Starting")]
    assert said == f"Docker failed ({reason}). Using the local programs …"
    if reason == NO_IMAGES:  # the stack that did not start is removed, and no other
        up, down = [line for line in calls.read_text().splitlines() if line.startswith("compose")][-2:]
        assert up.endswith("up -d --wait prometheus pushgateway")
        assert down.endswith("down -v")
        assert PROJECT.endswith(f"-{os.getpid()}")  # not the project of the file, which may be yours
        assert f"-p {PROJECT} " in up
        assert f"-p {PROJECT} " in down


def test_local_stack_does_not_ask_docker(install: Install, tmp_path: Path) -> None:
    calls = install("exit 1")
    with any_stack(tmp_path, COMPRESSED, "local") as (_, kind):
        assert kind == "local programs"
    assert not calls.exists()


def test_unknown_kind_of_stack_raises(tmp_path: Path) -> None:
    with pytest.raises(LagDetectorError, match="STACK=podman is unknown"), any_stack(tmp_path, COMPRESSED, "podman"):
        pass


def test_program_that_a_variable_names_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMTOOL", "/bin/true")
    assert programs.program("promtool") == "/bin/true"
    monkeypatch.setenv("PROMTOOL", "/no/promtool")
    with pytest.raises(LagDetectorError, match="PROMTOOL=/no/promtool cannot be run as a program"):
        programs.program("promtool")


def test_program_without_docker_and_debian_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "BIN", str(tmp_path))
    with pytest.raises(LagDetectorError, match="install Docker with its compose plugin"):
        programs.program("prometheus")
