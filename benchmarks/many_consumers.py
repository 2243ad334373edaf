"""Measure one Pushgateway, one Prometheus and the tutorial's alert with up to 10,000 consumers of a table."""

import time
from pathlib import Path
from statistics import median
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from tutorial.script import progress
from tutorial.visits import READER_VERSION, WRITER_VERSION

from benchmarks.measuring import RUNS, Settings, table
from demo.stack import ALERT, LAG, local_stack, pushgateway, wait_for
from lag_detector import Pushgateway

CONSUMERS = (100, 1_000, 10_000)
WRITTEN, BEHIND = 9, 3  # the writer's version, and the lag of every second consumer
EVALUATION = 2  # seconds
# The evaluation_interval stays the tutorial's: it is the step of the query, on which the query's time depends.
TIMES = {
    "scrape_interval: 15s": "scrape_interval: 5s",
    "interval: 1m": f"interval: {EVALUATION}s",
    "for: 2m": "for: 4s",
}
QUERY = urlencode({"query": f"{LAG} > 2", "stats": "all"})


def many_consumers(folder: Path, settings: Settings) -> str:
    """Measure with more and more consumers."""
    rows = [f"{consumers:,} | {figures(folder / str(consumers), consumers)}" for consumers in CONSUMERS]
    return (
        f"One writer, one Pushgateway and one Prometheus. Every second consumer is {BEHIND} versions behind and has an "
        f"alert. Prometheus scrapes every 5 s and evaluates the alert every {EVALUATION} s. The query's step is the "
        f"tutorial's 15 s. A query is the median of {6 * RUNS}, a scrape that of half a minute.\n\n"
    ) + table("consumers | scrape, kB | with gzip, kB | scrape, ms | the alert's evaluation, ms | its query, ms", rows)


def figures(folder: Path, consumers: int) -> str:
    """Start a stack with this many consumers, wait until each one that is behind has an alert, and measure."""
    folder.mkdir()
    progress(f"Many consumers: {consumers:,} …")
    # With the gateway's check, 10,000 pushes would take over half an hour. The next gateway finds them in the folder.
    with pushgateway(folder, "--push.disable-consistency-check") as address:
        gateway = Pushgateway(address)
        gateway.push(WRITER_VERSION, WRITTEN, time.time(), retry=False)
        for number in range(consumers):
            version = WRITTEN if number % 2 else WRITTEN - BEHIND
            gateway.push(READER_VERSION, version, time.time(), f"consumer_{number}", retry=False)
    with local_stack(folder, TIMES) as stack:
        # The query covers a minute, and is faster while there is less data in it.
        wait_for("a minute of scrapes", lambda: stack.query(f"{WRITER_VERSION} offset 1m"), 120)
        firing, late = f'count(ALERTS{{alertname="{ALERT}",alertstate="firing"}})', (consumers + 1) // 2
        wait_for(f"{late} alerts", lambda: stack.query(firing) == [late], 60)
        (scrape,) = stack.query('quantile_over_time(0.5, scrape_duration_seconds{job="pushgateway"}[30s])')
        evaluations, queries = [], []
        for _ in range(RUNS):
            time.sleep(EVALUATION)  # to poll would keep Prometheus busy with listing thousands of alerts
            evaluations.append(stack.alert()["evaluationTime"])
            answers = [stack.get(f"query?{QUERY}") for _ in range(6)]
            queries += [answer["stats"]["timings"]["execTotalTime"] for answer in answers]
        sizes = []
        for encoding in ("identity", "gzip"):  # Prometheus asks for gzip
            request = Request(f"{stack.pushgateway}/metrics", headers={"Accept-Encoding": encoding})
            with urlopen(request, timeout=30) as response:
                sizes.append(len(response.read()) / 1e3)
    times = (1e3 * seconds for seconds in (scrape, median(evaluations), median(queries)))
    return " | ".join([*(f"{size:,.0f}" for size in sizes), *(f"{milliseconds:.1f}" for milliseconds in times)])
