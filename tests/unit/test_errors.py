"""Which known name a slip is taken for."""

from __future__ import annotations

import pytest

from rainband.cli.main import COMMANDS
from rainband.config import OPTIONS
from rainband.errors import closest


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("topology.workres", "topology.workers"),
        ("topolgy.workers", "topology.workers"),
        ("workers", "topology.workers"),
        ("topology.max.pending", "topology.max.spout.pending"),
        ("topology.message.timeout", "topology.message.timeout.secs"),
        ("nimbus.seed", "nimbus.seeds"),
        ("key.dir", "keys.dir"),
        ("topology.foo", ""),
        ("topology.ackers", ""),
        ("topology.kryo.register", ""),
        ("supervisor.port", ""),
        ("storm.zookeeper.servers", ""),
        ("ui.port", ""),
    ],
)
def test_settings(typed: str, meant: str) -> None:
    assert closest(typed, list(OPTIONS)) == meant


@pytest.mark.parametrize(
    ("typed", "meant"), [("sumbit", "submit"), ("klil", "kill"), ("log", "logs"), ("status", ""), ("deploy", "")]
)
def test_commands(typed: str, meant: str) -> None:
    assert closest(typed, list(COMMANDS)) == meant


def test_one_wrong_letter_of_three() -> None:
    assert closest("bed", ["default", "bad"]) == "bad"
