"""How much memory: of an idle worker, of a pending tree, and over time under more load than can be borne."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from benchmarks.harness import READY_S, TOPOLOGIES, Cluster, Wish, drain, measure, peak_rss_mb, status_mb
from benchmarks.results import Result, WrongCount, result
from rainband.topology.bundle import load_topology

TREES = 1_000_000
SAMPLES = 10


def idle(cluster: Cluster, wish: Wish) -> Result:
    """A topology that does nothing: memory and CPU of its worker and of the daemons."""
    topology = load_topology(TOPOLOGIES / "first.py", "idle")
    with cluster.running(topology, wish.config) as running:
        time.sleep(wish.warm_up_s)
        window = measure(running, cluster.fresh_directory(), wish.seconds)
        pids = [worker.pid for worker in running.statistics().workers]
        rss = max(status_mb(pid, "VmRSS") for pid in pids)
    daemons = {name: round(status_mb(child.pid, "VmRSS"), 1) for name, child in cluster.daemons.children.items()}
    return result(
        "idle",
        workers=wish.workers,
        acking=wish.acking,
        rss_mb_max=round(rss, 1),
        lost=0,
        duplicated=0,
        worker_cpu_share=round(window.cores / wish.workers, 4),
        daemons_rss_mb=daemons,
    )


def trees(cluster: Cluster, wish: Wish) -> Result:
    """Memory per pending tree, its tuple and the book included, at a million of them; in a process of its own."""
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "benchmarks.trees", str(TREES)],
        env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    return result("trees", workers=1, acking=True, lost=0, duplicated=0, **found)


def overload(cluster: Cluster, wish: Wish) -> Result:
    """A spout that outruns its bolt by far: does memory stay flat, does anything fail?"""
    directory = cluster.fresh_directory()
    topology = load_topology(TOPOLOGIES / "slow.py", "topology", [str(directory)])
    rss: list[float] = []
    with cluster.running(topology, wish.config) as running:
        running.wait_until(lambda s: s.acked > 0, READY_S)
        time.sleep(wish.warm_up_s)
        window = None
        for _ in range(SAMPLES):
            window = measure(running, directory, wish.seconds / SAMPLES)
            pids = [worker.pid for worker in running.statistics().workers]
            rss.append(round(sum(status_mb(pid, "VmRSS") for pid in pids), 1))
        peak = max(peak_rss_mb(pid) for pid in pids)
        last = drain(running)
    if last.failed or window is None:
        raise WrongCount(f"overload: {last.failed} trees failed")
    missing = last.emitted - last.components["sink"].executed
    return result(
        "overload",
        workers=wish.workers,
        acking=wish.acking,
        tuples_per_s=round(window.executed["sink"]),
        acked_per_s=round(window.acked),
        latency_ms=window.latency_ms,
        rss_mb_max=round(peak, 1),
        lost=max(0, missing),
        duplicated=max(0, -missing),
        seconds=wish.seconds,
        rss_mb=rss,
    )
