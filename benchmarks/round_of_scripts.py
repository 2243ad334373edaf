"""Compare the six script runs of the tutorial with the ordinary way, and with an empty session."""

from functools import partial
from pathlib import Path
from statistics import mean

from benchmarks.measuring import Settings, in_turn, run_python, table
from demo.stack import ROOT

STEPS = (
    "create_table",
    "visits_creator_job",
    "visits_reader",
    "visits_consumer",
    "visits_creator_job",
    "visits_consumer",
)


def a_round(folder: Path, settings: Settings) -> str:
    """Run each step in both ways, every turn in a new folder."""
    cases = [partial(run_python, ["-m", "benchmarks.ordinary_way", "empty_session"], folder, settings)]
    for step in STEPS:
        cases.append(partial(run_python, [f"{ROOT}/{step}.py"], folder, settings | {"VISITS_WAREHOUSE": "ours"}))
        cases.append(partial(run_python, ["-m", "benchmarks.ordinary_way", step], folder, settings))
    empty, *runs = in_turn("A round", cases)
    ours, others = runs[::2], runs[1::2]
    rows = [
        f"{number} {step} | {our.seconds:.1f} | {our.seconds / empty.seconds:.2f} | {other.seconds:.1f} "
        f"| {our.seconds / other.seconds:.2f} | {our.mib:.0f} | {other.mib:.0f}"
        for number, (step, our, other) in enumerate(zip(STEPS, ours, others, strict=True), 1)
    ]
    total, other_total = (sum(run.seconds for run in side) for side in (ours, others))
    ratio = mean(run.seconds / empty.seconds for run in ours)
    rows.append(f"all six | {total:.1f} | {ratio:.2f} on average | {other_total:.1f} | {total / other_total:.2f} | |")
    return f"An empty session as in Delta's quick start: {empty.seconds:.1f} s, {empty.mib:.0f} MiB.\n\n" + table(
        "step | s | relative to an empty session | ordinary way, s | relative to it | MiB | ordinary way, MiB", rows
    )
