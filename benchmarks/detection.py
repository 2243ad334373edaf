"""Measure how long it takes from a commit until Prometheus knows of it, and until the alert fires."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from typing import NamedTuple

import create_table
import visits_creator_job
from benchmarks.history import use
from benchmarks.prometheus import ask
from benchmarks.turns import RUNS, Settings, turns
from demo.stack import ALERT, COMPRESSED, LAG, Stack, local_stack, wait_for
from lag_detector.gauges import READER_VERSION, WRITER_VERSION, Pushgateway, push
from lag_detector.session import delta_session
from lag_detector.versions import last_table_version
from lag_detector.visits import TABLE

from pyspark.sql import SparkSession

ROUNDS = 4  # with each stack


def compressed(real: str) -> int:
    """Give the seconds that a time of the tutorial becomes."""
    return int(COMPRESSED[real].split()[1].removesuffix("s"))


SCRAPE = STEP = compressed("interval: 15s")  # the step of the query is the evaluation_interval
EVALUATION = compressed("interval: 1m")  # of the alert's group
PENDING = compressed("for: 2m")
# Seconds after the push at most, and how many of them are the query's step: it does not see a scrape before that.
BOUNDS = {
    "in Prometheus": (SCRAPE, 0),
    "Pending": (SCRAPE + EVALUATION, STEP),
    "Firing": (SCRAPE + EVALUATION + PENDING, STEP),
}


class Round(NamedTuple):
    """When things happened after a commit, in seconds: the push, and what the bounds are of, in their order."""

    pushed: float
    reached: tuple[float, ...]


def detection_delay(folder: Path, settings: Settings) -> Iterator[str]:
    """Commit, publish and wait for the alert, again and again."""
    rounds: list[Round] = []
    with delta_session("detection_delay", str(folder)) as spark:
        use(spark, folder)
        create_table.create_visits(spark)
        for turn in turns("Detection delay, stacks"):
            here = folder / f"stack-{turn}"
            here.mkdir()
            # How far a Prometheus' evaluations are from its scrapes is its own, for as long as it runs.
            with local_stack(here, COMPRESSED) as stack:
                catch_up(spark, stack, both=True)
                rounds += [one_round(spark, stack, (part + turn / RUNS) / ROUNDS) for part in range(ROUNDS)]
    yield "## Detection delay\n"
    yield (
        f"From the end of three commits, which make the alert's lag, in compressed times: scraped every {SCRAPE} s, "
        f"evaluated every {EVALUATION} s, pending for {PENDING} s. {len(rounds)} rounds, spread over an evaluation's "
        f"interval, on {RUNS} stacks. The times are those of Prometheus' own samples.\n"
    )
    yield "| seconds after the commit | min | median | max | from the push | bound | kept | step | kept with it |"
    yield "|---|---|---|---|---|---|---|---|---|"
    yield f"| pushed | {spread([each.pushed for each in rounds])} | | | | | |"
    for number, (what, (bound, step)) in enumerate(BOUNDS.items()):
        after_push = [each.reached[number] - each.pushed for each in rounds]
        kept, with_step = (sum(delay <= limit for delay in after_push) for limit in (bound, bound + step))
        yield (
            f"| {what} | {spread([each.reached[number] for each in rounds])} | {max(after_push):.2f} | {bound} "
            f"| {kept} of {len(rounds)} | {step} | {with_step} of {len(rounds)} |"
        )
    yield (
        "\nThe bounds are from the push on, and so are the delays compared with them, of which the longest is given: "
        "an interval of scrapes until the gauge is in Prometheus, one of evaluations until the alert is Pending, and "
        "the time that it stays so. The query looks at the gauges in steps of the `evaluation_interval` only: that can "
        "add one step.\n"
    )


def spread(delays: list[float]) -> str:
    return f"{min(delays):.2f} | {median(delays):.2f} | {max(delays):.2f}"


def catch_up(spark: SparkSession, stack: Stack, both: bool = False) -> None:
    """Push the table's version as the consumer's, or as both; wait until the lag is 0 and the alert is over."""
    version = last_table_version(spark, TABLE)
    for gauge in (WRITER_VERSION, READER_VERSION) if both else (READER_VERSION,):
        push(Pushgateway(stack.pushgateway), gauge, version, time.time())
    wait_for("a lag of 0", lambda: stack.query(LAG) == [0] or None, 30)
    wait_for("the end of the alert", lambda: stack.alert_state() == "inactive" or None, 30)


def one_round(spark: SparkSession, stack: Stack, part: float) -> Round:
    """Let the consumer fall behind until the alert fires, then catch up.

    Args:
        spark: a session that knows the table.
        stack: the stack, whose alert is inactive.
        part: how much of an evaluation's interval to wait before: the last round ended with an evaluation.
    """
    begin = time.monotonic() + part * EVALUATION
    wait_for("the round's moment", lambda: time.monotonic() >= begin or None, EVALUATION + 1)
    visits_creator_job.append_visits(spark)
    committed = time.time()
    with redirect_stdout(sys.stderr):  # standard output is for the results
        visits_creator_job.publish_writer_version(spark, Pushgateway(stack.pushgateway))
    version = last_table_version(spark, TABLE)

    def reached(series: str, value: int) -> Callable[[], float | None]:
        return lambda: first_sample(stack, series, value, committed)

    alert = f'ALERTS{{alertname="{ALERT}",alertstate="%s"}}'
    fired = wait_for("the alert to fire", reached(alert % "firing", 1), 60)
    pending = wait_for("the alert's beginning", reached(alert % "pending", 1), 5)
    scraped = wait_for("the writer's version", reached(WRITER_VERSION, version), 5)
    (pushed,) = stack.query(f'push_time_seconds{{job="{WRITER_VERSION}"}}')
    catch_up(spark, stack)
    return Round(pushed - committed, tuple(at - committed for at in (scraped, pending, fired)))


def first_sample(stack: Stack, series: str, value: int, since: float) -> float | None:
    """Find the Unix time of the first sample since then that has this value; None while there is none."""
    result = ask(stack, "query", query=f"{series}[1m]")["result"]
    return next((at for of in result for at, sample in of["values"] if at > since and float(sample) == value), None)
