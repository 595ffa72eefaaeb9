"""Which ports a supervisor takes when it is told a number of slots: those it had, except what others have by now."""

from __future__ import annotations

import socket
from pathlib import Path

from rainband.config import Config
from rainband.records import Assignment, Executor, Placement, Slot, Status
from rainband.supervisor import ports
from rainband.supervisor.disk import Disk, WorkerRecord
from rainband.supervisor.ports import slot_ports
from rainband.supervisor.processes import Identity

HOST = "127.0.0.1"


def test_ports_are_kept_except_those_that_strangers_have(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    config = Config.layer({"supervisor.host": HOST})
    disk.memory.ports = taken, kept, worked, assigned = ports.choose(4, HOST)
    disk.memory.workers[worked] = WorkerRecord("t-1", Identity(1, 1, "boot"))
    placement = Placement(Executor("a", 1, 2), Slot(disk.memory.supervisor, assigned), 1)
    disk.memory.assignments["t-1"] = Assignment("t-1", 1, Status.ACTIVE, (placement,), {})
    assert slot_ports(config, disk, 4) == disk.memory.ports
    with (
        socket.create_server((HOST, taken)),
        socket.create_server((HOST, worked)),
        socket.create_server((HOST, assigned)),
    ):
        found = slot_ports(config, disk, 4)
        assert found[:3] == (kept, worked, assigned)
        assert found[3] not in disk.memory.ports
        assert slot_ports(config, disk, None) == tuple(config["supervisor.slots.ports"])
    disk.close()
