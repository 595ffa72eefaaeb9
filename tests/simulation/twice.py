"""Runs that have to be equal: a seed and itself; a seed whose clocks on the wall jump, and the same where none does."""

from __future__ import annotations

from dataclasses import replace

from simulation.world import Outcome, run


def again(outcome: Outcome) -> Outcome:
    """Run it once more: T0 when that makes another trace."""
    if not outcome.violation:
        other = run(outcome.options, outcome.faults)
        if other.hash != outcome.hash:
            return replace(outcome, violation=f"T0: two runs of one seed differ, {outcome.hash} and {other.hash}")
    return outcome


def steady(outcome: Outcome) -> Outcome:
    """Run it without jumps of clocks on the wall, if it has any: T1 when that makes another trace."""
    if "jump_clock" in outcome.options.faults and not outcome.violation:
        other = run(replace(outcome.options, steady=True), outcome.faults)
        if other.hash != outcome.hash:
            return replace(outcome, violation="T1: clocks on the wall that jump changed what happened")
    return outcome
