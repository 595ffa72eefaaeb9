"""What a supervisor remembers, and that only one of them may."""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

import pytest

from rainband.errors import Refused, StateLocked
from rainband.records import Assignment, Executor, Placement, Slot, Status
from rainband.supervisor.disk import LOCK, Disk, WorkerRecord, inherit_lock
from rainband.supervisor.processes import Identity
from rainband.topology import home

PLACEMENT = Placement(Executor("a", 1, 2), Slot("s", 6700), 1)
ASSIGNMENT = Assignment("t-1", 3, Status.ACTIVE, (PLACEMENT,), {"s": "127.0.0.1"})


def test_memory_survives(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.memory.assignments["t-1"] = ASSIGNMENT
    disk.memory.workers[6700] = WorkerRecord("t-1", Identity(7, 99, "boot"), 12345, 2)
    disk.memory.epoch = 4
    disk.save()
    before = disk.memory
    disk.close()
    again = Disk(tmp_path)
    assert again.memory == before
    again.close()


def test_files_are_ours_alone(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "state")
    disk.save()
    home.write_control(disk.topologies, "127.0.0.1:1", "token")
    for path in (tmp_path / "state").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    disk.close()


def test_a_second_one_is_told_who_has_it(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    with pytest.raises(StateLocked, match=f"in use by pid {os.getpid()}"):
        Disk(tmp_path)
    disk.close()
    Disk(tmp_path).close()


def test_state_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="cannot write to the state directory"):
        Disk(tmp_path / "file" / "state")
    (tmp_path / "supervisor.json").write_text('{"supervisor": 7}')
    with pytest.raises(Refused, match=r"supervisor\.json cannot be read"):
        Disk(tmp_path)


def test_state_of_another_name(tmp_path: Path) -> None:
    disk = Disk(tmp_path, "one")
    disk.save()
    disk.close()
    with pytest.raises(Refused, match="belongs to supervisor one, not two"):
        Disk(tmp_path, "two")


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "-x", "a\n", "x" * 129, "../../etc"])
def test_no_topology_id_leads_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused):
        home.home_of(tmp_path, name)


def test_removed_homes_leave_nothing(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    (disk.home("t-1") / "code").mkdir(parents=True)
    (disk.topologies / "no id").mkdir()
    assert disk.homes() == ["t-1"]
    (disk.topologies / "no id").rmdir()
    disk.remove_home("t-1")
    disk.remove_home("t-2")
    (disk.topologies / ".t-3.partial").mkdir()
    (tmp_path / ".supervisor.json.4711").write_text("{")
    disk.save()
    disk.sweep()
    assert list(disk.topologies.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "supervisor.json", LOCK, "topologies"]
    disk.close()


def test_a_home_that_cannot_be_read_is_not_gone(tmp_path: Path) -> None:
    """A worker asks: it would end. Without a free descriptor nobody can tell, and it goes on."""
    slot = PLACEMENT.slot
    assert not home.is_placed(tmp_path / "gone", slot)
    assert not home.is_placed(tmp_path, slot)
    home.write_assignment(tmp_path, ASSIGNMENT)
    assert home.is_placed(tmp_path, slot)
    assert not home.is_placed(tmp_path, Slot("s", 6701))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        placed = home.is_placed(tmp_path, slot)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert placed
    (tmp_path / home.ASSIGNMENT).write_bytes(b"\xc1")
    assert not home.is_placed(tmp_path, slot)


def test_assignment_and_control_files(tmp_path: Path) -> None:
    assert home.read_assignment(tmp_path) is None
    home.write_assignment(tmp_path, ASSIGNMENT)
    assert home.read_assignment(tmp_path) == ASSIGNMENT
    (tmp_path / home.ASSIGNMENT).write_bytes(b"\xc1")
    assert home.read_assignment(tmp_path) is None
    assert home.read_control(tmp_path) is None
    home.write_control(tmp_path, "127.0.0.1:9", "abc")
    assert home.read_control(tmp_path) == ("127.0.0.1:9", "abc")


def test_progress_is_seen_by_others(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="progress"):
        home.Progress(tmp_path, 6700)
    writer = home.Progress(tmp_path, 6700, write=True)
    reader = home.Progress(tmp_path, 6700)
    assert reader.read() == (0, 0)
    writer.write(5, 17)
    writer.turn[0] = 3
    assert (reader.read(), reader.turn[0]) == ((5, 17), 3)
    reader.close()
    writer.close()


def test_the_lease_is_seen_by_others(tmp_path: Path) -> None:
    reader = home.open_lease(tmp_path)
    assert home.read_lease(reader) == float("-inf")
    home.write_lease(tmp_path, 1234.5)
    home.write_lease(tmp_path, 2345.25)
    assert home.read_lease(reader) == 2345.25
    (tmp_path / home.LEASE).write_bytes(b"x")
    assert home.read_lease(reader) == float("-inf")
    os.close(reader)


def test_a_lock_is_inherited_from_its_last_holder_only(tmp_path: Path) -> None:
    assert inherit_lock(tmp_path / LOCK, os.getpid()) is None
    disk = Disk(tmp_path)
    assert inherit_lock(tmp_path / LOCK, os.getpid()) is None  # it is still held
    disk.close()
    assert inherit_lock(tmp_path / LOCK, os.getpid() + 1) is None
    lock = inherit_lock(tmp_path / LOCK, os.getpid())
    assert lock is not None
    with pytest.raises(StateLocked):
        Disk(tmp_path)
    os.close(lock)
