"""Many seeds on all cores, one seed in detail, planted bugs: the command line of the simulation.

    python -m tests.simulation --seed N [--trace] [--shrink]     one seed; its record, and all that happened
    python -m tests.simulation --seeds N [--first N] [--log]     many seeds; the failing ones shrunk
    python -m tests.simulation --bugs [--only NAME] [--log]      is each planted bug found?
    python -m tests.simulation --speed                           virtual seconds per second, under load only
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from multiprocessing import Pool
from typing import Any

from simulation.corpus import Known
from simulation.faults import draw_faults
from simulation.hunt import check_the_checker
from simulation.options import EDITION, Options, draw
from simulation.planted_bounds import BUGS
from simulation.reports import commit, describe, report
from simulation.totals import LOG, Totals, entry
from simulation.twice import again, steady
from simulation.world import START_S, Outcome, World, run

TWICE_EVERY = 100
SHRUNK_MAX = 5
SPEED_SEEDS = 8
SPEED: dict[str, Any] = {"supervisors": 3, "slots": 2, "workers": 6, "bolts": 2, "pass_s": 0.01}
BUSY_FROM_S, BUSY_TO_S = 2.0, 22.0


def run_seed(seed: int, roots: int | None = None, trace: bool = False, edition: int = EDITION) -> Outcome:
    """The run that `seed` stands for by the rules of `edition`."""
    options = draw(seed, roots, edition)
    return run(options, draw_faults(options), trace)


def run_known(known: Known) -> Outcome:
    """One of the permanent corpus."""
    return run_seed(known.seed, edition=known.edition)


def run_checked(seed: int) -> tuple[Outcome, bool]:
    """One of a campaign; every hundredth twice. The second part says whether it was one of those."""
    outcome = steady(run_seed(seed))
    if seed % TWICE_EVERY:
        return outcome, False
    return again(outcome), True


def campaign(seeds: range, jobs: int) -> Totals:
    """Run `seeds` and print what fails."""
    totals = Totals()
    with Pool(jobs) as pool:
        for outcome, twice in pool.imap_unordered(run_checked, seeds, 4):
            totals.add(outcome)
            totals.twice += twice
            if outcome.violation:
                print(report(outcome, len(totals.bad) <= SHRUNK_MAX), flush=True)
    return totals


def speed() -> int:
    """How fast a cluster of 3 supervisors and 6 workers is simulated while it works on 100 roots per virtual second.

    Several topologies of a spout and two bolts, with all their tasks, groupings and replays. Only the time under load
    counts, not the start, nor what is almost idle at the end; all laws are checked.
    """
    load_s = cpu_s = wall_s = 0.0
    for seed in range(1, SPEED_SEEDS + 1):
        world = World(Options(seed, rate=100.0, roots=2500, safety_s=BUSY_TO_S, **SPEED), ())
        world.begin()
        world.advance(START_S + BUSY_FROM_S)
        cpu, wall = time.process_time(), time.monotonic()
        world.advance(START_S + BUSY_TO_S)
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        done = sum(len(guest.oracle.acked) for guest in world.guests.values())
        executed = sum(guest.oracle.executions for guest in world.guests.values())
        rate = (BUSY_TO_S - BUSY_FROM_S) / cpu
        print(f"seed {seed}: {rate:.1f} x real time by CPU, {done} roots acked, {executed} executions")
        load_s, cpu_s, wall_s = load_s + BUSY_TO_S - BUSY_FROM_S, cpu_s + cpu, wall_s + wall
    print(f"{load_s / cpu_s:.1f} x real time by CPU, {load_s / wall_s:.1f} x by the clock on the wall")
    return 0


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, help="run this one and print its record")
    parser.add_argument("--seeds", type=int, default=200, help="run so many")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--edition", type=int, default=EDITION, help="draw a seed as it was drawn then")
    parser.add_argument("--roots", type=int, help="rows of the spouts, instead of what the seed says")
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    parser.add_argument("--shrink", action="store_true", help="make a failing seed small")
    parser.add_argument("--log", action="store_true", help="append the totals to seeds.log, or write planted.log")
    parser.add_argument("--bugs", action="store_true", help="plant bugs and see each found")
    parser.add_argument("--speed", action="store_true", help="measure the speed of the simulation")
    parser.add_argument("--only", help="only this planted bug")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> int:
    given = parse(words)
    if given.bugs:
        names = [given.only] if given.only else sorted(BUGS)
        return check_the_checker(names, given.jobs, commit(), given.log)
    if given.speed:
        return speed()
    if given.seed is not None:
        outcome = run_seed(given.seed, given.roots, given.trace, given.edition)
        for line in outcome.trace:
            print(line)
        print(report(outcome, given.shrink) if outcome.violation else describe(outcome))
        return bool(outcome.violation)
    begin = time.monotonic()
    totals = campaign(range(given.first, given.first + given.seeds), given.jobs)
    told = entry(LOG.read_text(encoding="utf-8"), totals, given.first, time.monotonic() - begin, commit())
    print(told, end="")
    if given.log:
        with LOG.open("a", encoding="utf-8") as log:
            log.write(told)
    return bool(totals.bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
