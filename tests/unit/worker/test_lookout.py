"""Whom a worker without a supervisor believes: a Nimbus of its own cluster that says its topology is gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rainband.errors import ClusterUnavailable, TopologyNotFound
from rainband.records import ClusterSummary, GetCluster, Request, Response, Status, TopologySummary
from rainband.worker.lookout import is_gone


def cluster(cluster_id: str, topology: str | None) -> Callable[[Request], Response]:
    def call(request: Request) -> Response:
        if isinstance(request, GetCluster):
            return ClusterSummary("", (), (), cluster_id)
        if topology is None:
            raise TopologyNotFound("no topology named wc")
        return TopologySummary("wc", topology, Status.ACTIVE, 1, 1, 1, 0.0)

    return call


@pytest.mark.parametrize(
    ("cluster_id", "topology", "gone"),
    [
        ("mine", "wc-1", False),
        ("mine", None, True),
        ("mine", "wc-2", True),
        ("another", None, False),
        ("another", "wc-2", False),
    ],
)
def test_only_its_own_cluster_is_believed(cluster_id: str, topology: str | None, gone: bool) -> None:
    assert is_gone(cluster(cluster_id, topology), "mine", "wc", "wc-1") is gone


def test_no_answer_is_no_word() -> None:
    def call(request: Request) -> Response:
        raise ClusterUnavailable("nobody there")

    with pytest.raises(ClusterUnavailable):
        is_gone(call, "mine", "wc", "wc-1")
