"""What a client sends, to Nimbuses that come and go."""

from __future__ import annotations

import hashlib
import random

import pytest

from kit.clusters import WALL, word_count
from rainband.cluster.blobs import MemoryBlobs
from rainband.cluster.memory import MemoryStore
from rainband.errors import NotUploaded
from rainband.messaging.rpc import failure
from rainband.nimbus.client import SUBMIT_TRIES, deliver
from rainband.nimbus.core import Nimbus
from rainband.records import Failure, Request, Response, Submit, Upload

BUNDLE = random.Random(1).randbytes((2 << 20) + 100)
DIGEST = hashlib.sha256(BUNDLE).hexdigest()
REQUEST = Submit("wc", word_count(bundle=DIGEST).encode())


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
