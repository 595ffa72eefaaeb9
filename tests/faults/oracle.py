"""Judges a run by the files it left. Imports nothing of rainband, and nothing but the standard library.

    python oracle.py DIRECTORY        one JSON document on stdout

DIRECTORY has `case.json`: {"end": numbers in the source, "sinks": [names], "tracked": whether acks say anything (true
where it is missing), "faults": [{"at", "until", "spout"}]}, and the journals `emitted`, `acked`, `relayed`, `sunk-NAME`
with lines `number time`. One source emits 0, 1, 2 … in this order. A fault begins at the monotonic time `at` and is
mended at `until`; `spout` says that it took the source's process with it, whose successor then goes back to what was
stored up to STORED_S before.

lost          numbers that some sink never saw
false_acks    acks of a number that some sink had not executed since it was last emitted: acked without full processing
strange       numbers that some sink saw and no source has
again         executions at a sink beyond the first, by number of roots that had them
unexcused     roots executed more often than 1 + the faults they were pending at: repeated without need
standstill_s  the longest time without an execution at any sink, between the first fault and the end
"""

from __future__ import annotations

import json
import sys
from array import array
from bisect import bisect_right
from pathlib import Path
from typing import Any

NEVER = float("inf")
STORED_S = 1.0
HORIZON_S = 90.0  # nothing stays pending for longer
TICKS = 100  # a second


class Journal:
    """When each number was written for the first time (NEVER: not at all), and every later time, if there was one."""

    def __init__(self, path: Path, end: int) -> None:
        self.first = array("d", [NEVER]) * end
        self.more: dict[int, list[float]] = {}
        self.strange: set[int] = set()
        self.lines = 0
        self.ticks: set[int] = set()
        if path.exists():
            with path.open("rb") as file:
                for line in file:
                    number, at = line.split()
                    self.add(int(number), float(at))

    def add(self, number: int, at: float) -> None:
        self.lines += 1
        self.ticks.add(int(at * TICKS))
        if number >= len(self.first):
            self.strange.add(number)
            return
        known = self.first[number]
        self.first[number] = min(at, known)
        if known != NEVER:
            self.more.setdefault(number, []).append(max(at, known))

    def times(self, number: int) -> list[float]:
        return [] if self.first[number] == NEVER else sorted([self.first[number], *self.more.get(number, ())])

    def missing(self) -> int:
        return sum(at == NEVER for at in self.first)


def false_acks(emitted: Journal, acked: Journal, sinks: list[Journal]) -> list[int]:
    """Numbers with an ack before which some sink had not written them; by what happened since they were emitted.

    Each sink writes before it acks, and the source's ack comes last, so one clock puts them in this order. What a tree
    that was given up had executed before its number was emitted anew does not count for the ack of the new tree.
    """
    found = []
    for number, first in enumerate(acked.first):
        if first == NEVER:
            continue
        again = emitted.more.get(number)
        if again is None and number not in acked.more:
            if any(sink.first[number] > first for sink in sinks):
                found.append(number)
            continue
        begun = emitted.times(number)
        written = [sink.times(number) for sink in sinks]
        for at in acked.times(number):
            since = max((when for when in begun if when <= at), default=NEVER)
            if not all(any(since <= when <= at for when in times) for times in written):
                found.append(number)
                break
    return found


def pending_at(fault: dict[str, Any], emitted: Journal, acked: Journal) -> set[int]:
    """Roots that were pending at some time of the fault; with a lost spout also those its stored position is below.

    A root that a new spout read again is pending from then until its next ack.
    """
    at = fault["at"]
    until = fault.get("until", at)
    high = bisect_right(emitted.first, until)
    low = bisect_right(emitted.first, at - HORIZON_S)
    pending = {number for number in range(low, high) if at < acked.first[number]}
    for number, later in emitted.more.items():
        for since in [emitted.first[number], *later]:
            done = min((when for when in acked.times(number) if when >= since), default=NEVER)
            if since <= until and at < done:
                pending.add(number)
    if fault.get("spout"):
        stored = next((number for number in range(low, high) if acked.first[number] > at - STORED_S), high)
        pending.update(range(stored, high))
    return pending


def recovery(fault: dict[str, Any], pending: set[int], acked: Journal, repeated: set[int]) -> dict[str, Any]:
    """From the fault to the first ack of a replayed root, and to the last ack of all that were pending."""
    at = fault["at"]
    after = {number: min((when for when in acked.times(number) if when > at), default=NEVER) for number in pending}
    replays = [when for number, when in after.items() if number in repeated and when != NEVER]
    last = [when for when in after.values() if when != NEVER]
    return {
        "at": at,
        "pending": len(pending),
        "first_replay_s": round(min(replays) - at, 3) if replays else None,
        "all_acked_s": round(max(last) - at, 3) if last else None,
    }


def standstill(ticks: set[int], since: float) -> float:
    """The longest gap between two executions, of those that end after `since`."""
    longest, before = 0, None
    for tick in sorted(ticks):
        if before is not None and tick >= since * TICKS:
            longest = max(longest, tick - before)
        before = tick
    return longest / TICKS


def judge(directory: Path) -> dict[str, Any]:
    case = json.loads((directory / "case.json").read_text())
    end = case["end"]
    emitted, acked = Journal(directory / "emitted", end), Journal(directory / "acked", end)
    sinks = {name: Journal(directory / f"sunk-{name}", end) for name in case["sinks"]}
    again: dict[int, int] = {}
    for sink in sinks.values():
        for number, later in sink.more.items():
            again[number] = max(again.get(number, 0), len(later))
    repeated = set(again) | set(Journal(directory / "relayed", end).more)
    excuses = dict.fromkeys(repeated, 0)
    faults = []
    for fault in case["faults"]:
        pending = pending_at(fault, emitted, acked)
        for number in pending & excuses.keys():
            excuses[number] += 1
        faults.append(recovery(fault, pending, acked, repeated))
    unexcused = sorted(number for number, more in again.items() if more > excuses[number])
    untrue = false_acks(emitted, acked, list(sinks.values())) if case.get("tracked", True) else []
    begun = min((fault["at"] for fault in case["faults"]), default=0.0)
    return {
        "expected": end,
        "executions": sum(sink.lines for sink in sinks.values()),
        "lost": sum(sink.missing() for sink in sinks.values()),
        "lost_by_sink": {name: sink.missing() for name, sink in sinks.items()},
        "unacked": acked.missing(),
        "false_acks": len(untrue),
        "false_acks_first": untrue[:10],
        "strange": sum(len(sink.strange) for sink in sinks.values()),
        "again": len(again),
        "again_max": max(again.values(), default=0),
        "unexcused": len(unexcused),
        "unexcused_first": unexcused[:10],
        "standstill_s": standstill(set().union(*(sink.ticks for sink in sinks.values())), begun),
        "faults": faults,
    }


def main() -> None:
    sys.stdout.write(json.dumps(judge(Path(sys.argv[1]))) + "\n")


if __name__ == "__main__":
    main()
