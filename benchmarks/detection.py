"""Measure the time from a commit until it shows in Prometheus, and until the alert fires."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tutorial.visits import READER_VERSION, TABLE, WRITER_VERSION

import create_table
import visits_creator_job
from benchmarks.history import use
from benchmarks.prometheus import ask
from benchmarks.turns import RUNS, Settings, turns
from demo.stack import ALERT, COMPRESSED, LAG, Stack, local_stack, wait_for
from fast_spark.session import delta_session
from lag_detector import Pushgateway, last_commit

from pyspark.sql import SparkSession

ROUNDS = 4  # for each stack


def compressed(real: str) -> int:
    """Return the compressed time, in seconds, for one of the tutorial's."""
    return int(COMPRESSED[real].split()[1].removesuffix("s"))


SCRAPE = STEP = compressed("interval: 15s")  # the step of the query is the evaluation_interval
EVALUATION = compressed("interval: 1m")  # of the alert's group
PENDING = compressed("for: 2m")
# The seconds allowed after the push, and those that the query's step may add: it sees a scrape only at its next step.
BOUNDS = {
    "in Prometheus": (SCRAPE, 0),
    "Pending": (SCRAPE + EVALUATION, STEP),
    "Firing": (SCRAPE + EVALUATION + PENDING, STEP),
}


class Round(NamedTuple):
    """Seconds from a commit to the push, and to each event in BOUNDS, in their order."""

    pushed: float
    reached: tuple[float, ...]


def detection_delay(folder: Path, settings: Settings) -> Iterator[str]:
    """Commit, push and wait for the alert, again and again."""
    rounds: list[Round] = []
    with delta_session("detection_delay", str(folder)) as spark:
        use(spark, folder)
        create_table.create_visits(spark)
        for turn in turns("Detection delay, stacks"):
            here = folder / f"stack-{turn}"
            here.mkdir()
            # The offset between scrapes and evaluations differs between Prometheus processes, and is fixed in each.
            with local_stack(here, COMPRESSED) as stack:
                catch_up(spark, stack, both=True)
                rounds += [one_round(spark, stack, (part + turn / RUNS) / ROUNDS) for part in range(ROUNDS)]
    yield "## Detection delay\n"
    yield (
        f"Seconds since the end of three commits, which raise the lag to 3, in compressed times: scraped every "
        f"{SCRAPE} s, evaluated every {EVALUATION} s, pending for {PENDING} s. {len(rounds)} rounds, spread over the "
        f"evaluation interval, on {RUNS} stacks. The times are those of Prometheus' own samples.\n"
    )
    yield "| seconds after the commits | min | median | max | max from the push | bound | met | step | met with it |"
    yield "|---|---|---|---|---|---|---|---|---|"
    yield f"| pushed | {spread([each.pushed for each in rounds])} | | | | | |"
    for number, (what, (bound, step)) in enumerate(BOUNDS.items()):
        after_push = [each.reached[number] - each.pushed for each in rounds]
        met, with_step = (sum(delay <= limit for delay in after_push) for limit in (bound, bound + step))
        yield (
            f"| {what} | {spread([each.reached[number] for each in rounds])} | {max(after_push):.2f} | {bound} "
            f"| {met} of {len(rounds)} | {step} | {with_step} of {len(rounds)} |"
        )
    yield (
        "\nThe bounds and the delays compared with them count from the push: one scrape interval until the gauge is "
        "in Prometheus, one evaluation interval until the alert is Pending, and the time that it stays Pending. The "
        "query looks at the gauges in steps of the `evaluation_interval`, which can add one step.\n"
    )


def spread(delays: list[float]) -> str:
    return f"{min(delays):.2f} | {median(delays):.2f} | {max(delays):.2f}"


def catch_up(spark: SparkSession, stack: Stack, both: bool = False) -> None:
    """Push the table's version as the consumer's or as both, and wait until the lag is 0 and the alert is over."""
    version = last_commit(spark, TABLE).version
    for metric in (WRITER_VERSION, READER_VERSION) if both else (READER_VERSION,):
        Pushgateway(stack.pushgateway).push(metric, version, time.time(), retry=False)
    wait_for("a lag of 0", lambda: stack.query(LAG) == [0] or None, 30)
    wait_for("the end of the alert", lambda: stack.alert_state() == "inactive" or None, 30)


def one_round(spark: SparkSession, stack: Stack, part: float) -> Round:
    """Let the consumer fall behind until the alert fires, then catch up.

    Args:
        spark: a session with the table registered.
        stack: the stack, whose alert is inactive.
        part: the part of an evaluation interval to wait first, since the last round ended with an evaluation.
    """
    begin = time.monotonic() + part * EVALUATION
    wait_for("the start of the round", lambda: time.monotonic() >= begin or None, EVALUATION + 1)
    visits_creator_job.append_visits(spark)
    committed = time.time()
    version = Pushgateway(stack.pushgateway).push_latest(WRITER_VERSION, lambda: last_commit(spark, TABLE))

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
    """Return the Unix time of the first sample after `since` with this value, or None while there is none."""
    result = ask(stack, "query", query=f"{series}[1m]")["result"]
    return next((at for of in result for at, sample in of["values"] if at > since and float(sample) == value), None)
