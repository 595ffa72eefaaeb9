"""What a station tells of its worker."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from rainband.messaging.control import Beat
from rainband.records import Assignment, ErrorRecord, Leaving, Status, TaskCount, WorkerBeat, WorkerState
from rainband.records import Slot as SlotName
from rainband.supervisor import slot
from rainband.supervisor.processes import Process
from rainband.supervisor.slot import Limits
from rainband.supervisor.station import Shop, Station

BEAT = WorkerBeat("t-1", 6700, 7, 1, 1, WorkerState.RUNNING, tasks=(TaskCount(1, "a"), TaskCount(2, "a")))


@pytest.fixture
def station(tmp_path: Path) -> Station:
    made = Station(6700, cast(Shop, SimpleNamespace(limits=Limits())))
    made.slot = slot.Slot(6700, slot.State.RUNNING, "t-1", "t-1", 7)
    return made


def hear(station: Station, beat: WorkerBeat) -> WorkerBeat:
    station.hear(Beat(beat), 1.0)
    told = station.report()
    assert told is not None
    return told


def test_positions_that_came_with_earlier_beats_are_kept(station: Station) -> None:
    assert hear(station, msgspec.structs.replace(BEAT, positions={1: b"1"})).positions == {1: b"1"}
    assert hear(station, msgspec.structs.replace(BEAT, positions={2: b"2"})).positions == {1: b"1", 2: b"2"}
    assert hear(station, msgspec.structs.replace(BEAT, positions={1: b"3"})).positions == {1: b"3", 2: b"2"}


def test_positions_of_tasks_that_left_are_not_kept(station: Station) -> None:
    hear(station, msgspec.structs.replace(BEAT, positions={1: b"1", 2: b"2"}))
    assert hear(station, msgspec.structs.replace(BEAT, tasks=BEAT.tasks[:1])).positions == {1: b"1"}


def test_positions_of_another_process_are_not_kept(station: Station) -> None:
    hear(station, msgspec.structs.replace(BEAT, positions={1: b"1"}))
    assert hear(station, msgspec.structs.replace(BEAT, incarnation=2)).positions == {}


def test_a_worker_is_behind_until_it_has_said_that_what_was_taken_away_has_ended(station: Station) -> None:
    known = Assignment("t-1", 2, Status.ACTIVE, (), {})
    assignments = {"t-1": known}
    station.shop = cast(Shop, SimpleNamespace(limits=Limits(), assignment=assignments.get))
    assert not station.behind(), "there is no process"
    station.process = cast(Process, SimpleNamespace(pid=7))
    assert station.behind(), "it has said nothing yet"
    hear(station, msgspec.structs.replace(BEAT, version=1))
    assert station.behind(), "it goes by an older assignment"
    hear(station, msgspec.structs.replace(BEAT, version=2, epoch=1))
    assert station.behind(), "it goes by what another leader wrote"
    hear(station, msgspec.structs.replace(BEAT, version=2, leaving=1))
    assert station.behind(), "a call is under way"
    hear(station, msgspec.structs.replace(BEAT, version=2))
    assert not station.behind()
    station.process = cast(Process, SimpleNamespace(pid=8))
    assert station.behind(), "another process has said nothing yet"
    station.process = cast(Process, SimpleNamespace(pid=7))
    station.slot = replace(station.slot, state=slot.State.STOPPING)
    assert station.behind(), "nobody asks any more what it does"
    station.slot = replace(station.slot, state=slot.State.RUNNING)
    assignments.clear()
    assert station.behind(), "its topology was taken away"


def test_a_worker_that_does_not_give_up_what_was_taken_away_is_killed(station: Station) -> None:
    taken = Assignment("t-1", 2, Status.ACTIVE, (), {}, leaving=(Leaving(1, SlotName("me", 6700), (0, 2)),))
    killed: list[int] = []
    process = SimpleNamespace(pid=7, kill=lambda: killed.append(7))
    disk = SimpleNamespace(memory=SimpleNamespace(supervisor="me"))
    shop = SimpleNamespace(limits=Limits(shutdown_s=3.0), assignment={"t-1": taken}.get, disk=disk)
    station.shop = cast(Shop, shop)
    station.process = cast(Process, process)
    for now in (10.0, 11.0, 12.9):
        station.look_at_lease(now)
    hear(station, msgspec.structs.replace(BEAT, version=2))
    station.look_at_lease(13.0)
    hear(station, msgspec.structs.replace(BEAT, version=1))
    for now in (14.0, 16.9):
        station.look_at_lease(now)
    assert not killed
    station.look_at_lease(17.0)
    assert killed == [7]
    assert station.slot.cause == "it is exclusive, and tasks that were taken away do not end"


def test_errors_that_have_no_room_go_with_the_next_report(station: Station) -> None:
    errors = tuple(ErrorRecord("a", task, "h", 6700, 0.0, "error", "x" * 1000) for task in range(3))
    station.hear(Beat(msgspec.structs.replace(BEAT, errors=errors)), 1.0)
    told = []
    for _ in range(3):
        report = station.report(1500)
        assert report is not None
        told.append(report.errors)
        station.told()
    assert told == [errors[:1], errors[1:2], errors[2:]]


def test_what_was_not_answered_is_told_again(station: Station) -> None:
    errors = tuple(ErrorRecord("a", task, "h", 6700, 0.0, "error", "x" * 1000) for task in range(2))
    station.hear(Beat(msgspec.structs.replace(BEAT, errors=errors)), 1.0)
    for room, count in ((1500, 1), (1500, 1), (5000, 2)):
        report = station.report(room)
        assert report is not None
        assert report.errors == errors[:count]
