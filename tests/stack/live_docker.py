"""The services of docker-compose.yml, without Grafana, in a real Docker engine: make test-docker."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tutorial.visits import READER_VERSION, WRITER_VERSION

from delta_watch.exporter import Server, WatcherCollector, serve
from delta_watch.watcher import Consumer, Watcher
from demo.compose import PROJECT, WITHOUT_GRAFANA
from demo.stack import COMPRESSED, LAG, ROOT, Stack, wait_for
from lag_detector.pushgateway import Pushgateway
from tests.helpers import disk_truth as truth
from tests.helpers.docker import stack_in_docker
from tests.helpers.handmade_tables import Files
from tests.helpers.workspace import wait_until_equal

import pytest

T = TypeVar("T")


def docker(*arguments: str, fails: bool = False, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        ["docker", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr if fails else done.stdout.strip()


def containers(project: str = PROJECT) -> dict[str, dict[str, Any]]:
    """Return the containers of a project by their services, as `docker inspect` describes them."""
    ids = docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={project}").split()
    found = json.loads(docker("inspect", *ids)) if ids else []
    return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}


def address(service: str) -> str:
    ((binding,),) = containers()[service]["NetworkSettings"]["Ports"].values()
    return f"http://{binding['HostIp']}:{binding['HostPort']}"


def stack_now() -> Stack:
    """Return the stack's addresses. A container that is started again gets another free port."""
    return Stack(**{service: address(service) for service in WITHOUT_GRAFANA})


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Both services, with compressed times."""
    with stack_in_docker(tmp_path_factory.mktemp("stack") / "compose", COMPRESSED) as running:
        yield running


def push(stack: Stack, writer: int, reader: int) -> None:
    gateway = Pushgateway(stack.pushgateway)
    gateway.push(READER_VERSION, reader, time.time())
    gateway.push(WRITER_VERSION, writer, time.time())


def test_alert_in_a_whole_round_fires_and_ends(stack: Stack) -> None:
    push(stack, 3, 3)
    wait_until_equal(lambda: stack.query(LAG), [0])
    assert stack.alert_state() == "inactive"
    push(stack, 6, 3)
    for state in ("pending", "firing"):
        wait_until_equal(stack.alert_state, state)
    push(stack, 6, 6)
    wait_until_equal(stack.alert_state, "inactive")
    assert stack.query(LAG) == [0]


def test_restarted_services_keep_their_data(stack: Stack) -> None:
    push(stack, 9, 6)
    wait_until_equal(lambda: stack.query(LAG), [3])
    before = time.time()
    for container in containers().values():
        docker("restart", container["Id"])
    again = stack_now()
    wait_until_equal(lambda: while_up(lambda: again.query(LAG)), [3], 60)
    assert truth.gauges(again.pushgateway) == {WRITER_VERSION: 9, READER_VERSION: 6}
    assert again.query(LAG, at=before) == [3]


def test_gauges_survive_a_crash(stack: Stack) -> None:
    gateway = containers()["pushgateway"]
    Pushgateway(address("pushgateway")).push("visits_test", 3, time.time())
    saved = ("exec", gateway["Id"], "grep", "-c", "visits_test", "/pushgateway/metrics")
    wait_for("the file", lambda: not subprocess.run(["docker", *saved], capture_output=True).returncode, 30)
    docker("kill", gateway["Id"])
    docker("start", gateway["Id"])
    wait_until_equal(lambda: while_up(lambda: truth.gauges(address("pushgateway")).get("visits_test")), 3)


def while_up(ask: Callable[[], T]) -> T | None:
    """Return what a service answers, None while it is down."""
    try:
        return ask()
    except OSError:
        return None


def test_services_have_few_rights_and_are_restarted(stack: Stack) -> None:
    found = containers()
    assert len(found) == len(WITHOUT_GRAFANA)
    for container in found.values():
        host = container["HostConfig"]
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert host["RestartPolicy"]["Name"] == "unless-stopped"
        assert host["LogConfig"]["Config"] == {"max-file": "3", "max-size": "10m"}
        assert {binding[0]["HostIp"] for binding in host["PortBindings"].values()} == {"127.0.0.1"}
        inside = ("exec", container["Id"], "sh", "-c")
        assert "Read-only file system" in docker(*inside, "touch /bin/x /etc/x", fails=True)
        assert docker(*inside, "id -u") != "0"


def test_configuration_in_the_container_is_that_of_the_repository_and_read_only(stack: Stack) -> None:
    prometheus = containers()["prometheus"]
    shown = docker("exec", prometheus["Id"], "cat", "/etc/prometheus/rules/watch.yml")
    assert shown.splitlines()[0] == (ROOT / "prometheus" / "rules" / "watch.yml").read_text().splitlines()[0]
    error = docker("exec", prometheus["Id"], "touch", "/etc/prometheus/prometheus.yml", fails=True)
    assert "Read-only file system" in error


def test_prometheus_scrapes_a_watcher_outside_docker(stack: Stack, files: Files) -> None:
    """As docs/watcher.md says: on the address of Docker's network, with its target in prometheus/targets/watch.yml."""
    consumer = Consumer("fraud", "orders", str(files.checkpoint))
    watcher = Watcher({"orders": str(files.table)}, [consumer])
    watcher.run_round()
    prometheus = containers()["prometheus"]
    hosts = docker("exec", prometheus["Id"], "cat", "/etc/hosts")
    (host,) = [line.split()[0] for line in hosts.splitlines() if line.endswith("host.docker.internal")]
    server = serve(WatcherCollector(watcher), Server(address=host, port=0))
    try:
        (mount,) = [m for m in prometheus["Mounts"] if m["Destination"] == "/etc/prometheus"]
        target = f'- targets: ["host.docker.internal:{server.server_port}"]\n'
        Path(mount["Source"], "targets", "watch.yml").write_text(target)
        now = stack_now()
        wait_until_equal(lambda: now.query("delta_consumer_lag_versions"), [3], limit=60)
    finally:
        server.shutdown()
        server.server_close()


OURS = f"{PROJECT}-ours"
Compose = Callable[..., str]


@pytest.fixture
def compose(stack: Stack) -> Iterator[Compose]:
    """Run a command on the stack as the README starts it, but on other ports and under another project's name."""

    def run(*arguments: str, fails: bool = False, **ports: str) -> str:
        environment = {**os.environ, "PROMETHEUS_PORT": "0", "PUSHGATEWAY_PORT": "0", **ports}
        return docker("compose", "-p", OURS, *arguments, fails=fails, environment=environment)

    yield run
    run("down", "-v")


def volumes() -> set[str]:
    return set(docker("volume", "ls", "-q", "--filter", f"label=com.docker.compose.project={OURS}").split())


def test_stack_that_is_stopped_keeps_its_data_until_its_volumes_are_deleted(compose: Compose) -> None:
    compose("up", "-d", "--wait", *WITHOUT_GRAFANA)
    gateway = f"http://{compose('port', 'pushgateway', '9091')}"
    Pushgateway(gateway).push(WRITER_VERSION, 3, time.time())
    compose("down")
    assert containers(OURS) == {}
    assert volumes() == {f"{OURS}_prometheus-data", f"{OURS}_pushgateway-data"}
    compose("up", "-d", "--wait", *WITHOUT_GRAFANA)
    assert truth.gauges(f"http://{compose('port', 'pushgateway', '9091')}") == {WRITER_VERSION: 3}
    compose("down", "-v")
    assert volumes() == set()


def test_stack_on_a_taken_port_says_so_and_another_port_helps(compose: Compose) -> None:
    taken = address("prometheus").rpartition(":")[2]
    error = compose("up", "-d", "--wait", *WITHOUT_GRAFANA, fails=True, PROMETHEUS_PORT=taken)
    assert f"127.0.0.1:{taken}" in error
    assert "already" in error
    compose("up", "-d", "--wait", *WITHOUT_GRAFANA)
    assert {c["State"]["Health"]["Status"] for c in containers(OURS).values()} == {"healthy"}
    assert len(containers()) == len(WITHOUT_GRAFANA)  # the other project's
