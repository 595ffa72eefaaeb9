"""The search for an order of operations finds one where there is one, and none where there is none."""

from __future__ import annotations

import pytest

from rainband.records import (
    Activate,
    Done,
    Failure,
    Kill,
    ListTopologies,
    Request,
    Response,
    Status,
    Submit,
    Topologies,
    TopologySummary,
)
from simulation.history import NEVER, Operation, linearizable

SUBMIT, KILL = Submit("t", b""), Kill("t")
AGAIN = Submit("t", b"", token="a")


def listed(status: Status | None) -> Topologies:
    rows = () if status is None else (TopologySummary("t", "t-1", status, 1, 1, 1, 0.0),)
    return Topologies(rows)


def operation(begin: float, end: float, request: Request, reply: Response | None) -> Operation:
    return Operation(request, begin, end, reply)


@pytest.mark.parametrize(
    ("operations", "fits"),
    [
        ([(0, 1, SUBMIT, Done("t-1")), (2, 3, ListTopologies(), listed(Status.ACTIVE))], True),
        ([(0, 1, SUBMIT, Done("t-1")), (2, 3, ListTopologies(), listed(None))], False),
        ([(0, 3, SUBMIT, Done("t-1")), (1, 2, ListTopologies(), listed(None))], True),
        ([(0, NEVER, SUBMIT, None), (1, 2, ListTopologies(), listed(None))], True),
        ([(0, NEVER, SUBMIT, None), (5, 6, ListTopologies(), listed(Status.ACTIVE))], True),
        ([(0, 1, SUBMIT, Done("t-1")), (2, 3, SUBMIT, Failure("topology_exists", ""))], True),
        ([(0, 1, SUBMIT, Failure("topology_exists", ""))], False),
        ([(0, 1, SUBMIT, Done("t-1")), (2, 3, KILL, Done("t-1")), (4, 5, ListTopologies(), listed(None))], True),
        ([(0, 1, SUBMIT, Done("t-1")), (2, 3, KILL, Done("t-1")), (4, 5, Activate("t"), Done("t-1"))], False),
        ([(0, 1, SUBMIT, Done("t-1")), (2, 3, KILL, Done("t-1")), (4, 5, SUBMIT, Done("t-2"))], True),
        ([(0, 1, SUBMIT, Done("t-1")), (2, 3, SUBMIT, Done("t-2"))], False),
        ([(0, 1, AGAIN, Done("t-1")), (2, 3, AGAIN, Done("t-1"))], True),
        ([(0, 1, AGAIN, Done("t-1")), (2, 3, AGAIN, Done("t-2"))], False),
        ([(0, 1, AGAIN, Done("t-1")), (2, 3, AGAIN, Failure("topology_exists", ""))], False),
        ([(0, 1, SUBMIT, Done("t-1")), (2, 3, AGAIN, Done("t-1"))], False),
    ],
)
def test_an_order_is_found_if_and_only_if_there_is_one(
    operations: list[tuple[float, float, Request, Response | None]], fits: bool
) -> None:
    assert linearizable([operation(*given) for given in operations], "t") is fits
