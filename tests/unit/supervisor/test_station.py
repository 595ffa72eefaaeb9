"""What a station tells of its worker."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from rainband.messaging.control import Beat
from rainband.records import ErrorRecord, TaskCount, WorkerBeat, WorkerState
from rainband.supervisor import slot
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
