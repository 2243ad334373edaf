"""`pip install .` gives `lag_detector` and nothing else of the repository."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import lag_detector
from demo.stack import ROOT

import pytest
import tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pip(command: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", command, "-q", "--no-deps", *arguments], check=True, timeout=120)


def python(code: str, folder: Path) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, timeout=60, check=True).stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(pip, check=True, timeout=120)
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_contains_only_the_library(wheel: Path) -> None:
    names = set(ZipFile(wheel).namelist())
    folder = ROOT / "lag_detector"
    library = {str(file.relative_to(ROOT)) for file in folder.rglob("*") if file.suffix in (".py", ".typed")}
    assert {name for name in names if ".dist-info/" not in name} == library
    assert "lag_detector/py.typed" in library


def test_wheel_metadata_names_version_and_extra(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        (file,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        metadata = archive.read(file).decode()
    assert f"\nVersion: {PROJECT['version']}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "\nProvides-Extra: spark\n" in metadata
    assert "\nProvides-Extra: watch\n" in metadata


def test_wheel_has_the_watchers_command(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        (file,) = [name for name in archive.namelist() if name.endswith("/entry_points.txt")]
        assert "delta-watch = lag_detector.watch.__main__:command" in archive.read(file).decode()


def test_installed_library_exports_its_public_names(wheel: Path, tmp_path: Path) -> None:
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path), str(wheel)]
    subprocess.run(install, check=True, timeout=120)
    code = (
        "import lag_detector; print(lag_detector.__file__, *(getattr(lag_detector, n) for n in lag_detector.__all__))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path))


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = lag_detector.nothing


def test_pushing_imports_no_spark() -> None:
    code = (
        "import sys, lag_detector; lag_detector.Pushgateway('http://localhost:9091'); print('pyspark' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "False\n"
