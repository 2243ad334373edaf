"""Measure one Pushgateway and one Prometheus with up to 10,000 consumers of a table."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import NamedTuple
from urllib.request import Request, urlopen

from tutorial.script import progress
from tutorial.visits import READER_VERSION, WRITER_VERSION

from benchmarks.processes import resident
from benchmarks.prometheus import alert_rule, ask
from benchmarks.turns import RUNS, Settings, turns
from demo.stack import LAG, Stack, local_stack, pushgateway, wait_for
from lag_detector import LagDetectorError, Pushgateway, group_name

import matplotlib.pyplot as plt
import psutil
from matplotlib.axes import Axes

PICTURE = Path(__file__).parent / "many_consumers.png"
CONSUMERS = (1, 10, 100, 1_000, 10_000)
REQUIRED, REQUIRED_AT = 0.1, 1_000  # seconds for the alert's query, with this many consumers
WRITTEN, BEHIND = 9, 3  # the writer's version, and the lag of every second consumer
THREADS = 4
A_WHILE = 1.0  # seconds of pushing
EVALUATION = 2  # seconds
# More frequent scrapes and evaluations yield more figures. The evaluation_interval stays the tutorial's: it is the step
# of the query, on which the query's time depends.
TIMES = {
    "scrape_interval: 15s": "scrape_interval: 5s",
    "interval: 1m": f"interval: {EVALUATION}s",
    "for: 2m": "for: 4s",
}
LATE = f"{LAG} > 2"
LATE_BY_STEPS_OF_1S = LATE.replace("[1m:]", "[1m:1s]")  # as with the compressed times of the demo and the tests
UNCHECKED = "--push.disable-consistency-check"


class Figures(NamedTuple):
    """What was measured with this many consumers, in seconds, bytes, MiB and pushes per second."""

    consumers: int
    pushes: float
    pushes_unchecked: float
    push: float
    scrape_bytes: int
    scrape_bytes_gzip: int
    scrape: float
    rule: float
    query: float
    query_by_steps_of_1s: float
    pushgateway: float
    prometheus: float


def many_consumers(folder: Path, settings: Settings) -> Iterator[str]:
    """Measure with more and more consumers, and draw `many_consumers.png`."""
    measured = []
    for consumers in CONSUMERS:
        here = folder / str(consumers)
        here.mkdir()
        measured.append(measure_consumers(here, consumers))
    draw(measured, PICTURE)
    yield "## Many consumers\n"
    yield (
        f"One writer, one Pushgateway and one Prometheus. Every second consumer is {BEHIND} versions behind and has an "
        f"alert. Prometheus scrapes every 5 s and evaluates the alert every {EVALUATION} s. The query's step is the "
        f"tutorial's 15 s, and 1 s in the last column. Medians of {RUNS} rounds of pushing for {A_WHILE:.0f} s, "
        f"{2 * RUNS} single pushes, {RUNS} evaluations, {6 * RUNS} queries, and the scrapes of half a minute.\n"
    )
    yield (
        "| consumers | pushes per second | without the gateway's check | one push, ms | scrape, kB | with gzip, kB "
        "| scrape, ms | the alert's evaluation, ms | its query, ms | Pushgateway, MiB | Prometheus, MiB "
        "| query with step 1 s, ms |"
    )
    yield f"|{'---|' * 12}"
    for of in measured:
        yield (
            f"| {of.consumers:,} | {of.pushes:,.0f} | {of.pushes_unchecked:,.0f} | {of.push * 1e3:.1f} "
            f"| {of.scrape_bytes / 1e3:,.0f} | {of.scrape_bytes_gzip / 1e3:,.0f} | {of.scrape * 1e3:.1f} "
            f"| {of.rule * 1e3:.1f} | {of.query * 1e3:.1f} | {of.pushgateway:.0f} | {of.prometheus:.0f} "
            f"| {of.query_by_steps_of_1s * 1e3:.1f} |"
        )
    at = next(of for of in measured if of.consumers == REQUIRED_AT)
    yield (
        f"\nRequired: {REQUIRED * 1e3:.0f} ms at most with {REQUIRED_AT:,} consumers. The query takes "
        f"{verdict(at.query)}, the evaluation {verdict(at.rule)}. The rest of the evaluation's time goes into its "
        f"{(at.consumers + 1) // 2:,} alerts: Prometheus expands the annotations of each one every time.\n"
    )
    yield (
        f"{THREADS} threads of one process push, to groups that exist already. At each push the gateway checks all "
        f"that it holds, one push at a time; `{UNCHECKED}` turns that off. Prometheus asks for gzip.\n"
    )
    yield f"![Pushes per second, size and duration of a scrape, and duration of an evaluation]({PICTURE.name})\n"


def verdict(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms ({'met' if seconds <= REQUIRED else 'not met'})"


def measure_consumers(folder: Path, consumers: int) -> Figures:
    """Start a stack with this many consumers, check that it shows their lags, and measure it.

    Args:
        folder: the folder for its data.
        consumers: how many.

    Raises:
        LagDetectorError: Prometheus shows wrong lags or alerts.
    """
    versions = {f"consumer_{n}": WRITTEN - BEHIND * (n % 2) for n in range(1, consumers + 1)}
    # With the check, 10,000 pushes would take over half an hour. The next gateway finds them in the same folder.
    with pushgateway(folder, UNCHECKED) as address:
        progress(f"Many consumers: starting {consumers:,} …")
        gateway = Pushgateway(address)
        gateway.push(WRITER_VERSION, WRITTEN, time.time(), retry=False)
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda name: push_once(gateway, name, versions[name]), versions))
        pushes_unchecked = median(pushes_in_a_while(gateway, versions) for _ in turns("Pushing without the check"))
    with local_stack(folder, TIMES) as stack:
        gateway = Pushgateway(stack.pushgateway)
        pushes = median(pushes_in_a_while(gateway, versions) for _ in turns("Pushing"))
        one_push = median(seconds_of_a_push(gateway, versions) for _ in range(2 * RUNS))
        # The query covers a minute, and is faster while there is less data in it.
        wait_for("a minute of scrapes", lambda: stack.query(f"{WRITER_VERSION} offset 1m") or None, 120)
        check(stack, versions)
        (scrape,) = stack.query('quantile_over_time(0.5, scrape_duration_seconds{job="pushgateway"}[30s])')
        return Figures(
            consumers=consumers,
            pushes=pushes,
            pushes_unchecked=pushes_unchecked,
            push=one_push,
            scrape_bytes=scrape_bytes(stack, "identity"),
            scrape_bytes_gzip=scrape_bytes(stack, "gzip"),
            scrape=scrape,
            rule=median(seconds_of_an_evaluation(stack) for _ in turns("Evaluations")),
            query=median(seconds_of_a_query(stack, LATE) for _ in range(6 * RUNS)),
            query_by_steps_of_1s=median(seconds_of_a_query(stack, LATE_BY_STEPS_OF_1S) for _ in range(6 * RUNS)),
            pushgateway=memory_of(stack.pushgateway),
            prometheus=memory_of(stack.prometheus),
        )


def push_once(gateway: Pushgateway, name: str, version: int) -> None:
    """Push the version of a consumer, without a retry."""
    gateway.push(READER_VERSION, version, time.time(), name, retry=False)


def pushes_in_a_while(gateway: Pushgateway, versions: dict[str, int]) -> float:
    """Let the consumers push again, several at once, and return the pushes per second."""
    begin = time.monotonic()

    def work(thread: int) -> int:
        names = list(versions)[thread::THREADS] or list(versions)
        done = 0
        while time.monotonic() < begin + A_WHILE:
            name = names[done % len(names)]
            push_once(gateway, name, versions[name])
            done += 1
        return done

    with ThreadPoolExecutor(THREADS) as pool:
        done = sum(pool.map(work, range(THREADS)))
    return done / (time.monotonic() - begin)


def seconds_of_a_push(gateway: Pushgateway, versions: dict[str, int]) -> float:
    """Return how long one consumer's push takes while no other one pushes."""
    name = next(iter(versions))
    begin = time.monotonic()
    push_once(gateway, name, versions[name])
    return time.monotonic() - begin


def check(stack: Stack, versions: dict[str, int]) -> None:
    """Do not measure wrong answers: reject a wrong lag, a wrong alert, a failed scrape."""
    lags = {group_name(READER_VERSION, name): WRITTEN - version for name, version in versions.items()}
    late = {job: lag for job, lag in lags.items() if lag}
    for query, expected in ((LAG, lags), (LATE, late)):
        result = ask(stack, "query", query=query)["result"]
        seen = {each["metric"]["job"]: float(each["value"][1]) for each in result}
        if seen != expected or len(result) != len(expected):
            raise LagDetectorError(f"{query} returned {len(result)} lags, not the {len(expected)} expected ones")
    firing = [alert["labels"]["job"] for alert in alert_rule(stack)["alerts"] if alert["state"] == "firing"]
    if sorted(firing) != sorted(late):
        raise LagDetectorError(f"{len(firing)} alerts fire, not the {len(late)} expected ones")
    if stack.query('min_over_time(up{job="pushgateway"}[1m])') != [1]:
        raise LagDetectorError("a scrape has failed")


def scrape_bytes(stack: Stack, encoding: str) -> int:
    """Return the size of a scrape with this encoding. Prometheus asks for gzip."""
    request = Request(f"{stack.pushgateway}/metrics", headers={"Accept-Encoding": encoding})
    with urlopen(request, timeout=30) as response:
        return len(response.read())


def seconds_of_an_evaluation(stack: Stack) -> float:
    """Wait for the next evaluation of the rule, and return how long it took according to Prometheus."""
    # Do not poll: Prometheus would be busy listing thousands of alerts.
    over = time.monotonic() + EVALUATION
    wait_for("the next evaluation", lambda: time.monotonic() > over or None, 2 * EVALUATION)
    return float(alert_rule(stack)["evaluationTime"])


def seconds_of_a_query(stack: Stack, query: str) -> float:
    """Return how long an instant query took according to Prometheus."""
    return float(ask(stack, "query", query=query, stats="all")["stats"]["timings"]["execTotalTime"])


def memory_of(address: str) -> float:
    """Return the resident memory, in MiB, of our child process that listens at this address."""
    port = int(address.rpartition(":")[2])

    def listens(child: psutil.Process) -> bool:
        return any((at.laddr.port, at.status) == (port, psutil.CONN_LISTEN) for at in child.net_connections("tcp"))

    return resident(next(child.pid for child in psutil.Process().children() if listens(child)))


def draw(measured: list[Figures], picture: Path) -> None:
    """Plot the figures against the number of consumers, both on a logarithmic scale."""
    figure, axes = plt.subplots(2, 2, sharex=True, figsize=(12, 6), dpi=100, layout="constrained")
    consumers = [of.consumers for of in measured]

    def lines(at: Axes, title: str, **of: list[float]) -> None:
        for (label, values), style in zip(of.items(), ("o-", "s--"), strict=False):
            at.loglog(consumers, values, style, label=label.replace("_", " "))
        at.set_title(title)
        at.xaxis.set_major_formatter("{x:,.0f}")
        at.yaxis.set_major_formatter("{x:,g}")

    rate, size, scrape, evaluation = axes.flat
    lines(
        rate,
        "pushes per second",
        with_the_check=[of.pushes for of in measured],
        without_the_check=[of.pushes_unchecked for of in measured],
    )
    lines(
        size,
        "scrape, kB",
        plain=[of.scrape_bytes / 1e3 for of in measured],
        gzip=[of.scrape_bytes_gzip / 1e3 for of in measured],
    )
    lines(scrape, "scrape, ms", scrape=[of.scrape * 1e3 for of in measured])
    lines(
        evaluation,
        "alert, ms",
        evaluation_of_the_rule=[of.rule * 1e3 for of in measured],
        its_query=[of.query * 1e3 for of in measured],
    )
    evaluation.axhline(REQUIRED * 1e3, color="#c4162a", linestyle=":", label=f"{REQUIRED * 1e3:.0f} ms")
    for at, corner in ((rate, "lower left"), (size, "upper left"), (evaluation, "lower right")):
        at.legend(loc=corner)
    for at in axes[1]:
        at.set_xlabel("consumers")
    figure.savefig(picture)
    plt.close(figure)
