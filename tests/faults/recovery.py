"""How long rainband takes over a death, measured on real processes under load; one JSON document on stdout.

    PYTHONPATH=tests python -m faults.recovery --kills 30 --hosts 3 --rate 2000

Kills workers one after the other (each has lived for a while, as a healthy one has), then whole hosts: a supervisor and
all its workers at once, with leases of a few seconds. Per kill, in seconds: `noticed` until the supervisor wrote of it,
`back` until Nimbus says that the replacement runs, `first_replay` until the first replayed root was acked, `all_acked`
until every root that was pending at the kill was. `standstill` is the longest time in which no sink executed anything.
The oracle judges the whole run: lost must be 0, and no root repeated without need.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from kit.chaos import SHORT, Arena, Case, kill_at_once, now, wait
from rainband.build import describe

SETTLED_S = 6.0
WORKERS = 3
LEASES = {**SHORT, "supervisor.worker.timeout.secs": 30}


def main() -> int:
    flags = argparse.ArgumentParser(prog="python -m faults.recovery")
    flags.add_argument("--kills", type=int, default=30)
    flags.add_argument("--hosts", type=int, default=3)
    flags.add_argument("--rate", type=float, default=2000.0)
    flags.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    flags.add_argument("--keep", action="store_true", help="keep journals and logs")
    given = flags.parse_args()
    sys.stderr.write(f"seed {given.seed}\n")
    found: dict[str, Any] = {"seed": given.seed, "rate": given.rate, "built": describe()}
    directory = Path(tempfile.mkdtemp(prefix="rainband-recovery-"))
    try:
        if given.kills:
            found["workers"] = kill_workers(directory / "workers", given.kills, given.rate, random.Random(given.seed))
        if given.hosts:
            found["hosts"] = kill_hosts(directory / "hosts", given.hosts, given.rate)
    finally:
        if given.keep:
            sys.stderr.write(f"kept {directory}\n")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    print(json.dumps(found))
    verdicts = [found[name]["verdict"] for name in ("workers", "hosts") if name in found]
    return 0 if all(v["lost"] == v["unacked"] == v["false_acks"] == v["unexcused"] == 0 for v in verdicts) else 1


def kill_workers(directory: Path, kills: int, rate: float, draw: random.Random) -> dict[str, Any]:
    """`kills` deaths of one topology's workers, the longest-lived first."""
    with Arena(directory, slots=WORKERS) as arena:
        case = arena.case("recovery", workers=WORKERS, rate=rate, source_lines=int(rate * (kills * 4 + 60)))
        case.wait_flowing()
        born = {w.pid: now() for w in case.workers()}
        back, noticed = [], []
        for number in range(kills):
            victim = min(case.workers(), key=lambda w: (round(born[w.pid]), draw.random()))
            wait(lambda at=born[victim.pid]: now() >= at + SETTLED_S, SETTLED_S + 1)  # type: ignore[misc]
            case.wait_flowing(50)
            at = case.kill_worker(victim)
            wait(lambda pid=victim.pid: arena.logged("supervisor-1", f"worker {pid} ", "died"), 10.0)  # type: ignore[misc]
            noticed.append(now() - at)
            back.append(case.wait_replaced(victim) - at)
            born |= {w.pid: now() for w in case.workers() if w.pid not in born}
            case.wait_flowing(100)
            sys.stderr.write(f"kill {number + 1}: back after {back[-1]:.2f} s\n")
        return summary(case, noticed=noticed, back=back)


def kill_hosts(directory: Path, hosts: int, rate: float) -> dict[str, Any]:
    """`hosts` times a supervisor and all its workers at once; the one that does not have the spout."""
    with Arena(directory, supervisors=2, slots=WORKERS, settings=LEASES) as arena:
        case = arena.case("recovery", workers=WORKERS, rate=rate, source_lines=int(rate * (hosts * 30 + 60)))
        case.wait_flowing()
        back = []
        for number in range(hosts):
            with_spout = {slot.supervisor for slot in case.slots_of("numbers")}
            others = [slot for slot in case.assignment().slots() if slot.supervisor not in with_spout]
            if not others:
                case.running.rebalance(workers=WORKERS)
                others = [slot for slot in case.assignment().slots() if slot.supervisor not in with_spout]
            if not others:
                break
            name = arena.supervisor_of(others[0])
            lost = {slot.port for slot in others}
            victims = [w.pid for w in case.workers() if w.port in lost]
            at = case.fault()
            arena.kill(name)
            kill_at_once(victims)
            wait(lambda lost=lost: moved(case, lost), 60.0, case.explain)  # type: ignore[misc]
            back.append(case.mended() - at)
            case.wait_flowing(200)
            arena.start(name)
            arena.wait_supervisors(2)
            case.running.rebalance(workers=1)
            case.running.rebalance(workers=WORKERS)
            sys.stderr.write(f"host {number + 1}: elsewhere after {back[-1]:.2f} s\n")
        return summary(case, back=back)


def moved(case: Case, lost: set[int]) -> bool:
    s = case.statistics()
    return s.workers_running == s.workers_wanted and not lost & {slot.port for slot in case.assignment().slots()}


def summary(case: Case, **measured: list[float]) -> dict[str, Any]:
    case.finish(120)
    verdict = case.verdict()
    faults = verdict.pop("faults")
    for name in ("first_replay", "all_acked"):
        measured[name] = [fault[f"{name}_s"] for fault in faults if fault[f"{name}_s"] is not None]
    figures: dict[str, Any] = {name: figure(values) for name, values in measured.items()}
    figures["standstill_s"] = verdict["standstill_s"]
    return {**figures, "verdict": verdict}


def figure(values: list[float]) -> dict[str, float]:
    if not values:
        return {"count": 0}
    return {"count": len(values), "median_s": round(statistics.median(values), 3), "worst_s": round(max(values), 3)}


if __name__ == "__main__":
    sys.exit(main())
