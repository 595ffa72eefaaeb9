"""The table of states: what it holds, and that everything else is refused."""

from __future__ import annotations

import itertools

import pytest

from rainband.errors import Refused
from rainband.nimbus.lifecycle import TABLE, Action, Event, step
from rainband.records import Status

STORED = [status for status in Status if status is not Status.WAITING]

# status, event -> status (None: refused), action; INACTIVE is what it was before a rebalance.
EXPECTED = """
ACTIVE      activate   ACTIVE      nothing
ACTIVE      deactivate INACTIVE    nothing
ACTIVE      rebalance  REBALANCING start_wait
ACTIVE      kill       KILLED      start_wait
ACTIVE      elapsed    -
ACTIVE      moved      -
INACTIVE    activate   ACTIVE      nothing
INACTIVE    deactivate INACTIVE    nothing
INACTIVE    rebalance  REBALANCING start_wait
INACTIVE    kill       KILLED      start_wait
INACTIVE    elapsed    -
INACTIVE    moved      -
REBALANCING activate   -
REBALANCING deactivate -
REBALANCING rebalance  -
REBALANCING kill       KILLED      start_wait
REBALANCING elapsed    REBALANCING place_anew
REBALANCING moved      INACTIVE    nothing
KILLED      activate   -
KILLED      deactivate -
KILLED      rebalance  -
KILLED      kill       KILLED      start_wait
KILLED      elapsed    KILLED      remove
KILLED      moved      -
"""


def test_the_table_is_what_is_written_here() -> None:
    lines = [line.split() for line in EXPECTED.strip().splitlines()]
    assert len(lines) == len(STORED) * len(Event)
    for status, event, *after in lines:
        if after == ["-"]:
            with pytest.raises(Refused, match=f"cannot {event} wc"):
                step("wc", Status(status), Status.INACTIVE, Event(event))
        else:
            assert step("wc", Status(status), Status.INACTIVE, Event(event)) == (Status(after[0]), Action(after[1]))


def test_refusals_say_why() -> None:
    with pytest.raises(Refused, match="it is being killed"):
        step("wc", Status.KILLED, Status.ACTIVE, Event.ACTIVATE)
    with pytest.raises(Refused, match="is being rebalanced; wait until that is done, or kill it"):
        step("wc", Status.REBALANCING, Status.ACTIVE, Event.DEACTIVATE)


def test_every_history_ends_where_people_expect() -> None:
    """All event sequences of length 5: killed never comes back, and a rebalance returns to what was before it."""
    for events in itertools.product(Event, repeat=5):
        status, resume, killed = Status.ACTIVE, Status.ACTIVE, False
        for event in events:
            try:
                status, action = step("wc", status, resume, event)
            except Refused:
                assert (status, event) not in TABLE
                continue
            if event in (Event.ACTIVATE, Event.DEACTIVATE):
                resume = status
            if action is Action.REMOVE:
                break
            if action is Action.PLACE_ANEW:
                assert status is Status.REBALANCING
            if event is Event.MOVED:
                assert status == resume
            killed = killed or event is Event.KILL
            assert (status is Status.KILLED) == killed
            assert status is not Status.WAITING
