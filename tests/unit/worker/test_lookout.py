"""Whom a worker without a supervisor believes: a Nimbus of its own cluster that knows better than the worker does."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from rainband.errors import ClusterUnavailable, TopologyNotFound
from rainband.records import (
    Assignment,
    ClusterSummary,
    Executor,
    GetCluster,
    Placement,
    Request,
    Response,
    Slot,
    Status,
    TopologySummary,
)
from rainband.worker.lookout import KILLED, MOVED, why_unwanted

HERE, THERE = Slot("one", 6700), Slot("two", 6700)


def assigned(slot: Slot, epoch: int = 2, version: int = 5) -> Assignment:
    placement = Placement(Executor("count", 1, 4), slot, version)
    return Assignment("wc-1", version, Status.ACTIVE, (placement,), {slot.supervisor: "127.0.0.1"}, epoch)


OURS = assigned(HERE)


def cluster(cluster_id: str, topology: str | None, newest: Assignment | None = OURS) -> Callable[[Request], Response]:
    def call(request: Request) -> Response:
        if isinstance(request, GetCluster):
            return ClusterSummary("", (), (), cluster_id)
        if topology is None:
            raise TopologyNotFound("no topology named wc")
        summary = TopologySummary("wc", topology, Status.ACTIVE, 1, 1, 1, 0.0)
        return msgspec.structs.replace(summary, assignment=newest)

    return call


@pytest.mark.parametrize(
    ("cluster_id", "topology", "why"),
    [
        ("mine", "wc-1", ""),
        ("mine", None, KILLED),
        ("mine", "wc-2", KILLED),
        ("another", None, ""),
        ("another", "wc-2", ""),
    ],
)
def test_only_its_own_cluster_is_believed(cluster_id: str, topology: str | None, why: str) -> None:
    assert why_unwanted(cluster(cluster_id, topology), "mine", "wc", HERE, OURS) == why


@pytest.mark.parametrize(
    ("newest", "why"),
    [
        (assigned(THERE, 2, 6), MOVED),
        (assigned(THERE, 3, 1), MOVED),
        (assigned(HERE, 2, 6), ""),
        (assigned(THERE, 2, 5), ""),
        (assigned(THERE, 1, 9), ""),
        (None, ""),
    ],
)
def test_only_a_newer_assignment_without_its_slot_ends_it(newest: Assignment | None, why: str) -> None:
    assert why_unwanted(cluster("mine", "wc-1", newest), "mine", "wc", HERE, OURS) == why


def test_another_cluster_moves_nothing() -> None:
    assert why_unwanted(cluster("another", "wc-1", assigned(THERE, 3, 1)), "mine", "wc", HERE, OURS) == ""


def test_no_answer_is_no_word() -> None:
    def call(request: Request) -> Response:
        raise ClusterUnavailable("nobody there")

    with pytest.raises(ClusterUnavailable):
        why_unwanted(call, "mine", "wc", HERE, OURS)
