"""A cluster to measure: Nimbus, a supervisor and worker processes as users have them, on free ports of this machine.

`Cluster.run(...)` submits one topology, warms it up, measures a window, lets it drain and ends it. Rates come from the
workers' own counters and clocks, CPU time and memory from /proc. Linux only.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from benchmarks.peers.processes import cpu_seconds, machine_busy_seconds
from benchmarks.results import WrongCount, percentiles
from rainband.nimbus.client import Client, Running
from rainband.records import Statistics, WorkerBeat
from rainband.supervisor.embedded import EmbeddedCluster
from rainband.topology.bundle import load_topology
from rainband.topology.graph import Topology

TOPOLOGIES = Path(__file__).resolve().parent / "topologies"
READY_S = 60.0
DRAIN_S = 60.0
POLL_S = 0.02

Counts = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a benchmark is asked for: how many workers, with acks or without, how long."""

    workers: int = 1
    acking: bool = True
    seconds: float = 10.0
    warm_up_s: float = 3.0

    @property
    def config(self) -> dict[str, object]:
        """Settings of the topology."""
        found: dict[str, object] = {"topology.workers": self.workers}
        return found if self.acking else found | {"topology.acker.executors": 0}

    @property
    def flag(self) -> str:
        """The argument of a topology that says whether its spouts track what they emit."""
        return "yes" if self.acking else "no"


@dataclass(frozen=True, slots=True)
class Window:
    """What happened between two moments after warm-up. Counts by component; `rates` are per second."""

    seconds: float
    executed: Mapping[str, float]
    emitted: Mapping[str, float]
    acked: float
    failed: int
    complete_s: float
    cpu_s: float
    others_cpu_s: float
    cpu_by_worker: Mapping[int, float]
    rss_mb: float
    latency_ms: dict[str, float] | None = None
    counters: Counts = field(default_factory=dict)

    @property
    def cores(self) -> float:
        return self.cpu_s / self.seconds


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run: the window, the last statistics, and what each task wrote as {file stem: totals}."""

    window: Window
    last: Statistics
    totals: Mapping[str, Mapping[str, Any]]

    def sum(self, component: str, name: str) -> int:
        """A total over the tasks of one component."""
        return sum(int(totals.get(name, 0)) for totals in self.of(component))

    def of(self, component: str) -> list[Mapping[str, Any]]:
        return [totals for stem, totals in sorted(self.totals.items()) if stem.rpartition("-")[0] == component]


class Cluster:
    """Use with `with`. `slots` is how many workers may run."""

    def __init__(self, slots: int = 2, *, supervisors: int = 1, settings: Mapping[str, object] | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="rainband-bench-"))
        self.daemons = EmbeddedCluster(
            self.directory / "cluster", supervisors=supervisors, slots=slots, settings=settings
        )
        self.client: Client
        self.rounds = 0
        self.ready_s = 0.0

    def __enter__(self) -> Self:
        began = time.monotonic()
        try:
            self.daemons.start()
            self.ready_s = time.monotonic() - began
            self.client = Client(self.daemons.address)
        except BaseException:
            shutil.rmtree(self.directory, ignore_errors=True)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        try:
            self.daemons.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def fresh_directory(self) -> Path:
        """Where the tasks of one run write their totals."""
        self.rounds += 1
        path = self.directory / f"totals-{self.rounds}"
        path.mkdir()
        return path

    @contextlib.contextmanager
    def running(self, topology: Topology, config: Mapping[str, object]) -> Iterator[Running]:
        """Submit, wait until it runs; killed at the end, and its workers gone."""
        name = f"{topology.name}-{self.rounds}"
        running = self.client.submit(topology, config=config, name=name)
        try:
            running.wait_running(READY_S)
            yield running
        finally:
            running.kill(wait_s=0)

    def run(
        self,
        file: str,
        arguments: Sequence[str],
        wish: Wish,
        *,
        function: str = "topology",
        config: Mapping[str, object] | None = None,
        feed: contextlib.AbstractContextManager[object] | None = None,
    ) -> Outcome:
        """One measured run of what `function` in topologies/FILE makes of a fresh directory and `arguments`.

        `feed` is open while it is measured.
        """
        directory = self.fresh_directory()
        topology = load_topology(TOPOLOGIES / file, function, [str(directory), *arguments])
        with self.running(topology, wish.config | dict(config or {})) as running:
            with feed or contextlib.nullcontext():
                time.sleep(wish.warm_up_s)
                window = measure(running, directory, wish.seconds)
            last = drain(running)
            pids = [worker.pid for worker in last.workers]
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), DRAIN_S, "the workers did not end")
        if last.errors or last.restarts:
            raise WrongCount(f"{last.errors} errors in components, {last.restarts} restarts of workers")
        return Outcome(window, last, read_totals(directory))


def wait_until(condition: Callable[[], object], timeout_s: float, complaint: str) -> None:
    """Poll a condition; raises TimeoutError."""
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"{complaint} within {timeout_s:g} s")
        time.sleep(POLL_S)


def read_totals(directory: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))}


def fresh_beats(running: Running) -> Statistics:
    """Statistics that hold a report of each worker made after this call; a report comes each second."""
    before = {worker.pid: worker.uptime_s for worker in running.statistics().workers}
    return running.wait_until(
        lambda s: all(worker.uptime_s > before.get(worker.pid, -1.0) for worker in s.workers), timeout_s=10.0
    )


def measure(running: Running, directory: Path, seconds: float) -> Window:
    """Watch for that long."""
    first = fresh_beats(running)
    pids = [worker.pid for worker in first.workers]
    cpu, began, busy = cpu_of(pids), time.monotonic(), machine_busy_seconds()
    latency = latencies(directory)
    time.sleep(max(0.0, seconds - 0.5))
    last = fresh_beats(running)
    cpu_after, elapsed = cpu_of(pids), time.monotonic() - began
    busy = machine_busy_seconds() - busy
    if sorted(pids) != sorted(worker.pid for worker in last.workers):
        raise WrongCount("a worker was replaced within the window")
    after = latencies(directory)
    used = {pid: cpu_after[pid] - cpu[pid] for pid in pids}
    total = sum(used.values())
    return Window(
        seconds=elapsed,
        executed=rates(first, last, "executed"),
        emitted=rates(first, last, "emitted"),
        acked=sum(rate for name, rate in rates(first, last, "acked").items() if name in spouts(last)),
        failed=last.failed - first.failed,
        complete_s=last.complete_s - first.complete_s,
        cpu_s=total,
        others_cpu_s=max(0.0, busy - total),
        cpu_by_worker=used,
        rss_mb=max(peak_rss_mb(pid) for pid in pids),
        latency_ms=percentiles({at: count - latency.get(at, 0) for at, count in after.items()}),
        counters={name: value - first.counters.get(name, 0) for name, value in last.counters.items()},
    )


def spouts(statistics: Statistics) -> set[str]:
    """Components that track roots of their own."""
    return {task.component for worker in statistics.workers for task in worker.tasks if task.tracked}


def rates(first: Statistics, last: Statistics, counter: str) -> dict[str, float]:
    """Per second and component, each worker by its own clock."""
    before = {worker.pid: worker for worker in first.workers}
    found: dict[str, float] = {}
    for worker in last.workers:
        old = before[worker.pid]
        elapsed = worker.uptime_s - old.uptime_s
        for name, more in _by_component(worker, counter).items():
            found[name] = found.get(name, 0.0) + (more - _by_component(old, counter).get(name, 0)) / elapsed
    return found


def _by_component(worker: WorkerBeat, counter: str) -> dict[str, int]:
    sums: dict[str, int] = {}
    for task in worker.tasks:
        sums[task.component] = sums.get(task.component, 0) + int(getattr(task, counter))
    return sums


def latencies(directory: Path) -> dict[int, int]:
    """All sampled latencies so far: microseconds and how often."""
    found: dict[int, int] = {}
    for totals in read_totals(directory).values():
        for micros, count in totals.get("latency_us", {}).items():
            found[int(micros)] = found.get(int(micros), 0) + int(count)
    return found


def drain(running: Running) -> Statistics:
    """Pause the spouts and wait until nothing is under way."""
    running.deactivate()
    return running.wait_until(is_quiet, DRAIN_S)


def is_quiet(statistics: Statistics) -> bool:
    return statistics.pending == 0 and all(
        worker.paused and worker.in_flight == 0 and not any(task.queued for task in worker.tasks)
        for worker in statistics.workers
    )


def cpu_of(pids: Sequence[int]) -> dict[int, float]:
    """User plus system seconds of each process so far."""
    return {pid: cpu_seconds([pid]) for pid in pids}


def peak_rss_mb(pid: int) -> float:
    return status_mb(pid, "VmHWM")


def status_mb(pid: int, name: str) -> float:
    """A memory figure of /proc/PID/status in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0
