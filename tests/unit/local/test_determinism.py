"""The same seed gives the same run, in every process; another seed another one."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rainband.build
from kit.parts import Pass, ReliableNumbers, Sink, Twice
from rainband.local.cluster import LocalCluster
from rainband.topology.builder import TopologyBuilder

TESTS = Path(__file__).resolve().parent.parent.parent


def trace(seed: int) -> str:
    """The hash of all that happened, with a kill and a move on the way."""
    builder = TopologyBuilder("trace", config={"topology.workers": 3})
    builder.set_spout("numbers", ReliableNumbers(300), parallelism=2)
    builder.set_bolt("twice", Twice(), parallelism=3).shuffle_grouping("numbers")
    builder.set_bolt("pass", Pass(), parallelism=2).partial_key_grouping("twice", ["n"])
    builder.set_bolt("sink", Sink(), parallelism=3).fields_grouping("pass", ["n"])
    with LocalCluster(virtual_clock=True, record=True, seed=seed) as cluster:
        running = cluster.submit(builder.create_topology())
        cluster.advance(0.1)
        cluster.kill_worker("pass")
        cluster.advance(0.6)
        running.rebalance(workers=2, parallelism={"sink": 1})
        statistics = running.wait_drained(timeout_s=60)
        assert {row[0] for row in running.executed("sink")} == set(range(300))
        told = (running.events(), sorted(statistics.counters.items()), statistics.acked, statistics.failed, cluster.now)
    return hashlib.sha256(repr(told).encode()).hexdigest()


def test_the_same_seed_the_same_run() -> None:
    assert trace(7) == trace(7)
    assert trace(8) != trace(7)


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_same_in_another_process(hash_seed: str) -> None:
    path = os.pathsep.join([str(Path(rainband.build.__file__).parent.parent), str(TESTS), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", "import test_determinism; print(test_determinism.trace(7))"],
        env={"PYTHONPATH": path, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == trace(7)
