"""A heartbeat never grows too large to be heard; what has no room now goes with a later one."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from rainband.messaging import rpc
from rainband.messaging.portions import (
    ERRORS_BYTES_MAX,
    POSITIONS_BYTES_MAX,
    Turns,
    first_errors,
    share_positions,
)
from rainband.records import ErrorRecord, Heartbeat, WorkerBeat, WorkerState


def beat(port: int, positions: dict[int, bytes]) -> WorkerBeat:
    return WorkerBeat("t-1", port, 7, 1, 1, WorkerState.RUNNING, positions=positions)


def test_what_fits_goes_as_it_is() -> None:
    turns: Turns[int] = Turns(10)
    for _ in range(3):
        assert turns.take({1: b"12345", 2: b"12345"}) == {1: b"12345", 2: b"12345"}


@given(st.dictionaries(st.integers(0, 30), st.binary(max_size=14), max_size=12), st.integers(0, 30))
def test_each_position_that_can_has_its_turn(positions: dict[int, bytes], gone: int) -> None:
    turns: Turns[int] = Turns(12)
    told: set[int] = set()
    turns.take({gone: b"1234567", gone + 1: b"1234567"})
    for _ in positions:
        taken = turns.take(positions)
        assert sum(map(len, taken.values())) <= 12
        assert all(positions[task] == position for task, position in taken.items())
        told |= set(taken)
    assert told == {task for task, position in positions.items() if len(position) <= 12}


def test_workers_of_a_host_share_the_room() -> None:
    turns: Turns[tuple[int, int]] = Turns()
    beats = [beat(port, {task: bytes(900_000) for task in range(12)}) for port in (6700, 6701)]
    told: set[tuple[int, int]] = set()
    for _ in range(3):
        shared = share_positions(beats, turns)
        assert len(msgspec.msgpack.encode(Heartbeat("s", "h", 1, (), tuple(shared)))) < rpc.MESSAGE_BYTES_MAX
        told |= {(said.port, task) for said in shared for task in said.positions}
    assert told == {(port, task) for port in (6700, 6701) for task in range(12)}


def test_errors_that_have_no_room_wait() -> None:
    errors = [ErrorRecord("count", task, "h", 6700, 0.0, "error", "x" * 1000) for task in range(5)]
    assert first_errors(errors) == (tuple(errors), ())
    assert first_errors(errors, 2500) == (tuple(errors[:2]), tuple(errors[2:]))
    assert first_errors(errors, 1) == (tuple(errors[:1]), tuple(errors[1:]))
    assert first_errors([], 1) == ((), ())


def test_positions_and_errors_leave_room_for_counters() -> None:
    assert POSITIONS_BYTES_MAX + ERRORS_BYTES_MAX <= rpc.MESSAGE_BYTES_MAX * 3 // 4
