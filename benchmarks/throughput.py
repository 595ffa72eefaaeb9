"""How many tuples per second, from a spout that always has more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchmarks.harness import Cluster, Outcome, Wish
from benchmarks.peers.corpus import corpus, lines_file
from benchmarks.results import Result, WrongCount, result

SIZES = (100, 10_000, 1_000_000)
ARRAYS = (8_000, 800_000)
TASKS = (10, 100, 1000)
TASK_ROUNDS = 3
PENDING = (1, 1000, 1_000_000)


def word_count(cluster: Cluster, wish: Wish, *, door: str = "each", name: str = "word-count") -> Result:
    """Words counted: 1 spout, 2 split, 2 count. `door`: "each" calls execute, "batch" execute_batch."""
    outcome = cluster.run("words.py", [wish.flag, str(lines_file()), door], wish)
    lost, duplicated = miscounted(outcome)
    window = outcome.window
    per = window.executed["count"] / window.executed["split"]
    return row(name, outcome, "count", wish, lost=lost, duplicated=duplicated, per=per)


def chain(cluster: Cluster, wish: Wish, *, config: Mapping[str, object] | None = None) -> Result:
    """Tuples that reach the last of const -> id -> null."""
    outcome = cluster.run("chain.py", [wish.flag], wish, config=config)
    return into("null", "chain", outcome, "const", wish)


def fan_out(cluster: Cluster, wish: Wish, *, receivers: int = 16) -> Result:
    """Tuples that reach 16 bolts by all grouping."""
    outcome = cluster.run("fans.py", [wish.flag, str(receivers)], wish, function="fan_out")
    return into("sink", "fan-out", outcome, "numbers", wish, times=receivers)


def fan_in(cluster: Cluster, wish: Wish, *, senders: int = 8) -> Result:
    """Tuples of 8 spouts that reach one bolt by global grouping."""
    outcome = cluster.run("fans.py", [wish.flag, str(senders)], wish, function="fan_in")
    return into("sink", "fan-in", outcome, "numbers", wish)


def skew(cluster: Cluster, wish: Wish) -> Result:
    """Keys by Zipf's law to 4 bolts, by fields grouping and by partial key; `imbalance`: the fullest over the mean."""
    found: dict[str, Result] = {}
    for grouping in ("fields", "partial_key"):
        outcome = cluster.run("fans.py", [wish.flag, grouping], wish, function="skew")
        found[grouping] = into("sink", "skew", outcome, "keys", wish)
        shares = [totals["reached"] for totals in outcome.of("sink")]
        found[grouping]["imbalance"] = round(max(shares) * len(shares) / sum(shares), 2)
    return found["fields"] | {"partial_key": part(found["partial_key"], "imbalance")}


def size(cluster: Cluster, wish: Wish) -> Result:
    """Values of 100 B, 10 kB and 1 MB through three components."""
    return by_size(cluster, wish, "size", "blocks", SIZES)


def columns(cluster: Cluster, wish: Wish) -> Result:
    """numpy arrays of 8 kB and 800 kB through three components."""
    return by_size(cluster, wish, "columns", "columns", ARRAYS)


def by_size(cluster: Cluster, wish: Wish, name: str, function: str, sizes: Sequence[int]) -> Result:
    runs = []
    for each in sizes:
        outcome = cluster.run("values.py", [wish.flag, str(each)], wish, function=function)
        found = into("sink", name, outcome, "source", wish)
        if outcome.sum("sink", "bytes") != each * outcome.sum("sink", "reached"):
            raise WrongCount(f"{name}: not as many bytes came as were sent")
        megabytes = found["tuples_per_s"] * each / 1e6
        cpu_s = found["cpu_s_per_million"] * 1e3 / each
        run = {"bytes": each, "mb_per_s": round(megabytes, 1), "cpu_s_per_gb": round(cpu_s, 3)}
        runs.append(run | part(found, "rss_mb_max"))
    return found | {"sizes": runs}


def tasks(cluster: Cluster, wish: Wish, *, counts: Sequence[int] = TASKS) -> Result:
    """The word count over 10, 100 and 1,000 tasks; `times`: CPU seconds per million over those of the fewest.

    In rounds of all counts; of each count the run with the median of CPU seconds per million is told.
    """
    rounds = [[with_tasks(cluster, wish, each) for each in counts] for _ in range(TASK_ROUNDS)]
    medians = [middle(tried) for tried in zip(*rounds, strict=True)]
    runs: list[Result] = []
    for each, found in zip(counts, medians, strict=True):
        times = round(found["cpu_s_per_million"] / medians[0]["cpu_s_per_million"], 2)
        runs.append({"tasks": each} | part(found, "rss_mb_max") | {"times": times})
    return medians[-1] | {"tasks": runs}


def middle(tried: Sequence[Result]) -> Result:
    """Of several runs the one with the median of CPU seconds per million."""
    return sorted(tried, key=lambda found: float(found["cpu_s_per_million"]))[len(tried) // 2]


def with_tasks(cluster: Cluster, wish: Wish, count: int) -> Result:
    outcome = cluster.run("tasks.py", [str(lines_file()), str(count)], wish)
    missing = words_of(outcome.sum("lines", "emitted")) - outcome.sum("count", "reached")
    return row("tasks", outcome, "count", wish, lost=max(0, missing), duplicated=max(0, -missing))


def pending(cluster: Cluster, wish: Wish) -> Result:
    """The chain with at most 1, 1,000 and a million trees pending."""
    runs = []
    for each in PENDING:
        found = chain(cluster, wish, config={"topology.max.spout.pending": each})
        runs.append({"pending_max": each} | part(found, "rss_mb_max"))
    return found | {"name": "pending", "pending": runs}


def workers(cluster: Cluster, wish: Wish) -> Result:
    """The word count on 1, 2, 4 ... workers, up to those asked for."""
    runs = []
    count = 1
    while count <= wish.workers:
        found = word_count(cluster, replace(wish, workers=count), name="workers")
        runs.append({"workers": count} | part(found, "rss_mb_max"))
        count *= 2
    return found | {"workers_tried": runs}


def part(found: Result, *more: str) -> Result:
    """The figures of one of several runs."""
    return {name: found[name] for name in ("tuples_per_s", "latency_ms", "cpu_s_per_million", *more)}


def words_of(lines: int) -> int:
    """The words in the first so many lines of the corpus, read round and round."""
    text = corpus()
    rounds, rest = divmod(lines, len(text.lines))
    return rounds * text.words + sum(len(line.split()) for line in text.lines[:rest])


def miscounted(outcome: Outcome) -> tuple[int, int]:
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


def into(last: str, name: str, outcome: Outcome, source: str, wish: Wish, *, times: int = 1) -> Result:
    """The result where each tuple of `source` comes `times` to the component `last`."""
    missing = times * outcome.sum(source, "emitted") - outcome.sum(last, "reached")
    return row(name, outcome, last, wish, lost=max(0, missing), duplicated=max(0, -missing), per=times)


def row(
    name: str, outcome: Outcome, last: str, wish: Wish, *, lost: int, duplicated: int, per: float = 1.0
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
        workers=wish.workers,
        acking=wish.acking,
        tuples_per_s=round(rate),
        acked_per_s=round(window.acked * per) if wish.acking else None,
        latency_ms=window.latency_ms if wish.acking else None,
        cpu_s_per_million=round(window.cpu_s / window.seconds / rate * 1e6, 3),
        rss_mb_max=round(window.rss_mb, 1),
        lost=lost,
        duplicated=duplicated,
        seconds=round(window.seconds, 2),
        cores_used=round(window.cores, 2),
        cores_used_by_others=round(window.others_cpu_s / window.seconds, 2),
        cores_by_worker=[round(cpu / window.seconds, 2) for cpu in window.cpu_by_worker.values()],
    )
