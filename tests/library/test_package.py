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


def run(*command: str, folder: Path = ROOT) -> str:
    return subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, timeout=120, check=True).stdout


def pip(command: str, *arguments: str) -> None:
    run(sys.executable, "-m", "pip", command, "-q", "--no-deps", *arguments)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-build-isolation", "-w", str(folder), str(ROOT))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--target", str(folder), str(wheel))
    return folder


def test_wheel_contains_only_the_packages(wheel: Path) -> None:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*") if file.suffix in (".py", ".typed")]
    names = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == {str(file.relative_to(ROOT)) for file in files}
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_wheel_metadata_names_version_license_and_extras(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        (file,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        metadata = archive.read(file).decode().splitlines()
    expected = {
        f"Version: {VERSION}",
        "License-Expression: Apache-2.0",
        "Provides-Extra: spark",
        "Provides-Extra: watch",
    }
    assert expected <= set(metadata)


def test_installed_library_exports_its_public_names_and_version(installed: Path) -> None:
    code = "import lag_detector as l; print(l.__file__, l.__version__, *(getattr(l, n) for n in l.__all__))"
    assert run(sys.executable, "-c", code, folder=installed).startswith(
        f"{installed}/lag_detector/__init__.py {VERSION} "
    )


def test_installed_command_prints_its_version(installed: Path) -> None:
    command = (sys.executable, str(installed / "bin" / "delta-watch"), "--version")
    assert run(*command, folder=installed) == f"delta-watch {VERSION}\n"


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = lag_detector.nothing


def test_pushing_imports_no_spark() -> None:
    code = (
        "import sys, lag_detector; lag_detector.Pushgateway('http://localhost:9091'); print('pyspark' in sys.modules)"
    )
    assert run(sys.executable, "-c", code) == "False\n"
