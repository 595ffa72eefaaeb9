"""Tuples that are refused take no credit: their sender could wait for ever for room that it never used."""

from __future__ import annotations

from random import Random

import msgspec

from rainband.messaging.values import encode_rows
from rainband.topology.tuples import Source
from rainband.worker.books import Books
from rainband.worker.routes import Agenda, Gate, Runner, Target
from rainband.worker.transfer import Inbound

SENDER = "10.0.0.1:6700"
TASK = 5


def test_a_refused_tuple_gives_its_credit_back() -> None:
    agenda = Agenda(1, Random(1))
    runners = {TASK: Runner(TASK, 0, 1, agenda, Gate())}
    source = Source("spout", "default", 21, ("n",))
    inbound = Inbound(
        agenda, Books(agenda, [], []), runners, {TASK: Target(TASK, 1, agenda)}, 1, lambda n, t: source, lambda n: 1,
        frozenset(), lambda task, error: None,
    )  # fmt: skip
    inbound.address_of = {21: "somewhere else by now"}
    run = [0, True, TASK, [21, 1], [], 0, [], {}, encode_rows([(7,)], frozenset())]
    inbound.data(SENDER, msgspec.msgpack.encode(run))
    assert inbound.refused == 1
    assert not runners[TASK].inbox
    assert [(line.sender, line.task, line.granted) for line in agenda.grants] == [(SENDER, TASK, 2)]
