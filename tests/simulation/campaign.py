"""Many seeds on all cores, one seed in detail, planted bugs: the command line of the simulation."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from multiprocessing import Pool

from simulation.faults import draw_faults
from simulation.options import draw
from simulation.world import Outcome, run


def run_seed(seed: int, roots: int | None = None, trace: bool = False) -> Outcome:
    options = draw(seed, roots)
    return run(options, draw_faults(options), trace)


def describe(outcome: Outcome) -> str:
    lines = [f"seed {outcome.options.seed}: {outcome.violation or 'good'}", f"  {outcome.options.record()}"]
    lines += [f"  fault {fault}" for fault in outcome.faults]
    lines.append(
        f"  hash {outcome.hash} roots {outcome.roots} executions {outcome.executions} replays {outcome.replays} "
        f"steps {outcome.steps} {outcome.virtual_s:.1f} virtual s in {outcome.real_s:.2f} s"
    )
    return "\n".join(lines)


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", type=int, default=0)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--roots", type=int)
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args(words)
    if given.seed is not None:
        outcome = run_seed(given.seed, given.roots, given.trace)
        for line in outcome.trace:
            print(line)
        print(describe(outcome))
        return 1 if outcome.violation else 0
    bad = 0
    total = [0, 0.0, 0.0]
    with Pool(given.jobs) as pool:
        found: Iterable[Outcome] = pool.imap_unordered(run_seed, range(given.first, given.first + given.seeds), 4)
        for outcome in found:
            total[0] += outcome.roots
            total[1] += outcome.virtual_s
            total[2] += outcome.real_s
            if outcome.violation:
                bad += 1
                print(describe(outcome), flush=True)
    print(f"{given.seeds} seeds, {bad} bad, {total[0]} roots, {total[1]:.0f} virtual s in {total[2]:.0f} CPU s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
