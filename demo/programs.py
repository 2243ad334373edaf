"""Print the path of a program of the monitoring stack. On Debian and Ubuntu, fetch it if it is missing."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tutorial.script import progress, run

from lag_detector.errors import LagDetectorError

FETCHED = Path(__file__).parents[1] / ".cache" / "programs"
BIN = str(FETCHED / "usr" / "bin")
# The variables that name another program.
VARIABLES = {"prometheus": "PROMETHEUS", "promtool": "PROMTOOL", "prometheus-pushgateway": "PUSHGATEWAY"}
# The last two lines are what Debian's Prometheus needs for its web pages.
PACKAGES = (
    "prometheus prometheus-pushgateway "
    "fonts-glyphicons-halflings libjs-bootstrap4 libjs-d3 libjs-eonasdan-bootstrap-datetimepicker libjs-jquery "
    "libjs-jquery-hotkeys libjs-moment libjs-moment-timezone libjs-mustache libjs-popper.js libjs-rickshaw"
)


def program(name: str) -> str:
    """Return the path of `prometheus`, `promtool` or `prometheus-pushgateway`.

    `PROMETHEUS`, `PROMTOOL` and `PUSHGATEWAY` name one. Otherwise search the PATH, then the programs fetched earlier.
    If it is not there, fetch Debian's package.

    Raises:
        LagDetectorError: the named program does not exist, or there is none and it cannot be fetched.
    """
    if named := os.environ.get(VARIABLES[name]):
        if not shutil.which(named):
            raise LagDetectorError(f"{VARIABLES[name]}={named} cannot be run as a program; correct it, or unset it")
        return named
    if not (shutil.which(name) or shutil.which(name, path=BIN)):
        _fetch(name)
    return shutil.which(name) or f"{BIN}/{name}"


def web_pages() -> list[str]:
    """Return the option with which a fetched Prometheus finds its web pages. An installed one needs none."""
    fetched = Path(program("prometheus")).is_relative_to(FETCHED)
    return [f"--web.local-assets={FETCHED}/usr/share/prometheus/web"] if fetched else []


def _fetch(name: str) -> None:
    """Unpack the packages into a folder. Installing them would start services on ports 9090 and 9091."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise LagDetectorError(
            f"{name} is not on the PATH, and it can only be fetched on Debian and Ubuntu; "
            "install Docker with its compose plugin, or Prometheus and its Pushgateway"
        )
    progress("Fetching prometheus and prometheus-pushgateway, once (26 MB) …")
    FETCHED.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FETCHED.parent) as temporary:
        folder = Path(temporary)
        for needed in ("state/lists/partial", "cache/archives/partial"):
            (folder / needed).mkdir(parents=True)
        # With package lists of its own: it needs no root, and the machine's may be missing or old.
        apt = ["apt-get", "-q", "-o", f"Dir::State={folder}/state", "-o", f"Dir::Cache={folder}/cache"]
        for command in (["update"], ["download", *PACKAGES.split()]):
            if subprocess.run([*apt, *command], cwd=folder, capture_output=True, timeout=600).returncode:
                raise LagDetectorError(
                    f"{name} could not be fetched from Debian's packages; "
                    "check the network, or install prometheus and prometheus-pushgateway yourself"
                )
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, folder / "root"], check=True, timeout=120)
        shutil.rmtree(FETCHED, ignore_errors=True)
        (folder / "root").rename(FETCHED)


if __name__ == "__main__":
    run(lambda name: print(program(name)), name="prometheus, promtool or prometheus-pushgateway")
