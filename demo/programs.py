"""Print the path of a program of the monitoring stack. On Debian and Ubuntu, fetch it if it is missing."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tutorial.script import progress, run

from lag_detector.errors import LagDetectorError

FETCHED = Path(__file__).parents[1] / ".cache" / "programs"
PACKAGES = ("prometheus", "prometheus-pushgateway")
# The variables that name another program.
VARIABLES = {"prometheus": "PROMETHEUS", "promtool": "PROMTOOL", "prometheus-pushgateway": "PUSHGATEWAY"}
# Debian's Prometheus needs them for its web pages.
PAGES = (
    "fonts-glyphicons-halflings",
    "libjs-bootstrap4",
    "libjs-d3",
    "libjs-eonasdan-bootstrap-datetimepicker",
    "libjs-jquery",
    "libjs-jquery-hotkeys",
    "libjs-moment",
    "libjs-moment-timezone",
    "libjs-mustache",
    "libjs-popper.js",
    "libjs-rickshaw",
)


def program(name: str) -> str:
    """Return the path of `prometheus`, `promtool` or `prometheus-pushgateway`.

    `PROMETHEUS`, `PROMTOOL` and `PUSHGATEWAY` name one. Otherwise search the PATH, then the programs fetched earlier.
    If it is in neither, fetch Debian's package.

    Raises:
        LagDetectorError: it is in neither, and cannot be fetched, or the program that is named does not exist.
    """
    if named := os.environ.get(VARIABLES[name]):
        if not shutil.which(named):
            raise LagDetectorError(f"{VARIABLES[name]}={named} cannot be run as a program; correct it, or unset it")
        return named
    found = shutil.which(name) or shutil.which(name, path=str(FETCHED / "usr" / "bin"))
    if found is None:
        _fetch(name)
        found = str(FETCHED / "usr" / "bin" / name)
    return found


def web_pages(prometheus: str) -> list[str]:
    """Return the option with which a fetched Prometheus finds its web pages. An installed one needs none."""
    fetched = Path(prometheus).is_relative_to(FETCHED)
    return [f"--web.local-assets={FETCHED / 'usr' / 'share' / 'prometheus' / 'web'}"] if fetched else []


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
        # If the machine has no package lists, fetch them into this folder, which needs no root.
        own_lists = ["-o", f"Dir::State={folder}/state", "-o", f"Dir::Cache={folder}/cache"]
        (folder / "state" / "lists" / "partial").mkdir(parents=True)
        (folder / "cache" / "archives" / "partial").mkdir(parents=True)
        download = ["apt-get", "-q", "download", *PACKAGES, *PAGES]
        if not _succeeds(download, folder):
            _succeeds(["apt-get", *own_lists, "-q", "update"], folder)
            if not _succeeds([*download[:1], *own_lists, *download[1:]], folder):
                raise LagDetectorError(
                    f"{name} could not be fetched from Debian's packages; "
                    "check the network, or install prometheus and prometheus-pushgateway yourself"
                )
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, folder / "root"], check=True, timeout=120)
        shutil.rmtree(FETCHED, ignore_errors=True)
        (folder / "root").rename(FETCHED)


def _succeeds(command: list[str], folder: Path) -> bool:
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=600).returncode == 0


def main(name: str) -> None:
    """Print the path of the program."""
    print(program(name))


if __name__ == "__main__":
    run(main, name="prometheus, promtool or prometheus-pushgateway")
