"""What campaigns add up to, and seeds.log: what each of them was, which seeds were bad, and the sums so far."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, field
from pathlib import Path

from simulation.shrink import law_of
from simulation.world import Outcome

LOG = Path(__file__).resolve().parent / "seeds.log"
CAMPAIGN = re.compile(r"^\S+ \S+ seeds .*: (\d+) seeds, (\d+) bad, (\d+) roots, (\d+) executions, ", re.MULTILINE)


@dataclass
class Totals:
    """What a campaign added up to. `twice` are seeds that were run a second time for their hash."""

    seeds: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)
    roots: int = 0
    executions: int = 0
    replays: int = 0
    twice: int = 0
    virtual_s: float = 0.0
    cpu_s: float = 0.0

    def add(self, outcome: Outcome) -> None:
        self.seeds += 1
        if outcome.violation:
            self.bad.append((outcome.options.seed, law_of(outcome.violation)))
        self.roots += outcome.roots
        self.executions += outcome.executions
        self.replays += outcome.replays
        self.virtual_s += outcome.virtual_s
        self.cpu_s += outcome.real_s

    def __str__(self) -> str:
        return (
            f"{self.seeds} seeds, {len(self.bad)} bad, {self.roots} roots, {self.executions} executions, "
            f"{self.replays} replays, {self.twice} run twice, {self.virtual_s:.0f} virtual s in {self.cpu_s:.0f} CPU s "
            f"({self.virtual_s / max(self.cpu_s, 1e-9):.0f} x real time)"
        )

    def named(self) -> str:
        """The bad ones, each with the law it broke."""
        return ", ".join(f"{seed} {law}" for seed, law in sorted(self.bad))


def so_far(log: str, totals: Totals) -> str:
    """The sums of all campaigns in `log`, and of `totals`, which is not in it."""
    rows = [[int(number) for number in found] for found in CAMPAIGN.findall(log)]
    rows.append([totals.seeds, len(totals.bad), totals.roots, totals.executions])
    seeds, bad, roots, executions = (sum(column) for column in zip(*rows, strict=True))
    return f"so far: {len(rows)} campaigns, {seeds} seeds, {bad} bad, {roots} roots, {executions} executions"


def entry(log: str, totals: Totals, first: int, wall_s: float, commit: str) -> str:
    """The lines of one campaign for the log: what it was, its bad seeds if any, the sums so far."""
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    lines = [f"{day} {commit} seeds {first}..{first + totals.seeds - 1}: {totals}, {wall_s:.0f} s"]
    if totals.bad:
        lines.append(f"  bad: {totals.named()}")
    lines.append(f"  {so_far(log, totals)}")
    return "".join(f"{line}\n" for line in lines)
