"""Find the programs of the monitoring stack; on Debian and Ubuntu, fetch those that are missing."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from lag_detector.cli import run
from lag_detector.errors import LagDetectorError

FETCHED = Path(__file__).parents[1] / ".cache" / "programs"
PACKAGES = ("prometheus", "prometheus-pushgateway")
# What the pages of Debian's Prometheus need.
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
    """Give the path of `prometheus`, `promtool` or `prometheus-pushgateway`.

    Looks on the PATH, then among those fetched earlier, then fetches Debian's package.

    Raises:
        LagDetectorError: it is nowhere, and there is no Debian to fetch it from.
    """
    found = shutil.which(name) or shutil.which(name, path=str(FETCHED / "usr" / "bin"))
    if found is None:
        _fetch(name)
        found = str(FETCHED / "usr" / "bin" / name)
    return found


def web_pages(prometheus: str) -> list[str]:
    """Tell a Prometheus that was fetched where its pages are; an installed one knows it."""
    fetched = Path(prometheus).is_relative_to(FETCHED)
    return [f"--web.local-assets={FETCHED / 'usr' / 'share' / 'prometheus' / 'web'}"] if fetched else []


def _fetch(name: str) -> None:
    """Unpack the packages into a folder: installing them would start services on ports 9090 and 9091."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise LagDetectorError(
            f"{name} is not on the PATH and this is no Debian or Ubuntu to fetch it from; "
            "install Docker with its compose plugin, or Prometheus and its Pushgateway"
        )
    print("Fetching prometheus and prometheus-pushgateway, once (26 MB) …", file=sys.stderr)
    FETCHED.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FETCHED.parent) as half_made:
        folder = Path(half_made)
        # Package lists of our own where the machine has none: nothing needs root.
        own_lists = ["-o", f"Dir::State={folder}/state", "-o", f"Dir::Cache={folder}/cache"]
        (folder / "state" / "lists" / "partial").mkdir(parents=True)
        (folder / "cache" / "archives" / "partial").mkdir(parents=True)
        download = ["apt-get", "-q", "download", *PACKAGES, *PAGES]
        if not _works(download, folder):
            _works(["apt-get", *own_lists, "-q", "update"], folder)
            if not _works([*download[:1], *own_lists, *download[1:]], folder):
                raise LagDetectorError(
                    f"{name} could not be fetched from Debian's packages; "
                    "check the network, or install prometheus and prometheus-pushgateway yourself"
                )
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, folder / "root"], check=True, timeout=120)
        shutil.rmtree(FETCHED, ignore_errors=True)
        (folder / "root").rename(FETCHED)


def _works(command: list[str], folder: Path) -> bool:
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=600).returncode == 0


if __name__ == "__main__":
    sys.exit(run(lambda: print(program(sys.argv[1]))))
