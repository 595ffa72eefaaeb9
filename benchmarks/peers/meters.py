"""Counters written by the measured processes themselves, and a window cut out of them.

Each process that counts writes DIR/PID.json whole, a few times a second: `time_ns` of its own monotonic clock
and running totals. A window is the difference of two readings, each process by its own clock, so that the
moment at which we happen to read does not matter.

Names: `roots` root tuples emitted; `emitted` the tuples these must become at the last component; `reached`
those that did; `acked` the share of `emitted` whose tree was acked; `failed` trees; `distinct` keys known to
the last component; `latency_us` a histogram of complete latencies.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.peers.processes import cpu_seconds, machine_busy_seconds
from benchmarks.peers.rows import Window, WrongCount, percentiles

Totals = Mapping[str, Any]


def read(directory: Path) -> dict[int, Totals]:
    """The newest totals of each process, by pid."""
    return {int(path.stem): json.loads(path.read_text()) for path in directory.glob("*.json")}


def total(meters: Mapping[int, Totals], name: str) -> int:
    """One counter over all processes."""
    return sum(int(totals.get(name, 0)) for totals in meters.values())


def _rate(before: Mapping[int, Totals], after: Mapping[int, Totals], name: str) -> float:
    """Per second, each process by its own clock."""
    rate = 0.0
    for pid, totals in after.items():
        if name in totals and pid in before:
            elapsed_ns = totals["time_ns"] - before[pid]["time_ns"]
            if elapsed_ns > 0:
                rate += (totals[name] - before[pid].get(name, 0)) / elapsed_ns * 1e9
    return rate


def latency(before: Mapping[int, Totals], after: Mapping[int, Totals]) -> dict[str, float] | None:
    """Percentiles of what completed between two readings."""
    histogram: Counter[int] = Counter()
    for sign, meters in ((1, after), (-1, before)):
        for totals in meters.values():
            for microseconds, count in totals.get("latency_us", {}).items():
                histogram[int(microseconds)] += sign * count
    return percentiles(histogram)


def wait_started(directory: Path, alive: Callable[[], bool], timeout_s: float) -> None:
    """Return when the first tuple has reached the end."""
    wait_until(
        lambda: total(read(directory), "reached") > 0, alive, timeout_s, "no tuple reached the last component"
    )


def wait_until(condition: Callable[[], bool], alive: Callable[[], bool], timeout_s: float, why: str) -> None:
    """Poll a condition; raise TimeoutError, or at once if what we wait for has died."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if not alive():
            raise RuntimeError(f"{why}: a process ended")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{why} within {timeout_s:g} s")
        time.sleep(0.1)


def measure(directory: Path, seconds: float, *, acking: bool, cpu_of: Callable[[], list[int]]) -> Window:
    """Watch for that long. `cpu_of` names the processes whose CPU time counts, descendants included."""
    pids = cpu_of()
    busy = machine_busy_seconds()
    before, cpu_before, began = read(directory), cpu_seconds(pids, descendants=True), time.monotonic()
    time.sleep(seconds)
    after, cpu_after, ended = read(directory), cpu_seconds(pids, descendants=True), time.monotonic()
    busy = machine_busy_seconds() - busy
    if cpu_after < cpu_before or not after.keys() <= before.keys():
        raise WrongCount("a process of the topology was replaced within the window")
    elapsed = ended - began
    if total(after, "reached") == total(before, "reached"):
        raise WrongCount("nothing reached the last component within the window: it stood still")
    if acking and total(after, "acked") == total(before, "acked"):
        raise WrongCount("nothing was acked within the window: it stood still")
    return Window(
        seconds=elapsed,
        reached=round(_rate(before, after, "reached") * elapsed),
        acked=round(_rate(before, after, "acked") * elapsed) if acking else None,
        cpu_s=cpu_after - cpu_before,
        others_cpu_s=max(0.0, busy - (cpu_after - cpu_before)),
        latency_ms=latency(before, after) if acking else None,
        failed=total(after, "failed") - total(before, "failed"),
    )


def wait_quiet(directory: Path, timeout_s: float, quiet_s: float = 2.0) -> dict[int, Totals]:
    """The totals once nothing has moved for a while; a source that was told to stop has drained by then."""
    deadline = time.monotonic() + timeout_s
    names = ("roots", "reached", "acked")
    last: list[int] = []
    since = time.monotonic()
    while True:
        meters = read(directory)
        now = [total(meters, name) for name in names]
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since >= quiet_s:
            return meters
        if time.monotonic() > deadline:
            raise TimeoutError("the topology did not drain")
        time.sleep(0.2)


def check_drained(
    meters: Mapping[int, Totals], *, acking: bool, distinct: int | None, lines: int, held: int = 0
) -> int:
    """Raise WrongCount unless every tuple emitted was counted once, acked, and its key kept to one task.

    An engine may hold the last `held` tuples back for want of more. Returns how many it did.
    """
    problems: list[str] = []
    emitted, reached, failed = (total(meters, name) for name in ("emitted", "reached", "failed"))
    if not 0 <= emitted - reached <= held:
        problems.append(f"{emitted} tuples were due at the last component, {reached} came")
    if acking and not 0 <= emitted - total(meters, "acked") <= 2 * held:
        problems.append(f"{emitted} tuples were due, {total(meters, 'acked')} acked")
    if failed:
        problems.append(f"{failed} trees failed")
    found = total(meters, "distinct")
    if distinct is not None and (
        found > distinct or (found < distinct and total(meters, "roots") >= 2 * lines)
    ):
        problems.append(f"{distinct} distinct words exist, {found} were found")
    if problems:
        raise WrongCount("; ".join(problems))
    return emitted - reached
