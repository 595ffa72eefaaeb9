"""Every benchmark by name: what runs it, and how many slots and supervisors its cluster has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks import control, latency, memory, startup, throughput
from benchmarks.harness import Cluster, Wish
from benchmarks.results import Result


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What runs it, with how many workers and how long unless told otherwise. `supervisors` 0: Nimbus alone."""

    run: Callable[[Cluster, Wish], Result]
    workers: int = 1
    seconds: float = 10.0
    supervisors: int = 1


BENCHMARKS: dict[str, Benchmark] = {
    "word-count": Benchmark(throughput.word_count),
    "word-count-batch": Benchmark(partial(throughput.word_count, door="batch", name="word-count-batch")),
    "chain": Benchmark(throughput.chain),
    "fan-out": Benchmark(throughput.fan_out),
    "fan-in": Benchmark(throughput.fan_in),
    "skew": Benchmark(throughput.skew, seconds=5.0),
    "one-by-one": Benchmark(latency.one_by_one, seconds=5.0),
    "latency": Benchmark(latency.latency, seconds=5.0),
    "size": Benchmark(throughput.size, workers=2, seconds=5.0),
    "columns": Benchmark(throughput.columns, workers=2, seconds=5.0),
    "pending": Benchmark(throughput.pending, seconds=5.0),
    "workers": Benchmark(throughput.workers, workers=16, seconds=5.0),
    "tasks": Benchmark(throughput.tasks, workers=2, seconds=5.0),
    "idle": Benchmark(memory.idle, seconds=5.0),
    "trees": Benchmark(memory.trees, supervisors=0),
    "overload": Benchmark(memory.overload, workers=2, seconds=20.0),
    "start": Benchmark(startup.start),
    "test": Benchmark(startup.in_process, supervisors=0),
    "cli": Benchmark(startup.command_line),
    "scheduler": Benchmark(control.scheduler, workers=control.SUPERVISORS, supervisors=0),
    "nimbus": Benchmark(control.nimbus, workers=control.TOPOLOGIES * control.WORKERS, supervisors=0),
}


def measure(name: str, **settings: Any) -> Result:
    """One benchmark on a fresh cluster; what is not in `settings` (see Wish) is the benchmark's own choice."""
    found = BENCHMARKS[name]
    wish = Wish(**{"workers": found.workers, "seconds": found.seconds, **settings})
    with Cluster(slots=wish.workers if found.supervisors else 1, supervisors=found.supervisors) as cluster:
        return found.run(cluster, wish)
