"""A slow sink behind an unbounded spout: memory stays flat, nothing is dropped, times out or is replayed.

RAINBAND_LONG looks for 60 seconds at a message timeout of 30 (`make exact`), otherwise for 6 at one of 2.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import psutil
import pytest

from kit.compare import WRONGS, compare
from kit.placed import LONG, project_module
from rainband.local.cluster import LocalCluster, LocalRunning

loaded = project_module("loaded")
LOOK_FOR_S = 60.0 if LONG else 6.0
WARM_UP_S = 15.0 if LONG else 2.0
TIMEOUT_S = 30.0 if LONG else 2.0
WORK_S = 0.01
FLAT = 0.10
BLOCKED = 0.8


def watch(running: LocalRunning, seconds: float) -> tuple[dict[int, list[int]], dict[int, float]]:
    """Resident bytes of each worker four times a second, and the share of a core it took."""
    found = [psutil.Process(worker.pid) for worker in running.statistics().workers]
    began = time.monotonic()
    before = {process.pid: sum(process.cpu_times()[:2]) for process in found}
    sizes: dict[int, list[int]] = {process.pid: [] for process in found}
    while time.monotonic() < began + seconds:
        for process in found:
            sizes[process.pid].append(process.memory_info().rss)
        running.statistics()
        time.sleep(0.25)
    took = time.monotonic() - began
    return sizes, {process.pid: (sum(process.cpu_times()[:2]) - before[process.pid]) / took for process in found}


@pytest.mark.parametrize("tracked", [True, False], ids=["acked", "untracked"])
def test_a_slow_sink_holds_back_an_unbounded_spout(tracked: bool, tmp_path: Path) -> None:
    topology = loaded.flooded(str(tmp_path), tracked, WORK_S, {"topology.message.timeout.secs": TIMEOUT_S})
    with LocalCluster(processes=True, supervisors=1, slots=2) as cluster:
        running = cluster.submit(topology)
        running.wait_running(30)
        began = time.monotonic()
        watch(running, WARM_UP_S)
        sizes, cores = watch(running, LOOK_FOR_S)
        rate = (tmp_path / "sunk-slow-0").read_bytes().count(b"\n") / (time.monotonic() - began)
        now = running.statistics()
        blocked_s = sum(edge.blocked_s for worker in now.workers for edge in worker.edges)
        print(f"\ntracked={tracked}: {rate:.0f} tuples/s, blocked {blocked_s:.1f} s, pending {now.pending}")
        (tmp_path / "end").touch()
        (tmp_path / "hurry").touch()
        end = running.wait_drained(60)
        running.kill(wait_s=0)
    for pid, found in sizes.items():
        low, high = min(found), max(found)
        print(f"  worker {pid}: {low / 1e6:.2f}..{high / 1e6:.2f} MB, {100 * cores[pid]:.0f} % of a core")
        middle = statistics.median(found)
        assert middle * (1 - FLAT) <= low <= high <= middle * (1 + FLAT)
    told = json.loads((tmp_path / "told").read_text())
    verdict = compare(tmp_path, "slow", told["sent"], tasks=1)
    print(f"  {told} {verdict}")
    assert not any(verdict[wrong] for wrong in WRONGS), verdict
    assert told["acked"] == (told["sent"] if tracked else 0)
    assert told["failed"] == end.failed == end.timed_out == end.replayed == end.errors == 0
    assert rate <= 1 / WORK_S
    if not tracked:
        assert blocked_s >= BLOCKED * LOOK_FOR_S
