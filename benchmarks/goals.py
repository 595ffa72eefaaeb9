"""What rainband set out to reach, and whether what was measured reaches it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from benchmarks.compare import (
    CHAIN,
    FEW_CORES,
    FLOOR,
    PYTHON_BOLTS,
    RAINBAND,
    STORM,
    STREAMPARSE,
    WORD_COUNT,
    WORD_COUNT_FREE,
    Score,
)
from benchmarks.results import Result

Own = Mapping[str, Result]
Rounds = Sequence[float]


@dataclass(frozen=True, slots=True)
class Goal:
    """`seen` None: not measured. `must` 0: an aim only. `unit` "×" for ratios. `most`: less is better.

    `few_cores`: what is seen when Storm may also run with a profile made for this machine.
    """

    text: str
    seen: float | None
    must: float
    aim: float | None = None
    unit: str = "×"
    most: bool = False
    few_cores: float | None = None

    @property
    def verdict(self) -> str:
        if self.seen is None:
            return "not measured"
        if self.aim is not None and self.reaches(self.aim):
            return "reached, and what was aimed for"
        if not self.must:
            return "short of the aim"
        return "reached" if self.reaches(self.must) else "**behind**"

    def reaches(self, bound: float) -> bool:
        assert self.seen is not None
        return self.seen <= bound if self.most else self.seen >= bound


def goals(own: Own, scores: Sequence[Score]) -> list[Goal]:
    """Everything, measured or not, in the order of the page. Storm has its defaults or storm-perf's tuning."""
    usual = against_others(Table([score for score in scores if not score.title.startswith(FEW_CORES)]))
    strongest = against_others(Table(scores))
    pairs = zip(usual, strongest, strict=True)
    return [*(replace(goal, few_cores=other.seen) for goal, other in pairs), *of_ours(own)]


class Table:
    """Scores by contest, engine and words of the title."""

    def __init__(self, scores: Sequence[Score]) -> None:
        self.scores = scores

    def rate(self, contest: str, engine: str, *words: str, without: str = "\0") -> Rounds:
        """Those that fit: the rates of the one with the best median."""
        found = self._fitting(contest, engine, words, without)
        return max(found, key=lambda score: score.rate).rates if found else ()

    def cpu(self, contest: str, engine: str, *words: str, without: str = "\0") -> Rounds:
        """Those that fit: CPU seconds per million of the one with the lowest median."""
        found = self._fitting(contest, engine, words, without)
        return min(found, key=lambda score: score.cpu).cpu_s_per_million if found else ()

    def _fitting(self, contest: str, engine: str, words: Sequence[str], without: str) -> list[Score]:
        return [
            score
            for score in self.scores
            if score.contest == contest and score.engine == engine and score.rates
            and all(word in score.title for word in words) and without not in score.title
        ]  # fmt: skip


def over(values: Rounds, others: Rounds) -> float | None:
    """The median of the ratios within each round that both have: the machine is not equally fast in all of them."""
    ratios = [value / other for value, other in zip(values, others, strict=False) if other]
    return median(ratios) if ratios else None


def best(*each: Rounds) -> Rounds:
    return max(each, key=lambda rounds: median(rounds) if rounds else 0.0)


def against_others(table: Table) -> list[Goal]:
    one = table.rate(WORD_COUNT, RAINBAND, "1 worker", without=",")
    two = table.rate(WORD_COUNT, RAINBAND, "2 workers", without=",")
    one_cpu = table.cpu(WORD_COUNT, RAINBAND, "1 worker", without=",")
    two_cpu = table.cpu(WORD_COUNT, RAINBAND, "2 workers", without=",")
    plain = table.rate(WORD_COUNT, RAINBAND, "uncompiled")
    storm = table.rate(WORD_COUNT, STORM)
    floor = table.cpu(WORD_COUNT_FREE, FLOOR)
    free = table.rate(WORD_COUNT_FREE, RAINBAND)
    bytewax = table.rate(WORD_COUNT_FREE, "bytewax", without="batches")
    streamparse = table.rate(WORD_COUNT, PYTHON_BOLTS, STREAMPARSE)
    pipes = table.rate(WORD_COUNT, PYTHON_BOLTS, without=STREAMPARSE)
    storm_two = table.rate(WORD_COUNT, STORM, "2 workers")
    storm_free = table.rate(WORD_COUNT_FREE, STORM)
    batch = table.rate(WORD_COUNT, RAINBAND, "execute_batch")
    chain_one = over(table.rate(CHAIN, RAINBAND, "1 worker"), table.rate(CHAIN, STORM, "1 worker"))
    chain_two = over(table.rate(CHAIN, RAINBAND, "2 workers"), table.rate(CHAIN, STORM, "2 workers"))
    storm_cpu = over(table.cpu(WORD_COUNT, STORM, "1 worker"), one_cpu)
    return [
        Goal("word count, acked, best number of workers of each, of Storm's best", over(best(one, two), storm), 1, 1.5),
        Goal("word count, acked, 1 worker, per CPU second, of Storm's best", storm_cpu, 1.5, 2),
        Goal("the same, of the bare Python loop (an aim only)", over(floor, one_cpu), 0, 0.4),
        Goal("word count, acked, 2 workers, of Storm's best with 2 workers", over(two, storm_two), 2, 4),
        Goal("word count, acked, CPU-s/M with 2 workers, of 1 worker", over(two_cpu, one_cpu), 1.5, most=True),
        Goal("word count, acked, rate with 2 workers, of 1 worker (an aim only)", over(two, one), 0, 1),
        Goal("word count, no acking, best of each, of Storm's best", over(free, storm_free), 0.6, 1),
        Goal("word count, no acking, of bytewax", over(free, bytewax), 4),
        Goal("word count by execute_batch, acked, of Storm's best", over(batch, storm), 1.5, 3),
        Goal("chain, acked, 1 worker, of Storm's best with 1 worker", chain_one, 2, 4),
        Goal("chain, acked, 2 workers, of Storm's best with 2 workers", chain_two, 1.5, 3),
        Goal("uncompiled word count, acked, 1 worker, of Storm's best", over(plain, storm), 0.25, 0.4),
        Goal("the same, of motorway", over(plain, table.rate(WORD_COUNT, "motorway")), 30),
        Goal("the same, of Storm with Python bolts as streamparse runs them", over(plain, streamparse), 50),
        Goal("the same, of a bare loop of json on Storm's pipes (an aim only)", over(plain, pipes), 0, 50),
    ]


def of_ours(own: Own) -> list[Goal]:
    one, two = latency(own, "one-by-one, 1 worker", "p50"), latency(own, "one-by-one, 2 workers", "p50")
    half = latency(own, "latency, 2 workers", "p99")
    placed, lost = figure(own, "scheduler", "placed_s"), figure(own, "scheduler", "supervisor_lost_s")
    return [
        Goal("one tuple at a time, 1 worker, median", one, 0.3, 0.1, "ms", most=True),
        Goal("one tuple at a time, 2 workers, median", two, 1, 0.3, "ms", most=True),
        Goal("p99 at half of the top rate, 2 workers", half, 5, 2, "ms", most=True),
        Goal("idle worker, resident memory", figure(own, "idle", "rss_mb_max"), 60, None, "MB", most=True),
        Goal("per pending tree, at a million", figure(own, "trees", "bytes_per_tree"), 200, 120, "B", most=True),
        Goal("growth of memory while overloaded, last over first sample", growth(own), 1.1, None, "×", most=True),
        Goal("CPU per tuple with 1,000 tasks, of 10 tasks, 2 workers", times(own), 1.3, 1.1, "×", most=True),
        Goal("submit to first acked tuple, 1 worker", start(own, "start, 1 worker"), 2, 1, "s", most=True),
        Goal("submit to first acked tuple, 2 workers", start(own, "start, 2 workers"), 2, 1, "s", most=True),
        Goal("placing 10,000 executors on 1,000 supervisors", placed, 1, None, "s", most=True),
        Goal("placing anew what a lost supervisor ran", lost, 0.1, None, "s", most=True),
    ]


def figure(own: Own, name: str, key: str) -> float | None:
    return float(own[name][key]) if name in own else None


def latency(own: Own, name: str, which: str) -> float | None:
    return float(own[name]["latency_ms"][which]) if name in own else None


def growth(own: Own) -> float | None:
    if "overload" not in own:
        return None
    samples = own["overload"]["rss_mb"]
    return float(samples[-1] / samples[0])


def times(own: Own) -> float | None:
    return float(own["tasks"]["tasks"][-1]["times"]) if "tasks" in own else None


def start(own: Own, name: str) -> float | None:
    return float(own[name]["first_ack_s"]["median"]) if name in own else None
