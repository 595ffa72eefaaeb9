"""Commands that change a topology, without a cluster behind them."""

from __future__ import annotations

import io
import sys

import pytest

from rainband.cli import options
from rainband.cli.main import run


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
    monkeypatch.setattr(options, "connect", lambda seeds: cluster)
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    monkeypatch.setattr(sys, "stdout", screen)
    assert run(["kill", "flow"]) == 0
    assert cluster.killed == killed
    assert said in screen.getvalue()
