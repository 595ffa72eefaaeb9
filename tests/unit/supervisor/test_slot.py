"""Every event in every state that can be reached: the table's word is kept, and nothing illegal changes anything."""

from __future__ import annotations

import math

import pytest

from rainband.supervisor import slot as machine
from rainband.supervisor.slot import TABLE, IllegalEvent, Slot, State, step

PID = 70
OTHER = 71
EVENTS: tuple[machine.Event, ...] = (
    machine.Wanted(None),
    machine.Wanted("a"),
    machine.Wanted("b"),
    machine.Adopted("a", PID),
    machine.Localized("a"),
    machine.LocalizeFailed("a", "no"),
    machine.Started(PID),
    machine.StartFailed("no"),
    machine.PortTaken("pid 9"),
    machine.PortFree(),
    machine.Ready(PID),
    machine.Exited(PID, "exit code 1"),
    machine.Exited(PID, "signal 9", from_outside=True),
    machine.Exited(OTHER, "signal 9"),
    machine.Stalled(PID, "stopped"),
    machine.Tick(),
)


def reachable(depth: int) -> set[tuple[Slot, float]]:
    """Every slot that some sequence of `depth` legal events leads to, with the time it is then."""
    seen: set[tuple[Slot, float]] = {(Slot(6700), 0.0)}
    edge = set(seen)
    for _ in range(depth):
        found = set()
        for slot, now in edge:
            later = now + 100.0
            for event in EVENTS:
                try:
                    after, _actions = step(slot, event, later)
                except IllegalEvent:
                    continue
                found.add((after, later))
        edge = found - seen
        seen |= found
    return seen


REACHED = reachable(5)


def has_process(slot: Slot) -> bool:
    return slot.pid != 0


def test_all_states_are_reached() -> None:
    assert {slot.state for slot, _now in REACHED} == set(State)


def test_a_process_exists_in_the_states_that_say_so() -> None:
    for slot, _now in REACHED:
        if slot.state in (State.RUNNING, State.STOPPING):
            assert has_process(slot)
        if slot.state in (State.EMPTY, State.LOCALIZING, State.BACKING_OFF, State.BLOCKED):
            assert not has_process(slot)


def test_never_two_processes() -> None:
    for slot, now in REACHED:
        for event in EVENTS:
            try:
                after, actions = step(slot, event, now)
            except IllegalEvent:
                continue
            if any(isinstance(action, machine.StartWorker) for action in actions):
                assert not has_process(after)
            if has_process(slot) and not has_process(after):
                assert isinstance(event, machine.Exited)
            for action in actions:
                if isinstance(action, machine.AskStop | machine.Terminate | machine.Kill):
                    assert action.pid == slot.pid


def test_whatever_waits_has_a_time_to_wake() -> None:
    for slot, _now in REACHED:
        if slot.state in (State.BACKING_OFF, State.STOPPING, State.BLOCKED):
            assert math.isfinite(slot.due)


def test_an_unwanted_slot_comes_to_rest() -> None:
    for slot, now in REACHED:
        if slot.state is State.STARTING and not has_process(slot):
            continue
        slot, _ = step(slot, machine.Wanted(None), now)
        if slot.state is State.STOPPING:
            slot, _ = step(slot, machine.Exited(slot.pid, "exit code 0"), now)
        if slot.state is State.BLOCKED:
            slot, _ = step(slot, machine.PortFree(), now)
        assert slot == Slot(6700)


def test_an_unwanted_worker_is_killed_if_it_does_not_go() -> None:
    for slot, now in REACHED:
        if slot.state is not State.STOPPING:
            continue
        pressed: list[machine.Action] = []
        for _ in range(3):
            now = max(now, slot.due)
            slot, actions = step(slot, machine.Tick(), now)
            pressed += actions
        assert machine.Kill(PID) in pressed


def test_crashes_in_a_row_wait_ever_longer_up_to_the_limit() -> None:
    slot, now, waits = Slot(6700), 0.0, []
    slot, _ = step(slot, machine.Wanted("a"), now)
    for _ in range(10):
        if slot.state is not State.STARTING:
            slot, _ = step(slot, machine.Localized("a"), now)
        slot, _ = step(slot, machine.Started(PID), now)
        slot, _ = step(slot, machine.Exited(PID, "exit code 1"), now)
        waits.append(slot.due - now if slot.state is State.BACKING_OFF else 0.0)
        if slot.state is State.BACKING_OFF:
            now = slot.due
            slot, _ = step(slot, machine.Tick(), now)
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize("state", list(State))
def test_what_the_table_does_not_hold_is_refused(state: State) -> None:
    for slot, now in REACHED:
        if slot.state is not state:
            continue
        for event in EVENTS:
            if (state, type(event)) in TABLE or machine._late(slot, event):
                continue
            with pytest.raises(IllegalEvent):
                step(slot, event, now)
