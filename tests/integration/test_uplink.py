"""The line to several Nimbuses: one that has died without a word costs a share of the lease, not all of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from kit.chaos import now, wait
from kit.clusters import heartbeat
from rainband.messaging.rpc import RpcClient, RpcServer
from rainband.records import HeartbeatReply
from rainband.supervisor.uplink import Answered, Unanswered, Uplink, patience_s

LEASE_S = 3.0


@pytest.fixture
def silent() -> Iterator[RpcServer]:
    """Takes connections and requests and never answers, as a process that was stopped."""
    with closing(RpcServer("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def leader() -> Iterator[RpcServer]:
    with closing(RpcServer("127.0.0.1", 0)) as server:
        done = threading.Event()

        def serve() -> None:
            while not done.is_set():
                for peer, number, _ in server.poll(1.0):
                    server.reply(peer, number, HeartbeatReply(epoch=2))

        thread = threading.Thread(target=serve)
        thread.start()
        yield server
        done.set()
        server.wake()
        thread.join()


@pytest.mark.parametrize("lease_s", [0.5, 3.0, 5.0, 30.0])
def test_two_silent_nimbuses_leave_half_of_the_lease(lease_s: float) -> None:
    assert 2 * patience_s(lease_s) <= lease_s / 2


def test_a_silent_leader_is_left_for_another_seed_in_time(silent: RpcServer, leader: RpcServer) -> None:
    news: list[object] = []
    uplink = Uplink(RpcClient([silent.address, leader.address]), lambda: None, LEASE_S)
    try:
        at = now()
        while Answered not in map(type, news):
            uplink.report(heartbeat())
            news += wait(uplink.take, LEASE_S)
        took_s = now() - at
    finally:
        uplink.close()
    assert [type(one) for one in news] == [Unanswered, Answered]
    assert took_s <= LEASE_S / 2
