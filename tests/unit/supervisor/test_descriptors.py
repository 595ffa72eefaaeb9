"""A supervisor that has no free file descriptor goes on, and has what it asks for as soon as there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kit.descriptors import without_descriptors
from rainband.supervisor import ports, processes
from rainband.supervisor.processes import Identity, identify

NOBODY = Identity(2**30, 1, "boot")


def test_a_look_at_a_process_says_nothing() -> None:
    identity = identify(os.getpid())
    assert identity is not None
    with without_descriptors():
        sample = processes.look(identity, 1)
    assert sample is None
    assert processes.look(identity, 1) is not None


def test_what_cannot_be_listed_is_not_waited_for() -> None:
    with without_descriptors():
        processes._kill_session(NOBODY)
        found = processes.worker_of(os.getpid())
    assert found is None


def test_the_holder_of_a_port_is_not_known() -> None:
    with without_descriptors():
        described = ports.describe_holder(1)
        held = ports.hold("127.0.0.1", 0)
    assert "the system does not say" in described
    assert held is None


def test_what_cannot_be_started_is_told() -> None:
    with without_descriptors(), pytest.raises(OSError, match="Too many open files"):
        processes.start(["/bin/true"], cwd=Path("/"), log=None, env={})
