"""How many tuples per second, from a spout that always has more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.harness import Cluster, Outcome
from benchmarks.peers.corpus import corpus, lines_file
from benchmarks.results import Result, WrongCount, result

ACKERS_OFF = {"topology.acker.executors": 0}


def word_count(
    cluster: Cluster,
    *,
    workers: int = 1,
    acking: bool = True,
    seconds: float = 10.0,
    warm_up_s: float = 5.0,
    door: str = "each",
    config: Mapping[str, object] | None = None,
    name: str = "word-count",
) -> Result:
    """Words counted: 1 spout, 2 split, 2 count. `door`: "each" calls execute, "batch" execute_batch."""
    arguments = ["yes" if acking else "no", str(lines_file()), door]
    outcome = cluster.run(
        "words.py", arguments, config=settings(workers, acking, config), warm_up_s=warm_up_s, seconds=seconds
    )
    lost, duplicated = misscounted(outcome)
    found = row(name, outcome, "count", workers, acking, lost=lost, duplicated=duplicated)
    if acking:
        window = outcome.window
        found["acked_per_s"] = round(window.acked * window.executed["count"] / window.executed["split"])
    return found


def chain(
    cluster: Cluster,
    *,
    workers: int = 1,
    acking: bool = True,
    seconds: float = 10.0,
    warm_up_s: float = 3.0,
    config: Mapping[str, object] | None = None,
) -> Result:
    """Tuples that reach the last of const -> id -> null."""
    outcome = cluster.run(
        "chain.py",
        ["yes" if acking else "no"],
        config=settings(workers, acking, config),
        warm_up_s=warm_up_s,
        seconds=seconds,
    )
    missing = outcome.sum("const", "emitted") - outcome.sum("null", "reached")
    return row("chain", outcome, "null", workers, acking, lost=max(0, missing), duplicated=max(0, -missing))


def settings(workers: int, acking: bool, config: Mapping[str, object] | None) -> dict[str, object]:
    return {"topology.workers": workers, **({} if acking else ACKERS_OFF), **(config or {})}


def misscounted(outcome: Outcome) -> tuple[int, int]:
    """Words counted too seldom and too often, against a plain count of the lines that were emitted."""
    lines = corpus().lines
    emitted = outcome.sum("lines", "emitted")
    rounds, rest = divmod(emitted, len(lines))
    wrong: dict[str, int] = {}
    add_words(wrong, lines, rounds)
    add_words(wrong, lines[:rest], 1)
    for totals in outcome.of("count"):
        for word, count in totals["counts"].items():
            wrong[word] = wrong.get(word, 0) - count
    return sum(n for n in wrong.values() if n > 0), -sum(n for n in wrong.values() if n < 0)


def add_words(counts: dict[str, int], lines: Sequence[str], times: int) -> None:
    for line in lines if times else ():
        for word in line.split():
            counts[word] = counts.get(word, 0) + times


def row(
    name: str, outcome: Outcome, last: str, workers: int, acking: bool, *, lost: int, duplicated: int, per: float = 1.0
) -> Result:
    """The result of one run, `last` being the component whose tuples count. Raises WrongCount.

    `per`: how many tuples reach it for each root.
    """
    window = outcome.window
    if lost or duplicated:
        raise WrongCount(f"{name}: {lost} tuples lost, {duplicated} counted twice")
    if outcome.last.failed:
        raise WrongCount(f"{name}: {outcome.last.failed} trees failed")
    rate = window.executed[last]
    return result(
        name,
        workers=workers,
        acking=acking,
        tuples_per_s=round(rate),
        acked_per_s=round(window.acked * per) if acking else None,
        latency_ms=window.latency_ms if acking else None,
        cpu_s_per_million=round(window.cpu_s / window.seconds / rate * 1e6, 3),
        rss_mb_max=round(window.rss_mb, 1),
        lost=lost,
        duplicated=duplicated,
        seconds=round(window.seconds, 2),
        cores_used=round(window.cores, 2),
        cores_used_by_others=round(window.others_cpu_s / window.seconds, 2),
        cores_by_worker=[round(cpu / window.seconds, 2) for cpu in window.cpu_by_worker.values()],
    )
