"""The life of a topology, as one table. Everything that changes a status is in this file.

A topology is ACTIVE or INACTIVE; REBALANCING and KILLED are waits that end by ELAPSED: either nothing is pending any
more, or the time given is over. REBALANCING goes on, placed anew, until MOVED: every worker knows the new placements
and is up, or had its time; only then spouts go on, so that nobody refuses what comes from a place it does not know
yet. WAITING is not a state of its own but how ACTIVE and INACTIVE look without slots.
An event that the table does not hold is refused and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rainband.errors import Refused
from rainband.records import Status


class Event(StrEnum):
    """What people ask for, and the ends of waits: ELAPSED of the status, MOVED of a rebalance that was placed."""

    ACTIVATE = "activate"
    DEACTIVATE = "deactivate"
    REBALANCE = "rebalance"
    KILL = "kill"
    ELAPSED = "elapsed"
    MOVED = "moved"


class Action(StrEnum):
    """What the transition asks Nimbus to do besides storing the status."""

    NOTHING = "nothing"
    START_WAIT = "start_wait"
    PLACE_ANEW = "place_anew"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Step:
    """To `status` (None: back to what it was before REBALANCING) with an `action`."""

    status: Status | None
    action: Action = Action.NOTHING


TABLE: dict[tuple[Status, Event], Step] = {
    (Status.ACTIVE, Event.ACTIVATE): Step(Status.ACTIVE),
    (Status.ACTIVE, Event.DEACTIVATE): Step(Status.INACTIVE),
    (Status.ACTIVE, Event.REBALANCE): Step(Status.REBALANCING, Action.START_WAIT),
    (Status.ACTIVE, Event.KILL): Step(Status.KILLED, Action.START_WAIT),
    (Status.INACTIVE, Event.ACTIVATE): Step(Status.ACTIVE),
    (Status.INACTIVE, Event.DEACTIVATE): Step(Status.INACTIVE),
    (Status.INACTIVE, Event.REBALANCE): Step(Status.REBALANCING, Action.START_WAIT),
    (Status.INACTIVE, Event.KILL): Step(Status.KILLED, Action.START_WAIT),
    (Status.REBALANCING, Event.KILL): Step(Status.KILLED, Action.START_WAIT),
    (Status.REBALANCING, Event.ELAPSED): Step(Status.REBALANCING, Action.PLACE_ANEW),
    (Status.REBALANCING, Event.MOVED): Step(None),
    (Status.KILLED, Event.KILL): Step(Status.KILLED, Action.START_WAIT),
    (Status.KILLED, Event.ELAPSED): Step(Status.KILLED, Action.REMOVE),
}
WHY_NOT = {
    Status.REBALANCING: "is being rebalanced; wait until that is done, or kill it",
    Status.KILLED: "is being killed",
}


def step(name: str, status: Status, resume: Status, event: Event) -> tuple[Status, Action]:
    """The status after `event` and what to do; `resume` is the status to return to after REBALANCING.

    Raises Refused when `event` means nothing in `status`.
    """
    found = TABLE.get((status, event))
    if found is None:
        raise Refused(f"cannot {event} {name}: it {WHY_NOT.get(status, f'is {status}')}")
    return found.status or resume, found.action
