"""What people are told of a run: its record, and of a failure all that is needed to see it again."""

from __future__ import annotations

import subprocess
from pathlib import Path

from simulation.corpus import CORPUS, corpus_line
from simulation.options import EDITION
from simulation.shrink import Shrinker
from simulation.world import Outcome

ROOT = Path(__file__).resolve().parent.parent.parent


def commit() -> str:
    """The short name of the commit of these files, with a + when they were changed since; 'unknown' without git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--exclude=*", "--abbrev=7", "--dirty=+"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"


def describe(outcome: Outcome) -> str:
    """Its verdict, options, faults and figures."""
    lines = [f"seed {outcome.options.seed}: {outcome.violation or 'good'}", f"  {outcome.options.record()}"]
    lines += [f"  fault {fault}" for fault in outcome.faults]
    lines.append(
        f"  hash {outcome.hash} roots {outcome.roots} executions {outcome.executions} replays {outcome.replays} "
        f"steps {outcome.steps} {outcome.virtual_s:.1f} virtual s in {outcome.real_s:.2f} s"
    )
    return "\n".join(lines)


def replay_command(outcome: Outcome) -> str:
    """The words that run the same seed again."""
    edition = outcome.options.edition
    old = f" --edition {edition}" if edition != EDITION else ""
    return f"python -m tests.simulation --seed {outcome.options.seed}{old} --trace"


def report(outcome: Outcome, shrink: bool) -> str:
    """A failure for people: commit, how it was, as small as it gets, how to see it again, and where it goes then."""
    text = f"commit {commit()} {describe(outcome)}"
    if shrink:
        small = Shrinker(outcome).shrink()
        text += f"\nshrunk to {len(small.faults)} of {len(outcome.faults)} faults:\n{describe(small)}"
    text += f"\nreplay: {replay_command(outcome)}"
    line = corpus_line(outcome.options.seed, outcome.options.edition)
    return f"{text}\nonce fixed: add '{line}' to {CORPUS.relative_to(ROOT)}"
