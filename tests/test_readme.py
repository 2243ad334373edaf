"""The README is true: its commands run as they stand there, and what it names is in the files it comes from."""

import re
import struct
from importlib.metadata import version
from pathlib import Path

from demo.stack import ROOT
from lag_detector.gauges import READER_VERSION, WRITER_VERSION
from lag_detector.java import FINE
from tests.readme import README, run_blocks

import pytest
import yaml

TEXT = README.read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
PICTURES = sorted((ROOT / "assets").glob("*.png"))


@pytest.mark.timeout(1200)
def test_its_commands_print_what_it_shows(tmp_path: Path) -> None:
    shown = [(block.shown, block.printed) for block in run_blocks(tmp_path)]
    assert [printed for _, printed in shown] == [said for said, _ in shown]
    assert len(shown) == TEXT.count("\nYou should see")


def test_links_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL), re.MULTILINE)
    anchors = ["#" + re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
    assert sorted(set(anchors)) == sorted(anchors)
    targets = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert [target for target in targets if target not in anchors and not (ROOT / target).is_file()] == []


def test_the_files_it_names_exist() -> None:
    named = re.findall(r"`((?:\w[\w.-]*/)+[\w.-]*|\w[\w-]*\.(?:py|yml|txt|md))`", TEXT)
    made = {"warehouse/"}  # by the scripts
    assert [name for name in named if not (ROOT / name).exists() and name not in made] == []


def test_every_picture_is_used_and_none_is_missing() -> None:
    used = re.findall(r"!\[.+?]\((assets/.+?)\)", TEXT)
    assert sorted(set(used)) == [str(picture.relative_to(ROOT)) for picture in PICTURES]


def test_every_picture_has_a_caption_that_names_the_program() -> None:
    captions = re.findall(r"(?:!\[.+?]\(assets/.+?\)\n)+\n\*([^*]+)\*\n", TEXT)
    assert len(re.findall(r"(?:!\[.+?]\(assets/.+?\)\n)+", TEXT)) == len(captions)
    assert [caption for caption in captions if "Prometheus" not in caption] == []


def test_pictures_are_small_and_of_one_width() -> None:
    assert [picture.name for picture in PICTURES if picture.stat().st_size >= 150_000] == []
    assert {struct.unpack(">I", picture.read_bytes()[16:20])[0] for picture in PICTURES} == {1600}


def test_ports_and_images_are_those_of_docker_compose() -> None:
    ports = {port.rpartition(":")[2] for service in COMPOSE.values() for port in service["ports"]}
    assert set(re.findall(r"localhost:(\d+)", TEXT)) == ports
    assert all(f":{port}" in TEXT.partition("## Before")[0] for port in ports)
    tags = {name: service["image"].rpartition(":")[2].lstrip("v") for name, service in COMPOSE.items()}
    named = {name: set(re.findall(rf"{name.capitalize()} (\d+\.\d+)", TEXT)) for name in tags}
    assert named["grafana"] == {tags["grafana"].rpartition(".")[0]}
    assert f"the pages of {tags['prometheus'].rpartition('.')[0]}, which Docker starts" in TEXT


def test_metrics_are_those_that_are_pushed_or_recorded() -> None:
    pushed = {gauge + end for gauge in (WRITER_VERSION, READER_VERSION) for end in ("", "_timestamp_seconds")}
    jobs = {f"{READER_VERSION}_fraud"}
    rules = yaml.safe_load((ROOT / "prometheus/rules/visits.yml").read_text())["groups"]
    recorded = {rule["record"] for group in rules for rule in group["rules"] if "record" in rule}
    named = set(re.findall(r"\bvisits_\w*(?:version|seconds)\w*", TEXT))
    assert named == pushed | jobs | recorded


def test_versions_are_those_that_are_pinned() -> None:
    assert f"Spark {version('pyspark')} with Delta {version('delta-spark')} is ready" in TEXT
    assert f"Java {FINE}" in TEXT
    oldest = re.search(r"Python (3\.\d+) or newer", TEXT)
    assert oldest
    assert f'target-version = "py{oldest[1].replace(".", "")}"' in (ROOT / "pyproject.toml").read_text()


def test_make_words_exist() -> None:
    words = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = set(re.findall(r"`make ([a-z-]+)", TEXT)) | set(re.findall(r"^make ([a-z-]+)", TEXT, re.MULTILINE))
    assert named - set(words) == set()


def test_it_lists_the_modules() -> None:
    table = TEXT.partition("| in `lag_detector/` | is |")[2].partition("\n\n")[0]
    listed = [name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"\w+", row)]
    modules = [file.stem for file in (ROOT / "lag_detector").glob("*.py") if file.stem != "__init__"]
    assert sorted(listed) == sorted(modules)
