"""Judges a run by the files it left. Imports nothing of rainband, and nothing but the standard library.

    python oracle.py DIRECTORY        one JSON document on stdout

DIRECTORY has `case.json`: {"end": lines per source, "sources": how many, "sinks": [names], "faults": [{"at", "until",
"spout"}]}, and the journals `emitted`, `acked`, `relayed`, `sunk-NAME` with lines `number time`. A fault begins at the
monotonic time `at` and is mended at `until`; `spout` says that it took a spout with it, which then goes back to what
was stored up to STORED_S before.

lost          numbers that some sink never saw
strange       numbers that some sink saw and no source has
again         executions at a sink beyond the first, by number of roots that had them
unexcused     roots executed more often than 1 + the faults they were pending at: repeated without need
standstill_s  the longest time without an execution at any sink, between the first and the last
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

STORED_S = 1.0
Journal = list[tuple[int, float]]


def read(path: Path) -> Journal:
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [(int(number), float(at)) for number, at in (line.split() for line in lines)]


def first(journal: Journal) -> dict[int, float]:
    """When each number appeared for the first time."""
    found: dict[int, float] = {}
    for number, at in journal:
        found[number] = min(at, found.get(number, at))
    return found


def times(journal: Journal) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for number, at in journal:
        found.setdefault(number, []).append(at)
    return found


def pending_at(fault: dict[str, Any], emitted: dict[int, list[float]], acked: dict[int, list[float]]) -> set[int]:
    """Roots that were pending at some time of the fault; with a lost spout also those its stored position is below.

    A root that a new spout read again is pending from then until its next ack.
    """
    at = fault["at"]
    until = fault.get("until", at)
    never = float("inf")
    pending = set()
    for number, times_read in emitted.items():
        for since in times_read:
            done = min((when for when in acked.get(number, ()) if when >= since), default=never)
            if since <= until and at < done:
                pending.add(number)
    if fault.get("spout"):
        stored_at = at - STORED_S
        low = min((n for n in emitted if min(acked.get(n, [never])) > stored_at), default=0)
        pending |= {number for number, times_read in emitted.items() if min(times_read) <= until and number >= low}
    return pending


def recovery(fault: dict[str, Any], pending: set[int], acked: Journal, repeated: set[int]) -> dict[str, Any]:
    """From the fault to the first ack of a replayed root, and to the last ack of all that were pending."""
    at = fault["at"]
    replays = [when for number, when in acked if when > at and number in repeated and number in pending]
    last: dict[int, float] = {}
    for number, when in acked:
        if number in pending and when > at:
            last.setdefault(number, when)
    return {
        "at": at,
        "pending": len(pending),
        "first_replay_s": round(min(replays) - at, 3) if replays else None,
        "all_acked_s": round(max(last.values()) - at, 3) if last else None,
    }


def standstill(all_times: list[float], since: float) -> float:
    """The longest gap between two executions, of those that end after `since`."""
    ordered = sorted(all_times)
    gaps = [b - a for a, b in pairwise(ordered) if b >= since]
    return round(max(gaps, default=0.0), 3)


def judge(directory: Path) -> dict[str, Any]:
    case = json.loads((directory / "case.json").read_text())
    expected = set(range(case["end"] * case["sources"]))
    emitted, acked = times(read(directory / "emitted")), read(directory / "acked")
    acked_first, acked_times = first(acked), times(acked)
    faults = [{**fault, "pending": pending_at(fault, emitted, acked_times)} for fault in case["faults"]]
    lost: dict[str, int] = {}
    strange = executions = 0
    again: dict[int, int] = {}
    repeated: set[int] = set()
    everything: list[float] = []
    for sink in case["sinks"]:
        seen = times(read(directory / f"sunk-{sink}"))
        lost[sink] = len(expected - seen.keys())
        strange += len(seen.keys() - expected)
        for number, when in seen.items():
            executions += len(when)
            everything.extend(when)
            if len(when) > 1:
                repeated.add(number)
                again[number] = max(again.get(number, 0), len(when) - 1)
    repeated |= {number for number, when in times(read(directory / "relayed")).items() if len(when) > 1}
    excuses = {number: sum(number in fault["pending"] for fault in faults) for number in repeated}
    unexcused = sorted(number for number, more in again.items() if more > excuses[number])
    return {
        "expected": len(expected),
        "executions": executions,
        "lost": sum(lost.values()),
        "lost_by_sink": lost,
        "unacked": len(expected - acked_first.keys()),
        "strange": strange,
        "again": len(again),
        "again_max": max(again.values(), default=0),
        "unexcused": len(unexcused),
        "unexcused_first": unexcused[:10],
        "standstill_s": standstill(everything, min((fault["at"] for fault in faults), default=0.0)),
        "faults": [recovery(fault, fault["pending"], acked, repeated) for fault in faults],
    }


def main() -> None:
    sys.stdout.write(json.dumps(judge(Path(sys.argv[1]))) + "\n")


if __name__ == "__main__":
    main()
