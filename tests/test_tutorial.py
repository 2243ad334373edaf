"""The steps of the tutorial, one after the other, with what each must show."""

from urllib.request import urlopen

from demo.stack import LAG, ROOT
from tests.conftest import Reader

CREATED = """\
+----------------------------+------------------------+
|name                        |tableFeatures           |
+----------------------------+------------------------+
|spark_catalog.default.visits|[appendOnly, invariants]|
+----------------------------+------------------------+

+----------------------+-----+
|key                   |value|
+----------------------+-----+
|delta.minReaderVersion|1    |
|delta.minWriterVersion|2    |
+----------------------+-----+

"""

VISITS = """\
+---------+----------------------+-------+------------+
|visit_id |event_time            |user_id|page        |
+---------+----------------------+-------+------------+
|visit 1-0|2024-07-01 12:00:00.84|user 1 |index.html  |
|visit 1-1|2024-07-01 12:00:00.84|user 1 |index.html  |
|visit 1-2|2024-07-01 12:00:00.84|user 1 |index.html  |
|visit 2-0|2024-07-01 14:00:00.84|user 2 |contact.html|
|visit 2-1|2024-07-01 14:00:00.84|user 2 |contact.html|
|visit 2-2|2024-07-01 14:00:00.84|user 2 |contact.html|
|visit 3-0|2024-07-01 15:00:00.84|user 3 |about.html  |
|visit 3-1|2024-07-01 15:00:00.84|user 3 |about.html  |
|visit 3-2|2024-07-01 15:00:00.84|user 3 |about.html  |
+---------+----------------------+-------+------------+

"""


def pushed(reader: Reader, gauge: str, version: int) -> str:
    return f"{gauge} {version} pushed to {reader.stack.pushgateway}\n"


def gauges_on_the_gateway(reader: Reader) -> list[str]:
    with urlopen(f"{reader.stack.pushgateway}/metrics", timeout=10) as answer:
        return sorted(line for line in answer.read().decode().splitlines() if line.startswith("visits_"))


def test_the_table_is_created(reader: Reader) -> None:
    assert reader.succeed("create_table.py") == CREATED


def test_a_consumer_of_the_empty_table_is_at_version_0(reader: Reader) -> None:
    printed = reader.succeed("visits_consumer.py")
    assert printed.splitlines()[-1] + "\n" == pushed(reader, "visits_reader_version", 0)
    assert "visit 1" not in printed


def test_the_writer_reaches_version_3(reader: Reader) -> None:
    assert reader.succeed("visits_creator_job.py") == pushed(reader, "visits_writer_version", 3)
    reader.prometheus_shows([3], [0])


def test_the_reader_prints_the_table(reader: Reader) -> None:
    assert reader.succeed("visits_reader.py") == VISITS


def test_the_consumer_prints_what_is_new_and_reaches_version_3(reader: Reader) -> None:
    assert reader.succeed("visits_consumer.py") == VISITS + pushed(reader, "visits_reader_version", 3)
    reader.prometheus_shows([3], [3])


def test_with_nothing_new_the_consumer_prints_no_rows_and_pushes_again(reader: Reader) -> None:
    assert reader.succeed("visits_consumer.py") == pushed(reader, "visits_reader_version", 3)


def test_the_lag_is_3_in_the_next_round_too_and_the_alert_fires_and_ends(reader: Reader) -> None:
    reader.alert_is("inactive")
    assert reader.succeed("visits_creator_job.py") == pushed(reader, "visits_writer_version", 6)
    reader.prometheus_shows([6], [3])
    reader.alert_is("pending")
    reader.alert_is("firing")
    assert reader.stack.query(LAG) == [3]
    assert reader.succeed("visits_consumer.py") == VISITS + pushed(reader, "visits_reader_version", 6)
    reader.prometheus_shows([6], [6])
    reader.alert_is("inactive")
    assert reader.stack.query(LAG) == [0]


def test_and_in_the_third(reader: Reader) -> None:
    assert reader.succeed("visits_creator_job.py") == pushed(reader, "visits_writer_version", 9)
    reader.prometheus_shows([9], [6])
    reader.alert_is("firing")
    assert reader.succeed("visits_consumer.py") == VISITS + pushed(reader, "visits_reader_version", 9)
    reader.prometheus_shows([9], [9])
    reader.alert_is("inactive")


def test_create_table_starts_the_tutorial_over(reader: Reader) -> None:
    assert reader.succeed("create_table.py") == CREATED
    assert gauges_on_the_gateway(reader) == []
    assert reader.succeed("visits_creator_job.py") == pushed(reader, "visits_writer_version", 3)
    assert reader.succeed("visits_consumer.py") == VISITS + pushed(reader, "visits_reader_version", 3)
    assert gauges_on_the_gateway(reader) == [
        'visits_reader_version{instance="",job="visits_reader_version"} 3',
        'visits_writer_version{instance="",job="visits_writer_version"} 3',
    ]


def test_nothing_was_left_in_the_working_directory(reader: Reader) -> None:
    assert list(reader.desk.iterdir()) == []


def test_the_readme_shows_what_the_scripts_print() -> None:
    readme = (ROOT / "README.md").read_text()
    for printed in (CREATED, VISITS):
        assert f"```\n{printed.rstrip()}\n```" in readme
