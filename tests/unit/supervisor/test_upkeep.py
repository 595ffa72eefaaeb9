"""A supervisor's directory is kept as it should be, and nothing that goes wrong there ends the supervisor."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rainband.supervisor.disk import Disk
from rainband.supervisor.upkeep import LOGS_S, Upkeep, outdated
from rainband.topology import home

WALL = 10_000.0
KEPT_S = 1000.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path)
    home.write_control(made.topologies, "127.0.0.1:1", "token")
    yield made
    made.close()


def upkeep_of(disk: Disk) -> Upkeep:
    return Upkeep(disk, lambda: home.write_control(disk.topologies, "127.0.0.1:2", "token"), KEPT_S)


def test_homes_that_nobody_needs_go(disk: Disk) -> None:
    for name in ("t-1", "t-2"):
        disk.home(name).mkdir()
    upkeep_of(disk).look({"t-2"}, 1.0, WALL)
    assert disk.homes() == ["t-2"]
    assert home.read_control(disk.topologies) == ("127.0.0.1:1", "token")


def test_a_removed_directory_is_made_again(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    upkeep = upkeep_of(disk)
    shutil.rmtree(disk.topologies)
    upkeep.look({"t-1"}, 1.0, WALL)
    upkeep.look({"t-1"}, 1.0, WALL)
    assert home.read_control(disk.topologies) == ("127.0.0.1:2", "token")
    (record,) = caplog.records
    assert record.getMessage().endswith("topologies was removed by somebody else: it is made again")


def test_what_the_system_refuses_is_said_once(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    upkeep = upkeep_of(disk)
    shutil.rmtree(disk.topologies)
    disk.topologies.write_text("")
    for _ in range(2):
        upkeep.look(set(), 1.0, WALL)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "topologies" in record.getMessage()
    disk.topologies.unlink()
    upkeep.look(set(), 1.0, WALL)
    assert disk.homes() == []


def test_logs_go_when_nobody_needs_them_and_nothing_was_written_lately() -> None:
    written = {"old": 8.0, "needed": 8.0, "fresh": 10.0, "empty": 0.0}
    assert outdated(written, {"needed"}, 10.0) == ["empty", "old"]
    assert outdated({}, {"needed"}, 10.0) == []


def log(disk: Disk, topology_id: str, name: str, at: float) -> Path:
    path = disk.log(topology_id, 6700).with_name(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text("what it printed")
    os.utime(path, (at, at))
    return path


def test_old_logs_of_topologies_that_are_gone_are_deleted(disk: Disk) -> None:
    old = log(disk, "old-1", "worker-6700.log", WALL - KEPT_S - 1)
    kept = [
        log(disk, "running-1", "worker-6700.log", WALL - KEPT_S - 1),
        log(disk, "lately-1", "worker-6700.log.1", WALL - KEPT_S - 1),
        log(disk, "lately-1", "worker-6700.log", WALL - KEPT_S + 1),
    ]
    upkeep = upkeep_of(disk)
    upkeep.look({"running-1"}, 1.0, WALL)
    assert not old.parent.exists()
    assert all(path.exists() for path in kept)
    upkeep.look({"running-1"}, 1.0 + LOGS_S / 2, WALL + 10)
    assert all(path.exists() for path in kept)
    upkeep.look({"running-1"}, 1.0 + LOGS_S, WALL + 10)
    assert [path.exists() for path in kept] == [True, False, False]
