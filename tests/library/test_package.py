"""`pip install .` gives both products and nothing else of the repository."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import lag_detector
from demo.stack import ROOT

import pytest

PACKAGES = ("delta_watch", "lag_detector")
VERSION = version("lag-detector")
PIP = (sys.executable, "-m", "pip")


def run(*command: str | Path, folder: Path = ROOT) -> str:
    return subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, timeout=120, check=True).stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(*PIP, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_contains_only_the_packages_and_names_version_license_and_extras(wheel: Path) -> None:
    files = [
        file
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.suffix in (".py", ".typed", ".html")
    ]
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = archive.read(f"lag_detector-{VERSION}.dist-info/METADATA").decode().splitlines()
    assert names == {str(file.relative_to(ROOT)) for file in files}
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    extras = {"Provides-Extra: spark", "Provides-Extra: watch"}
    assert {f"Version: {VERSION}", "License-Expression: Apache-2.0", *extras} <= set(metadata)


def test_installed_wheel_has_the_public_names_and_the_command(wheel: Path, tmp_path: Path) -> None:
    run(*PIP, "install", "-q", "--no-deps", "--target", tmp_path, wheel)
    code = "import lag_detector as l; print(l.__file__, l.__version__, *(getattr(l, n) for n in l.__all__))"
    printed = run(sys.executable, "-c", code, folder=tmp_path)
    assert printed.startswith(f"{tmp_path}/lag_detector/__init__.py {VERSION} ")
    command = (sys.executable, tmp_path / "bin" / "delta-watch", "--version")
    assert run(*command, folder=tmp_path) == f"delta-watch {VERSION}\n"


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = lag_detector.nothing


def test_pushing_imports_no_spark() -> None:
    code = "import sys, lag_detector; lag_detector.Pushgateway('http://a:1'); print('pyspark' in sys.modules)"
    assert run(sys.executable, "-c", code) == "False\n"
