"""What a client sends, to Nimbuses that come and go."""

from __future__ import annotations

import hashlib
import random

import msgspec
import pytest

from kit.clusters import WALL, word_count
from rainband.cluster.blobs import MemoryBlobs
from rainband.cluster.memory import MemoryStore
from rainband.errors import ClusterUnavailable, NotUploaded, TopologyExists
from rainband.messaging.rpc import failure
from rainband.nimbus.client import CHANGE_TRIES, SUBMIT_TRIES, deliver
from rainband.nimbus.core import Nimbus
from rainband.records import Failure, Request, Response, Submit, Upload

BUNDLE = random.Random(1).randbytes((2 << 20) + 100)
DIGEST = hashlib.sha256(BUNDLE).hexdigest()
REQUEST = Submit("wc", word_count(bundle=DIGEST).encode(), token="of this submit")


class Successors:
    """Nimbuses on one store, each with its own disk; the next one leads at each `changes`-th call."""

    def __init__(self, changes: set[int]) -> None:
        self.store = MemoryStore()
        self.changes = changes
        self.calls = 0
        self.uploads = 0
        self.leader = self.next()

    def next(self) -> Nimbus:
        return Nimbus(self.store, MemoryBlobs(), {}, 0.0)

    def call(self, request: Request) -> Response:
        self.calls += 1
        if self.calls in self.changes:
            self.leader = self.next()
        self.uploads += isinstance(request, Upload)
        answer = self.leader.handle(request, 0.0, WALL)
        if isinstance(answer, Failure):
            raise failure(answer)
        return answer


@pytest.mark.parametrize("at", range(1, 6))
def test_a_leader_that_goes_at_any_moment_of_a_submit_costs_an_upload_at_most(at: int) -> None:
    control = Successors({at})
    assert deliver(control, REQUEST, DIGEST, BUNDLE).topology_id.startswith("wc-1-")
    assert control.uploads <= 6


class Mortal(Successors):
    """The leader dies with the `at`-th call, before or after it was carried out; the next one leads after `away` more.

    What one of them has, all have.
    """

    def __init__(self, at: int, carried_out: bool, away: int) -> None:
        self.blobs = MemoryBlobs()
        super().__init__(set())
        self.at = at
        self.carried_out = carried_out
        self.away = away

    def next(self) -> Nimbus:
        return Nimbus(self.store, self.blobs, {}, 0.0)

    def call(self, request: Request) -> Response:
        if self.calls == self.at - 1 and self.carried_out:
            super().call(request)
            self.calls -= 1
        if self.at <= self.calls + 1 <= self.at + self.away:
            self.calls += 1
            self.leader = self.next()
            raise ClusterUnavailable("broke the connection before it answered")
        return super().call(request)


@pytest.mark.parametrize("away", [0, 3])
@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize("at", range(2, 7))
def test_a_leader_that_dies_in_a_submit_is_waited_for(at: int, carried_out: bool, away: int) -> None:
    control = Mortal(at, carried_out, away)
    assert deliver(control, REQUEST, DIGEST, BUNDLE).topology_id.startswith("wc-1-")
    assert control.calls > at + away
    with pytest.raises(TopologyExists):
        deliver(control, msgspec.structs.replace(REQUEST, token="another"), DIGEST, BUNDLE)


def test_a_cluster_that_is_not_there_is_told_of_at_once() -> None:
    control = Mortal(1, False, 1000)
    with pytest.raises(ClusterUnavailable):
        deliver(control, REQUEST, DIGEST, BUNDLE)
    assert control.calls == 1


def test_a_cluster_that_does_not_come_back_is_given_up() -> None:
    control = Mortal(3, False, 1000)
    with pytest.raises(ClusterUnavailable):
        deliver(control, REQUEST, DIGEST, BUNDLE)
    assert control.calls == 2 + CHANGE_TRIES


def test_what_is_there_is_not_sent_again() -> None:
    control = Successors(set())
    deliver(control, REQUEST, DIGEST, BUNDLE)
    again = Submit("another", word_count("another", bundle=DIGEST).encode())
    deliver(control, again, DIGEST, BUNDLE)
    assert control.uploads == 3


def test_leaders_that_never_stay_are_given_up() -> None:
    control = Successors(set(range(1000)))
    with pytest.raises(NotUploaded, match="only 0 bytes came"):
        deliver(control, REQUEST, DIGEST, BUNDLE)
    assert control.uploads == 2 * SUBMIT_TRIES
