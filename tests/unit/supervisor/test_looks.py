"""What a supervisor asks of the system each second, for as long as it lives."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

from rainband.supervisor.memory import OomKills
from rainband.supervisor.processes import LINUX, identify, look


@pytest.mark.skipif(not LINUX, reason="elsewhere psutil looks")
def test_looks_at_a_process_intern_no_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    pid = os.getpid()
    kills = OomKills(pid)
    identity = identify(pid)
    assert identity is not None
    interned: list[str] = []
    intern: Callable[[str], str] = sys.intern

    def note(text: str) -> str:
        interned.append(text)
        return intern(text)

    monkeypatch.setattr(sys, "intern", note)
    assert identify(pid) == identity
    assert look(identity, 1) is not None
    assert kills.follow() is kills
    assert interned == []
