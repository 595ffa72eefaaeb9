"""A checker must be checked: each planted bug is hunted seed by seed; planted.log tells how many seeds each took."""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass, replace
from multiprocessing import Pool
from pathlib import Path

from simulation.faults import draw_faults
from simulation.options import draw
from simulation.planted_bounds import BUGS
from simulation.shrink import law_of
from simulation.twice import steady
from simulation.world import Outcome, run

LOG = Path(__file__).resolve().parent / "planted.log"
SEEDS_PER_BUG = 200
WALL_MAX_S = 900


@dataclass(frozen=True)
class Hunt:
    """How one went: the first seed that finds the bug, 0 for none, by which violation; the CPU seconds it took."""

    name: str
    seed: int
    violation: str
    cpu_s: float

    def row(self) -> str:
        """Its line of the log."""
        found = f"{self.seed:5} {law_of(self.violation):4}" if self.seed else "NOT FOUND "
        return f"{self.name:52} {found} {self.cpu_s:7.1f}"


def run_in_swarm(name: str, seed: int) -> Outcome:
    """A seed with the options of a planted bug's swarm."""
    options = replace(draw(seed), **BUGS[name].swarm)
    return steady(run(options, draw_faults(options)))


def hunt(job: tuple[str, int]) -> Hunt:
    """From the seed `job` names on, for the bug it names, which is planted in this process."""
    name, first = job
    begin = time.process_time()
    BUGS[name].plant()
    for seed in range(first, SEEDS_PER_BUG + 1):
        outcome = run_in_swarm(name, seed)
        if outcome.violation:
            return Hunt(name, seed, outcome.violation, time.process_time() - begin)
    return Hunt(name, 0, "", time.process_time() - begin)


def hunt_all(names: list[str], jobs: int) -> list[Hunt]:
    """Each bug in a process of its own.

    A seed that fails without the bug as well proves nothing: the hunt goes on behind it. That is tried in a process
    without bugs, not in this one: it must be at rest when a process is forked from it.
    """
    ended: list[Hunt] = []
    jobs_left = [(name, 1) for name in names]
    with Pool(1) as healthy, Pool(jobs, maxtasksperchild=1) as pool:
        while jobs_left:
            again: list[tuple[str, int]] = []
            for found in pool.imap_unordered(hunt, jobs_left, 1):
                if found.seed and healthy.apply(run_in_swarm, (found.name, found.seed)).violation:
                    print(f"{found.name} seed {found.seed} fails without it too", flush=True)
                    again.append((found.name, found.seed + 1))
                    continue
                ended.append(found)
                print(f"{found.row()}  {found.violation.partition(chr(10))[0][:110]}", flush=True)
            jobs_left = again
    return ended


def table(ended: list[Hunt], commit: str, wall_s: float, jobs: int) -> str:
    """All of it for the log, in order of names; the wall time is what it took on `jobs` processes."""
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    found = [one for one in ended if one.seed]
    worst = max((one.seed for one in found), default=0)
    cpu_s = sum(one.cpu_s for one in ended)
    sums = f"{len(found)} of {len(ended)} planted bugs found, each within {worst} seeds (at most {SEEDS_PER_BUG})"
    lines = [
        f"{day} {commit}: {sums}, in {cpu_s:.0f} CPU s, {wall_s:.0f} s on {jobs} processes (at most {WALL_MAX_S})",
        f"{'bug':52} {'seeds':>5} {'law':4} {'CPU s':>7}",
        *(one.row() for one in sorted(ended, key=lambda one: one.name)),
    ]
    return "".join(f"{line}\n" for line in lines)


def check_the_checker(names: list[str], jobs: int, commit: str, log: bool) -> int:
    """Hunt them all and tell; how many were not found. `log`: planted.log becomes what was found now."""
    begin = time.monotonic()
    ended = hunt_all(names, jobs)
    told = table(ended, commit, time.monotonic() - begin, jobs)
    print(told.partition("\n")[0])
    if log:
        LOG.write_text(told, encoding="utf-8")
    return sum(not one.seed for one in ended)
