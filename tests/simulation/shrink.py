"""Make a failing run small: delta debugging over its list of faults, then plainer options, then fewer rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from simulation.faults import Fault
from simulation.options import Options
from simulation.world import Outcome, run

RUNS_MAX = 150
PLAIN = (
    {"repeats": 0.0}, {"loss": 0.0}, {"jitter_s": 0.0}, {"stale_frames": False}, {"fifo": True}, {"skew": False},
    {"topologies": 1}, {"spouts": 1}, {"bolts": 1}, {"bolts": 2}, {"ackers": -1}, {"credit": 4096}, {"workers": 2},
)  # fmt: skip


def law_of(violation: str) -> str:
    """D1, A3 and the like: what a smaller run has to break too."""
    return violation.partition(":")[0]


class Shrinker:
    """Keeps the smallest run so far that breaks the same law."""

    def __init__(self, outcome: Outcome, runs_max: int = RUNS_MAX) -> None:
        self.best = outcome
        self.law = law_of(outcome.violation)
        self.runs = 0
        self.runs_max = runs_max

    def fails(self, options: Options, faults: Sequence[Fault]) -> bool:
        if self.runs >= self.runs_max:
            return False
        self.runs += 1
        try:
            outcome = run(options, tuple(faults))
        except Exception:
            return False
        if law_of(outcome.violation) != self.law:
            return False
        self.best = outcome
        return True

    def shrink(self) -> Outcome:
        options = self.best.options
        ddmin(list(self.best.faults), lambda faults: self.fails(options, faults))
        for plainer in PLAIN:
            smaller = replace(self.best.options, **plainer)
            if smaller != self.best.options:
                self.fails(smaller, self.best.faults)
        while self.best.options.roots > 2:
            if not self.fails(replace(self.best.options, roots=self.best.options.roots // 2), self.best.faults):
                break
        return self.best


def ddmin(faults: list[Fault], fails: Callable[[list[Fault]], bool]) -> list[Fault]:
    """A sublist that still fails, of which no single part can be left out."""
    if faults and fails([]):
        return []
    parts = 2
    while len(faults) >= 2:
        size = max(1, len(faults) // parts)
        chunks = [faults[start : start + size] for start in range(0, len(faults), size)]
        for number in range(len(chunks)):
            rest = [fault for other, chunk in enumerate(chunks) if other != number for fault in chunk]
            if fails(rest):
                faults, parts = rest, max(2, parts - 1)
                break
        else:
            if size == 1:
                break
            parts = min(len(faults), parts * 2)
    return faults
