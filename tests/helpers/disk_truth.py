"""The ground truth on disk and on the Pushgateway, found without Spark and without the code under test."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

VERSIONS = ("visits_writer_version", "visits_reader_version", "visits_test")


def gauges(pushgateway: str, suffix: str = "", versions: Collection[str] = VERSIONS) -> dict[str, float]:
    """Return the versions that are on a Pushgateway, or their gauges with this suffix, by the name of their group."""
    names = [version + suffix for version in versions]
    return {series["job"]: value for series, value in samples(pushgateway) if series["__name__"] in names}


def samples(pushgateway: str) -> Iterator[tuple[dict[str, str], float]]:
    """Yield each series on a Pushgateway: its labels, including its name, and its value."""
    with urlopen(f"{pushgateway}/metrics", timeout=10) as response:
        for family in text_string_to_metric_families(response.read().decode()):
            for sample in family.samples:
                yield {"__name__": sample.name, **sample.labels}, sample.value


class Disk(NamedTuple):
    """A warehouse on the local disk."""

    warehouse: Path

    @property
    def log(self) -> Path:
        return self.warehouse / "visits" / "_delta_log"

    @property
    def checkpoint(self) -> Path:
        return self.warehouse / "checkpoints" / "visits_consumer"

    def commit(self, version: int) -> Path:
        return self.log / f"{version:020d}.json"

    def data(self) -> list[Path]:
        return list(self.log.parent.glob("*.parquet"))

    def versions(self) -> list[int]:
        return sorted(int(file.stem) for file in self.log.glob("*.json") if file.stem.isdigit())

    def last_version(self) -> int:
        return self.versions()[-1]

    def rows(self, versions: range) -> int:
        """Return how many rows these versions added."""
        actions = [json.loads(line) for each in versions for line in self.commit(each).read_text().splitlines()]
        return sum(json.loads(action["add"]["stats"])["numRecords"] for action in actions if "add" in action)

    def batches(self, kind: str) -> set[int]:
        """Return the batches that the checkpoint has in `offsets` (planned) or in `commits` (done)."""
        return {int(file.name) for file in (self.checkpoint / kind).glob("*") if file.name.isdigit()}

    def version_read(self) -> int | None:
        """Return the last version whose batch is done, from the files of the checkpoint."""
        done = self.batches("offsets") & self.batches("commits")
        if not done:
            return None
        offset = json.loads((self.checkpoint / "offsets" / str(max(done))).read_text().splitlines()[-1])
        return None if offset["isStartingVersion"] else int(offset["reservoirVersion"]) - 1
