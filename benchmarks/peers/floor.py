"""The floor: the Split and Count of the word count as nested calls in a bare Python loop, without any engine.

What the language itself allows on one core: no tuple, no queue, no tracking, no second process. An engine
that runs Python components cannot be faster, and its distance from here is its own cost.

    python -m benchmarks.peers.floor --seconds 10 --json
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable

from benchmarks.peers.command import main, parser
from benchmarks.peers.corpus import corpus
from benchmarks.peers.processes import machine_busy_seconds
from benchmarks.peers.rows import Window, WrongCount, row

BENCHES = ("word-count", "chain")


class Count:
    """How often each word came."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def execute(self, word: str) -> None:
        self.counts[word] = self.counts.get(word, 0) + 1


class Split:
    """A line into words, each handed to the next component."""

    def __init__(self, emit: Callable[[str], None]) -> None:
        self.emit = emit

    def execute(self, line: str) -> None:
        for word in line.split():
            self.emit(word)


class Id:
    """What came in goes out."""

    def __init__(self, emit: Callable[[str], None]) -> None:
        self.emit = emit

    def execute(self, value: str) -> None:
        self.emit(value)


class Null:
    """The end of the chain."""

    def __init__(self) -> None:
        self.reached = 0

    def execute(self, value: str) -> None:
        self.reached += 1


def word_count_pass() -> int:
    """All lines once from an empty book; the number of words."""
    text = corpus()
    count = Count()
    execute = Split(count.execute).execute
    for line in text.lines:
        execute(line)
    if len(count.counts) != text.distinct:
        raise WrongCount("the bare loop miscounted")
    return text.words


def chain_pass() -> int:
    """A million values; the number that reached the end."""
    null = Null()
    execute = Id(null.execute).execute
    for _ in range(1_000_000):
        execute("some data")
    return null.reached


def run(bench: str, *, workers: int = 1, acking: bool = False, seconds: float = 10.0) -> dict[str, object]:
    """Whole passes for about that long, after one that warms up."""
    if acking or workers != 1:
        raise ValueError("the floor has no acks and one worker")
    one_pass = {"word-count": word_count_pass, "chain": chain_pass}[bench]
    one_pass()
    reached = 0
    began, cpu_began, busy = time.perf_counter(), time.process_time(), machine_busy_seconds()
    while time.perf_counter() - began < seconds:
        reached += one_pass()
    elapsed, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    others = max(0.0, machine_busy_seconds() - busy - cpu_s)
    window = Window(elapsed, reached, None, cpu_s, others_cpu_s=others)
    return row(bench, "floor", platform.python_version(), 1, window, {})


if __name__ == "__main__":
    raise SystemExit(main(parser("floor", BENCHES), run))
