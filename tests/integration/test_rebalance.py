"""A planned move under load, on real daemons: no replay, no failure, and what does not move stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.compare import WRONGS, compare
from kit.placed import project_module
from rainband.local.cluster import LocalCluster, LocalRunning
from rainband.records import Slot

loaded = project_module("loaded")
RATE = 1_000.0
MOVE_S = 5.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(processes=True, supervisors=2, slots=4) as made:
        yield made


def homes(running: LocalRunning) -> dict[int, tuple[Slot, int]]:
    """Where each task runs: its slot, and the pid of the worker there."""
    assignment = running.summary().assignment
    assert assignment is not None
    pids = {worker.port: worker.pid for worker in running.statistics().workers}
    return {
        task: (placement.slot, pids[placement.slot.port])
        for placement in assignment.placements
        for task in range(placement.executor.first, placement.executor.last + 1)
    }


def made(directory: Path, task: str) -> list[int]:
    """The pid of each process in which the task was made, in order."""
    return [int(pid) for pid in (directory / f"made-{task}").read_text().split()]


def wait_flowing(running: LocalRunning, more: int = 1000) -> None:
    acked = running.statistics().acked
    running.wait_until(lambda s: s.acked >= acked + more, 30)


CHANGES = [
    pytest.param(2, {"workers": 3}, id="2-to-3-workers"),
    pytest.param(3, {"workers": 1}, id="3-to-1-worker"),
    pytest.param(2, {"workers": 4, "parallelism": {"sink": 4}}, id="more-executors"),
]


@pytest.mark.parametrize(("workers", "change"), CHANGES)
def test_a_move_under_load_replays_nothing(
    workers: int, change: dict[str, object], cluster: LocalCluster, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name = f"moving-{request.node.callspec.id}"
    topology = loaded.moving(name, str(tmp_path), RATE, workers)
    running = cluster.submit(topology)
    running.wait_running(30)
    wait_flowing(running)
    before = homes(running)
    began = cluster.now
    running.rebalance(**change)  # type: ignore[arg-type]
    moved_s = cluster.now - began
    wait_flowing(running)
    after = homes(running)
    (tmp_path / "end").touch()
    end = running.wait_drained(30)
    running.kill(wait_s=0)
    moved = {task for task in before if before[task][0] != after[task][0]}
    stayed = set(before) - moved
    print(f"\n{name}: {len(moved)} of {len(before)} tasks moved in {moved_s:.2f} s")
    assert moved
    assert all(before[task][1] == after[task][1] for task in stayed)
    for component, tasks in topology.plan.tasks.items():
        for index, task in enumerate(tasks):
            if not component.startswith("__"):
                pids = [before[task][1], after[task][1]] if task in moved else [before[task][1]]
                assert made(tmp_path, f"{component}-{index}") == pids, (component, index)
    assert end.failed == end.timed_out == end.replayed == end.errors == end.restarts == 0
    check_numbers(tmp_path)
    assert moved_s < MOVE_S


def check_numbers(directory: Path) -> None:
    """Each number that was sent, once at the relays and once at the sinks."""
    sent = [int((directory / f"sent-steady-{index}").read_text()) for index in range(2)]
    total = min(sent) - min(sent) % 2
    rest = {number for index, end in enumerate(sent) for number in range(index, end, 2) if number >= total}
    for component, tasks in (("relay", 3), ("sink", 4)):
        verdict = compare(directory, component, total, tasks=tasks)
        print(component, verdict, "and", len(rest), "above")
        assert verdict["strange"] == len(rest)
        assert not any(verdict[wrong] for wrong in WRONGS if wrong != "strange"), verdict
