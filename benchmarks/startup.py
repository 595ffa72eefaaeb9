"""How soon: from submit to the first acked tuple, a test of a whole topology, the command line."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from benchmarks.harness import TOPOLOGIES, Cluster, Wish, wait_until
from benchmarks.results import Result, WrongCount, result
from rainband import Bolt, Spout, Topology, TopologyBuilder, Tuple
from rainband.testing import complete_topology
from rainband.topology.bundle import load_topology

ROUNDS = 5
FIRST_S = 60.0


def start(cluster: Cluster, wish: Wish) -> Result:
    """Seconds from submit to the first ack; `cluster_s`: from nothing to a cluster that takes submissions."""
    found = sorted(first_ack_s(cluster, wish) for _ in range(ROUNDS))
    return result(
        "start",
        workers=wish.workers,
        acking=wish.acking,
        lost=0,
        duplicated=0,
        first_ack_s={"median": statistics.median(found), "worst": found[-1]},
        cluster_s=round(cluster.ready_s, 3),
    )


def first_ack_s(cluster: Cluster, wish: Wish) -> float:
    directory = cluster.fresh_directory()
    topology = load_topology(TOPOLOGIES / "first.py", "topology", [str(directory)])
    told = directory / "acked"
    began = time.monotonic_ns()
    with cluster.running(topology, wish.config):
        wait_until(told.exists, FIRST_S, "no tuple was acked")
        return round((int(told.read_text()) - began) / 1e9, 3)


class Split(Bolt):
    """A line into its words."""

    outputs = ("word",)

    def execute(self, tup: Tuple) -> None:
        for word in tup["line"].split():
            self.emit([word])


class Count(Bolt):
    """How often each word came."""

    outputs = ("word", "count")

    def prepare(self, context: object) -> None:
        self.counts: dict[str, int] = {}

    def execute(self, tup: Tuple) -> None:
        word = tup["word"]
        self.counts[word] = self.counts.get(word, 0) + 1
        self.emit([word, self.counts[word]])


def counting() -> Topology:
    builder = TopologyBuilder("counting")
    builder.set_bolt("split", Split(), parallelism=2).shuffle_grouping("lines")
    builder.set_bolt("count", Count(), parallelism=2).fields_grouping("split", ["word"])
    builder.set_spout("lines", Lines())
    return builder.create_topology()


class Lines(Spout):
    """Stands for a spout, which the test replaces by rows."""

    outputs = ("line",)

    def next_tuple(self) -> None:
        self.finish()


def in_process(cluster: Cluster, wish: Wish) -> Result:
    """complete_topology of a word count of three lines, building included; the first call and the median of others."""
    taken: list[float] = []
    for _ in range(1 + 4 * ROUNDS):
        began = time.perf_counter()
        rows = {"lines": [["a b"], ["a"], ["c a"]]}
        completed = complete_topology(counting(), sources=rows, config=wish.config)
        taken.append(time.perf_counter() - began)
        if sorted(completed.emitted("split")) != [("a",), ("a",), ("a",), ("b",), ("c",)]:
            raise WrongCount("complete_topology split wrongly")
    milliseconds = {"first": round(taken[0] * 1e3, 1), "median": round(statistics.median(taken[1:]) * 1e3, 1)}
    return result(
        "test", workers=wish.workers, acking=wish.acking, lost=0, duplicated=0, complete_topology_ms=milliseconds
    )


def command_line(cluster: Cluster, wish: Wish) -> Result:
    """Milliseconds of `rainband --version`, `--help` and `list`, median and CPU."""
    commands = {
        "version": ["--version"],
        "help": ["--help"],
        "list": ["list", "--nimbus", cluster.daemons.address],
    }
    taken = {name: command_ms(arguments) for name, arguments in commands.items()}
    return result("cli", workers=wish.workers, acking=wish.acking, lost=0, duplicated=0, command_ms=taken)


def command_ms(arguments: list[str]) -> dict[str, float]:
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths}
    walls: list[float] = []
    before = os.times()
    for _ in range(ROUNDS):
        began = time.perf_counter()
        command = [sys.executable, "-P", "-m", "rainband", *arguments]
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
        walls.append(time.perf_counter() - began)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"median": round(statistics.median(walls) * 1e3, 1), "cpu": round(cpu / ROUNDS * 1e3, 1)}
