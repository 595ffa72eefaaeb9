"""The parts of a worker's process that need no process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from kit.clusters import word_count
from rainband.clock import SystemClock
from rainband.cluster.positions import PositionStore
from rainband.errors import NotAllowed, StoreError, UsageError
from rainband.messaging.control import AskStacks, Assign, ControlServer, Hello, StacksText
from rainband.records import Assignment, Executor, Placement, Slot, Status
from rainband.supervisor.processes import worker_command
from rainband.topology.home import write_control
from rainband.worker.line import SupervisorLine
from rainband.worker.logfile import LogFile
from rainband.worker.process import Arguments, Positions, WorkerProcess, stacks
from rainband.worker.worker import Worker

TOKEN = "0123456789abcdef"
HELLO = Hello(6700, 7, 4711, "t-1")


def test_arguments() -> None:
    words = ["--home", "/h/t-1", "--supervisor", "one", "--port", "6700", "--log", "/l"]
    assert Arguments.parse(words) == Arguments(Path("/h/t-1"), Slot("one", 6700), Path("/l"))
    more = Arguments.parse([*words, "--keys", "/k", "--lease", "2.5", "--beat", "0.5", "--secrets", "/s"])
    assert (more.keys, more.lease_s, more.beat_s, more.secrets) == (Path("/k"), 2.5, 0.5, Path("/s"))


def test_the_supervisor_says_how_often_to_report() -> None:
    words = worker_command(Path("/h/t-1"), Slot("one", 6700), Path("/l"), 30.0, beat_s=0.25)
    assert Arguments.parse(words[words.index("--home") :]).beat_s == 0.25


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--help"],
        ["--home", "/h", "--supervisor", "one", "--port", "6700"],
        ["--home", "/h", "--supervisor", "one", "--port", "x", "--log", "/l"],
        ["--home", "/h", "--supervisor", "one", "--port", "1", "--log", "/l", "--more", "1"],
        ["--home", "/h", "--supervisor", "one", "--port", "1", "--log"],
    ],
)
def test_arguments_by_hand(words: list[str]) -> None:
    with pytest.raises(UsageError, match="not by hand"):
        Arguments.parse(words)


def test_stacks_name_threads_and_functions() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="a-waiting-thread")
    thread.start()
    text = stacks()
    stop.set()
    thread.join()
    assert "a-waiting-thread" in text
    assert "test_stacks_name_threads_and_functions" in text


def test_positions_that_cannot_be_stored_are_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Full(PositionStore):
        def put_many(self, positions: Mapping[tuple[str, int], bytes]) -> None:
            raise StoreError("the disk is full")

    store = Full(tmp_path / "positions.sqlite")
    positions = Positions(store)
    with caplog.at_level(logging.WARNING):
        positions.put_many({("a", 0): b"1"})
        positions.put_many({("a", 0): b"2"})
    (record,) = caplog.records
    assert record.getMessage() == "positions of spouts are not stored: the disk is full"
    assert positions.get("a", 0) is None
    store.close()


def test_a_line_to_nobody(tmp_path: Path) -> None:
    line = SupervisorLine(tmp_path, HELLO)
    assert not line.send(StacksText("x"))
    assert line.receive() == []
    write_control(tmp_path, "nonsense", TOKEN)
    line.renew()
    assert not line.send(StacksText("x"))
    line.close()


def test_each_supervisor_is_greeted_first(tmp_path: Path) -> None:
    line = SupervisorLine(tmp_path, HELLO)
    clock = SystemClock()
    for number in range(2):
        server = ControlServer()
        server.admit(6700, TOKEN)
        write_control(tmp_path, server.address, TOKEN)
        line.renew()
        heard: list[object] = []
        until = clock.now() + 10
        while len(heard) < 2 and clock.now() < until:
            line.send(StacksText(str(number)))
            heard += [message for _port, _token, message in server.poll(0.02)]
        assert heard[:2] == [HELLO, StacksText(str(number))]
        assert server.send(6700, AskStacks())
        received: list[object] = []
        while not received and clock.now() < until:
            received = list(line.receive())
        assert received == [AskStacks()]
        server.close()
    line.close()


@pytest.mark.parametrize(
    ("hosts", "applied", "stop_at"),
    [
        ({"one": "127.0.0.1", "two": "127.0.0.9"}, True, float("inf")),
        ({"one": "127.0.0.2", "two": "127.0.0.9"}, False, 5.0),
    ],
)
def test_a_worker_whose_host_has_another_address_ends(
    tmp_path: Path, hosts: dict[str, str], applied: bool, stop_at: float
) -> None:
    placements = tuple(Placement(Executor("count", n, n), Slot(name, 6700), 1) for n, name in enumerate(hosts, 1))
    process = WorkerProcess(Arguments(tmp_path, Slot("one", 6700), tmp_path / "log"), LogFile(tmp_path / "log"))
    process.host = "127.0.0.1"
    taken: list[Assignment] = []
    process.worker = cast(Worker, SimpleNamespace(apply=lambda assignment, now: taken.append(assignment)))
    process._obey(Assign(Assignment("t-1", 2, Status.ACTIVE, placements, hosts)), 5.0)
    assert (bool(taken), process.stop_wanted, process.stop_at) == (applied, not applied, stop_at)


def test_an_exposed_address_needs_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slot = Slot("one", 0)
    placements = (Placement(Executor("count", 1, 4), slot, 1),)
    assignment = Assignment("t-1", 1, Status.ACTIVE, placements, {"one": "203.0.113.7"})
    monkeypatch.setattr(WorkerProcess, "_read_home", lambda process: (word_count(), assignment))
    process = WorkerProcess(Arguments(tmp_path / "t-1", slot, tmp_path / "log"), LogFile(tmp_path / "log"))
    with pytest.raises(NotAllowed, match=r"203\.0\.113\.7"):
        process.run()
