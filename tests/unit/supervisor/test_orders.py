"""Whom a supervisor obeys."""

from __future__ import annotations

from rainband.records import Assignment, Executor, HeartbeatReply, Placement, Slot, Status
from rainband.supervisor.orders import Orders, wanted_by_port, weigh


def assignment(topology_id: str, version: int, *slots: tuple[str, int], epoch: int = 1) -> Assignment:
    placements = tuple(Placement(Executor("a", n, n), Slot(*slot), 1) for n, slot in enumerate(slots, 1))
    return Assignment(topology_id, version, Status.ACTIVE, placements, {"me": "h", "other": "h"}, epoch)


OLD = assignment("t-1", 3, ("me", 6700))
NEW = assignment("t-1", 4, ("me", 6701))


def test_news_are_taken() -> None:
    reply = HeartbeatReply((NEW, assignment("t-2", 1, ("me", 6700))), ("t-1", "t-2"), 1, "c")
    assert weigh({"t-1": OLD}, "c", 1, reply) == Orders("", reply.assignments)
    assert weigh({}, "", 0, reply) == Orders("", reply.assignments)


def test_what_is_not_wanted_any_more_is_dropped() -> None:
    assert weigh({"t-1": OLD, "t-0": OLD}, "c", 1, HeartbeatReply((), (), 1, "c")) == Orders("", (), ("t-0", "t-1"))


def test_an_old_assignment_changes_nothing() -> None:
    assert weigh({"t-1": NEW}, "c", 1, HeartbeatReply((OLD, NEW), ("t-1",), 1, "c")) == Orders()


def test_a_later_epoch_wins_over_a_larger_version() -> None:
    later = assignment("t-1", 1, ("me", 6700), epoch=2)
    assert weigh({"t-1": NEW}, "c", 1, HeartbeatReply((later,), ("t-1",), 2, "c")).newer == (later,)


def test_a_former_leader_is_ignored() -> None:
    orders = weigh({"t-1": OLD}, "c", 2, HeartbeatReply((NEW,), (), 1, "c"))
    assert orders.refused
    assert orders == Orders(orders.refused)


def test_another_cluster_never_ends_our_workers() -> None:
    orders = weigh({"t-1": OLD}, "c", 2, HeartbeatReply((), (), 9, "other"))
    assert "cluster id mismatch" in orders.refused
    assert not orders.dropped


def test_a_supervisor_with_nothing_to_lose_may_join_another_cluster() -> None:
    reply = HeartbeatReply((NEW,), ("t-1",), 1, "other")
    assert weigh({}, "c", 7, reply) == Orders("", (NEW,))


def test_ports_by_topology() -> None:
    known = {"t-1": assignment("t-1", 1, ("me", 6700), ("other", 6701)), "t-2": assignment("t-2", 1, ("me", 6702))}
    assert wanted_by_port(known, "me") == {6700: "t-1", 6702: "t-2"}
    assert wanted_by_port(known, "nobody") == {}
