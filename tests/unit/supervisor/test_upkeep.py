"""A supervisor's directory is kept as it should be, and nothing that goes wrong there ends the supervisor."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rainband.supervisor.disk import Disk
from rainband.supervisor.upkeep import Upkeep
from rainband.topology import home


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path)
    home.write_control(made.topologies, "127.0.0.1:1", "token")
    yield made
    made.close()


def upkeep_of(disk: Disk) -> Upkeep:
    return Upkeep(disk, lambda: home.write_control(disk.topologies, "127.0.0.1:2", "token"))


def test_homes_that_nobody_needs_go(disk: Disk) -> None:
    for name in ("t-1", "t-2"):
        disk.home(name).mkdir()
    upkeep_of(disk).look({"t-2"})
    assert disk.homes() == ["t-2"]
    assert home.read_control(disk.topologies) == ("127.0.0.1:1", "token")


def test_a_removed_directory_is_made_again(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    upkeep = upkeep_of(disk)
    shutil.rmtree(disk.topologies)
    upkeep.look({"t-1"})
    upkeep.look({"t-1"})
    assert home.read_control(disk.topologies) == ("127.0.0.1:2", "token")
    (record,) = caplog.records
    assert record.getMessage().endswith("topologies was removed by somebody else: it is made again")


def test_what_the_system_refuses_is_said_once(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    upkeep = upkeep_of(disk)
    shutil.rmtree(disk.topologies)
    disk.topologies.write_text("")
    for _ in range(2):
        upkeep.look(set())
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "topologies" in record.getMessage()
    disk.topologies.unlink()
    upkeep.look(set())
    assert disk.homes() == []
