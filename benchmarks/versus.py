"""rainband beside its peers, in one run with rounds in turn: medians and ratios, written to docs/benchmarks.md.

    make bench-peers [ROUNDS=5] [SECONDS=10]

Every entrant counts the words of the same lines with the same two bolts. Rows with and without acks are never compared.
A machine that others use at the same time shows in `others`: the cores taken by anything but the entrant.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.command import run as run_rainband
from benchmarks.peers import bytewax_peer, floor
from benchmarks.peers.storm import StormCluster
from rainband.build import VERSION, describe

Row = dict[str, Any]
PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
STORM_PENDING = 4000


def entrants(storm: StormCluster, seconds: float) -> dict[str, Callable[[], Row]]:
    """What is measured in each round, by name."""

    def storm_row(workers: int, profile: str) -> Row:
        return storm.measure("word-count", workers=workers, profile=profile, seconds=seconds, pending=STORM_PENDING)

    return {
        "rainband, 1 worker, acked": lambda: run_rainband("word-count", workers=1, seconds=seconds),
        "Storm, 1 worker, acked, defaults": lambda: storm_row(1, "defaults"),
        "Storm, 1 worker, acked, tuned": lambda: storm_row(1, "best"),
        "rainband, 2 workers, acked": lambda: run_rainband("word-count", workers=2, seconds=seconds),
        "Storm, 2 workers, acked, defaults": lambda: storm_row(2, "defaults"),
        "rainband, 1 worker, no acking": lambda: run_rainband("word-count", workers=1, seconds=seconds, acking=False),
        "bytewax, 1 worker, no acks": lambda: bytewax_peer.run("word-count", seconds=seconds),
        "bare Python loop": lambda: floor.run("word-count", seconds=seconds),
    }


def figures(rows: list[Row], acked: bool) -> tuple[float, float, float]:
    """Median words per second, CPU-seconds per million, and cores that others took."""
    rate = "acked_per_s" if acked else "tuples_per_s"
    return (
        median(row[rate] for row in rows),
        median(row["cpu_s_per_million"] for row in rows),
        median(row.get("cores_used_by_others", 0.0) for row in rows),
    )


def page(found: dict[str, list[Row]], rounds: int, seconds: float) -> str:
    """The report as Markdown."""
    medians = {name: figures(rows, ", acked" in name) for name, rows in found.items()}
    lines = [
        "# Benchmarks",
        "",
        "Word count of Python's standard library, 1 spout, 2 split, 2 count; medians of",
        f"{rounds} rounds in turn of {seconds:g} s each: `make bench-peers ROUNDS={rounds} SECONDS={seconds:g}`.",
        f"Machine: {os.cpu_count()} cores, {platform.system()} {platform.release()},",
        f"Python {platform.python_version()};",
        f"rainband {VERSION} ({describe()}); Apache Storm {StormCluster.version} as a real cluster on loopback,",
        f"`topology.max.spout.pending` {STORM_PENDING}.",
        "",
        "| | words/s | CPU-s per million words | cores taken by others |",
        "|---|---|---|---|",
        *(f"| {name} | {rate:,.0f} | {cpu:.2f} | {others:.2f} |" for name, (rate, cpu, others) in medians.items()),
        "",
        "| ratio | words/s | words per CPU-second |",
        "|---|---|---|",
    ]
    for ours, theirs in PAIRS:
        (rate, cpu, _), (their_rate, their_cpu, _) = medians[ours], medians[theirs]
        lines.append(f"| {ours} / {theirs} | {rate / their_rate:.2f} | {their_cpu / cpu:.2f} |")
    behind = [f"{ours} against {theirs}" for ours, theirs in PAIRS if medians[ours][0] < medians[theirs][0]]
    lines += ["", f"Behind in words per second: {', '.join(behind) or 'in none of these'}.", ""]
    return "\n".join(lines)


PAIRS = (
    ("rainband, 1 worker, acked", "Storm, 1 worker, acked, defaults"),
    ("rainband, 1 worker, acked", "Storm, 1 worker, acked, tuned"),
    ("rainband, 2 workers, acked", "Storm, 1 worker, acked, tuned"),
    ("rainband, 2 workers, acked", "Storm, 2 workers, acked, defaults"),
    ("rainband, 1 worker, no acking", "bytewax, 1 worker, no acks"),
    ("rainband, 1 worker, acked", "bare Python loop"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    found: dict[str, list[Row]] = {}
    with StormCluster() as storm:
        for number in range(given.rounds):
            for name, measure in entrants(storm, given.seconds).items():
                row = measure()
                found.setdefault(name, []).append(row)
                rate = row["acked_per_s"] or row["tuples_per_s"]
                print(f"round {number + 1}: {name}: {rate:,.0f}/s", file=sys.stderr)
    PAGE.write_text(page(found, given.rounds, given.seconds))
    print(PAGE.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
