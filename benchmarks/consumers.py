"""Measure what one Pushgateway and one Prometheus take for up to 10,000 consumers of a table."""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import NamedTuple
from urllib.request import Request, urlopen

from benchmarks.processes import resident
from benchmarks.prometheus import alert_rule, ask
from benchmarks.turns import RUNS, Settings, turns
from demo.stack import LAG, Stack, free_port, local_stack, pushgateway, wait_for
from lag_detector.consumers import of_consumer
from lag_detector.errors import LagDetectorError
from lag_detector.gauges import READER_VERSION, WRITER_VERSION, Pushgateway, push

import matplotlib.pyplot as plt
import psutil
from matplotlib.axes import Axes

PICTURE = Path(__file__).parent / "many_consumers.png"
CONSUMERS = (1, 10, 100, 1_000, 10_000)
REQUIRED, REQUIRED_AT = 0.1, 1_000  # seconds for the alert's query, with so many consumers
WRITTEN, BEHIND = 9, 3  # the writer's version, and how far every second consumer is behind it
THREADS = 4
A_WHILE = 1.0  # seconds of pushing
EVALUATION = 2  # seconds
# Scrapes and evaluations come more often, for there are as many figures as there are of them. The evaluation_interval
# stays the tutorial's: it is the step of the query, on which its time depends.
TIMES = {
    "scrape_interval: 15s": "scrape_interval: 5s",
    "interval: 1m": f"interval: {EVALUATION}s",
    "for: 2m": "for: 4s",
}
LATE = f"{LAG} > 2"
LATE_BY_STEPS_OF_1S = LATE.replace("[1m:]", "[1m:1s]")  # as with the compressed times of the demo and the tests
UNCHECKED = "--push.disable-consistency-check"


class Figures(NamedTuple):
    """What was measured with so many consumers; seconds, bytes, MiB, and pushes a second."""

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
    """Let ever more consumers push beside one writer; draws `many_consumers.png` too."""
    measured = []
    for consumers in CONSUMERS:
        here = folder / str(consumers)
        here.mkdir()
        measured.append(measure_consumers(here, consumers))
    draw(measured, PICTURE)
    yield "## Many consumers\n"
    yield (
        f"Beside one writer, on one Pushgateway and one Prometheus; every second consumer is {BEHIND} versions behind, "
        f"so it has an alert. Scraped every 5 s, the alert evaluated every {EVALUATION} s; the query's step is the "
        f"tutorial's 15 s, in the last column 1 s. Medians of {RUNS} rounds of pushing for {A_WHILE:.0f} s, {2 * RUNS} "
        f"single pushes, {RUNS} evaluations, {6 * RUNS} queries, and the scrapes of half a minute.\n"
    )
    yield (
        "| consumers | pushes a second | without the gateway's check | one push, ms | a scrape, kB | with gzip, kB "
        "| a scrape, ms | the alert's evaluation, ms | its query, ms | Pushgateway, MiB | Prometheus, MiB "
        "| step 1 s, ms |"
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
        f"{verdict(at.query)}, the evaluation {verdict(at.rule)}. What the evaluation takes beyond the query is "
        f"for its {(at.consumers + 1) // 2:,} alerts: Prometheus writes the annotations of each one anew.\n"
    )
    yield (
        f"Pushes come from {THREADS} threads of one process, to groups that exist already. At each push the gateway "
        f"checks all that it holds, one push after another; `{UNCHECKED}` turns that off. Prometheus asks for gzip.\n"
    )
    yield f"![Pushes a second, size and duration of a scrape, and duration of an evaluation]({PICTURE.name})\n"


def verdict(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms ({'kept' if seconds <= REQUIRED else 'not kept'})"


def measure_consumers(folder: Path, consumers: int) -> Figures:
    """Start a stack with so many consumers, see that it gives their lags, and measure it.

    Args:
        folder: where its data goes.
        consumers: how many.

    Raises:
        LagDetectorError: what Prometheus says of the lags is not what it should be.
    """
    versions = {f"consumer_{n}": WRITTEN - BEHIND * (n % 2) for n in range(1, consumers + 1)}
    # 10,000 pushes would take over half an hour with the check. The gateway that follows finds them in its folder.
    with pushgateway(folder, free_port(), UNCHECKED) as address:
        print(f"Many consumers: starting {consumers:,} …", file=sys.stderr)
        gateway = Pushgateway(address)
        push(gateway, WRITER_VERSION, WRITTEN, time.time())
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda name: push(gateway, READER_VERSION, versions[name], time.time(), name), versions))
        pushes_unchecked = median(pushes_in_a_while(gateway, versions) for _ in turns("Pushing without the check"))
    with local_stack(folder, TIMES) as stack:
        gateway = Pushgateway(stack.pushgateway)
        pushes = median(pushes_in_a_while(gateway, versions) for _ in turns("Pushing"))
        one_push = median(seconds_of_a_push(gateway, versions) for _ in range(2 * RUNS))
        # The query looks at a minute, and takes less time while there is less in it.
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


def pushes_in_a_while(gateway: Pushgateway, versions: dict[str, int]) -> float:
    """Let the consumers push again, several at once; gives how many did in a second."""
    begin = time.monotonic()

    def work(thread: int) -> int:
        names = list(versions)[thread::THREADS] or list(versions)
        done = 0
        while time.monotonic() < begin + A_WHILE:
            name = names[done % len(names)]
            push(gateway, READER_VERSION, versions[name], time.time(), name)
            done += 1
        return done

    with ThreadPoolExecutor(THREADS) as pool:
        done = sum(pool.map(work, range(THREADS)))
    return done / (time.monotonic() - begin)


def seconds_of_a_push(gateway: Pushgateway, versions: dict[str, int]) -> float:
    """Let one consumer push while no other one does."""
    name = next(iter(versions))
    begin = time.monotonic()
    push(gateway, READER_VERSION, versions[name], time.time(), name)
    return time.monotonic() - begin


def check(stack: Stack, versions: dict[str, int]) -> None:
    """Refuse to measure answers that are wrong: another lag, an alert too many, a scrape that failed."""
    lags = {of_consumer(READER_VERSION, name): WRITTEN - version for name, version in versions.items()}
    late = {job: lag for job, lag in lags.items() if lag}
    for query, expected in ((LAG, lags), (LATE, late)):
        result = ask(stack, "query", query=query)["result"]
        seen = {each["metric"]["job"]: float(each["value"][1]) for each in result}
        if seen != expected or len(result) != len(expected):
            raise LagDetectorError(f"{query} gave {len(result)} lags, not the {len(expected)} expected ones")
    firing = [alert["labels"]["job"] for alert in alert_rule(stack)["alerts"] if alert["state"] == "firing"]
    if sorted(firing) != sorted(late):
        raise LagDetectorError(f"{len(firing)} alerts fire, not the {len(late)} expected ones")
    if stack.query('min_over_time(up{job="pushgateway"}[1m])') != [1]:
        raise LagDetectorError("a scrape has failed")


def scrape_bytes(stack: Stack, encoding: str) -> int:
    """Scrape the gateway as Prometheus does, which asks for gzip."""
    request = Request(f"{stack.pushgateway}/metrics", headers={"Accept-Encoding": encoding})
    with urlopen(request, timeout=30) as answer:
        return len(answer.read())


def seconds_of_an_evaluation(stack: Stack) -> float:
    """Wait until the rule has been evaluated again; gives how long that took by Prometheus' own account."""
    # Asked all the time, Prometheus would be busy listing thousands of alerts.
    over = time.monotonic() + EVALUATION
    wait_for("the next evaluation", lambda: time.monotonic() > over or None, 2 * EVALUATION)
    return float(alert_rule(stack)["evaluationTime"])


def seconds_of_a_query(stack: Stack, query: str) -> float:
    """Ask an instant query; gives how long it took by Prometheus' own account."""
    return float(ask(stack, "query", query=query, stats="all")["stats"]["timings"]["execTotalTime"])


def memory_of(address: str) -> float:
    """Give the resident memory, in MiB, of the program that we started to listen at this address."""
    listens = f"--web.listen-address={address.removeprefix('http://')}"
    return resident(next(child.pid for child in psutil.Process().children() if listens in child.cmdline()))


def draw(measured: list[Figures], picture: Path) -> None:
    """Draw the figures over the number of consumers, both on a logarithmic scale."""
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
        "pushes a second",
        as_it_comes=[of.pushes for of in measured],
        without_the_check=[of.pushes_unchecked for of in measured],
    )
    lines(
        size,
        "a scrape, kB",
        plain=[of.scrape_bytes / 1e3 for of in measured],
        gzip=[of.scrape_bytes_gzip / 1e3 for of in measured],
    )
    lines(scrape, "a scrape, ms", scrape=[of.scrape * 1e3 for of in measured])
    lines(
        evaluation,
        "the alert, ms",
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
