"""Commands that change a topology, without a cluster behind them."""

from __future__ import annotations

import io
import json
import sys

import pytest

from rainband.cli import options
from rainband.cli.main import run
from rainband.records import (
    ClusterSummary,
    ErrorRecord,
    Statistics,
    Status,
    TopologySummary,
    WorkerBeat,
    WorkerState,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Cluster:
    """Stands for the client and for the running topology."""

    def __init__(self) -> None:
        self.killed = 0

    def topology(self, name: str) -> Cluster:
        return self

    def kill(self, wait_s: float | None, timeout_s: float | None) -> None:
        self.killed += 1


@pytest.mark.parametrize(("typed", "killed", "said"), [("n\n", 0, "flow is not killed\n"), ("y\n", 1, "flow killed, ")])
def test_kill_asks_at_a_terminal(typed: str, killed: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, screen = Cluster(), Terminal()
    monkeypatch.setattr(options, "connect", lambda *given: cluster)
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    monkeypatch.setattr(sys, "stdout", screen)
    assert run(["kill", "flow"]) == 0
    assert cluster.killed == killed
    assert said in screen.getvalue()


class Crashing:
    """Stands for a client and a running topology whose worker does not come up."""

    beat = WorkerBeat("flow-1-1", 6700, 0, 0, 0, WorkerState.CRASHED, restarts=4, note="exit code 1")
    error = ErrorRecord("bolt", 2, "h", 6700, 0.0, "ValueError: no\nsuch file")

    def topologies(self) -> tuple[TopologySummary, ...]:
        return (TopologySummary("flow", "flow-1-1", Status.ACTIVE, 1, 2, 2, 5.0),)

    def cluster(self) -> ClusterSummary:
        return ClusterSummary("here", (), ())

    def topology(self, name: str) -> Crashing:
        return self

    def statistics(self) -> Statistics:
        return Statistics("flow", workers=(self.beat,), workers_wanted=1)

    def errors(self) -> tuple[ErrorRecord, ...]:
        return (self.error,)


def test_a_crash_loop_shows_in_list_and_monitor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(options, "connect", lambda *given: Crashing())
    assert run(["list"]) == 0
    out = capsys.readouterr().out
    assert "flow  ACTIVE CRASHING  5.0s    0/1" in out
    assert "flow keeps crashing: bolt task 2: ValueError: no such file; see: rainband errors flow -v\n" in out
    assert run(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["topologies"][0]["crashing"].startswith("bolt task 2")
    assert run(["monitor", "flow", "--timeout", "0"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("flow ACTIVE CRASHING  ")
    assert out.endswith("workers 0/1  (exit code 1; see: rainband errors flow)\n")
