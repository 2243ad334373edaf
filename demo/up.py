"""Start and stop what the steps need: with Docker all three services, without it Prometheus and Pushgateway.

Usage: make up, make down. Without Docker the two are programs of this machine, on the same ports; Grafana is missing.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from typing import NoReturn

from tutorial.script import progress, run

from demo.compose import DockerError, check_docker
from demo.stack import REAL, ROOT, last_line, local_stack, wait_for
from lag_detector.errors import LagDetectorError

FOLDER = ROOT / ".stack"  # not in .cache, which messages tell you to delete
RUNNING, LOG = FOLDER / "running", FOLDER / "log"  # the process that runs the programs locks the first file


def up() -> None:
    """Start them, and wait until they answer."""
    compose("up", "-d", "--wait", otherwise="Starting Prometheus and Pushgateway as programs of this machine …")
    FOLDER.mkdir(exist_ok=True)
    if not _running():
        with LOG.open("wb") as log:
            command = [sys.executable, "-m", "demo.up", "serve"]
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)

        def answers() -> bool:
            if process.poll() is not None:
                raise LagDetectorError(last_line(LOG.read_text()).removeprefix("Error: ").rstrip("."))
            return len(_running()) == 2

        wait_for("Prometheus and Pushgateway", answers, 120)
    print(f"{_running()[1]}. There is no Grafana: it needs Docker. To stop them: make down")


def down() -> None:
    """Stop what `up` has started, in either way."""
    if running := _running():
        os.kill(int(running[0]), signal.SIGTERM)
        wait_for("the programs to stop", lambda: not _running(), 30)
        print("Prometheus and Pushgateway are stopped; their data stays in .stack.")
    else:
        compose("down")
        print("Nothing is running.")


def compose(*command: str, otherwise: str = "") -> None:
    """Run a command of Docker Compose and exit. Without Docker, print why not and what happens otherwise."""
    try:
        check_docker()
    except DockerError as error:
        if otherwise:
            progress(f"{error}. {otherwise}")
    else:
        sys.exit(subprocess.call(["docker", "compose", f"--file={ROOT / 'docker-compose.yml'}", *command]))


def serve() -> NoReturn:
    """Run the programs until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with RUNNING.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        print(os.getpid(), file=file, flush=True)
        shutil.rmtree(FOLDER / "prometheus", ignore_errors=True)
        defaults = {"PUSHGATEWAY_PORT": 9091, "PROMETHEUS_PORT": 9090}
        ports = [int(os.environ.get(name) or port) for name, port in defaults.items()]
        with local_stack(FOLDER, REAL, *ports) as stack:
            print(f"Prometheus {stack.prometheus}, Pushgateway {stack.pushgateway}", file=file, flush=True)
            while True:
                signal.pause()


def _running() -> list[str]:
    """Return the id of the process that runs the programs, and a line with their addresses once they answer."""
    if RUNNING.exists():
        with RUNNING.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return file.read().splitlines()
    return []


if __name__ == "__main__":
    run(lambda command: {"up": up, "down": down, "serve": serve}[command](), command="up or down")
