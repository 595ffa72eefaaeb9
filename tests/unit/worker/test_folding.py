"""What is done once for many tuples: reports of one root are folded, small frames wait while there is other work."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from rainband.acker.ledger import COUNTER_BITS, INCARNATION_BITS
from rainband.errors import EmitRefused
from rainband.messaging.values import encode_rows
from rainband.topology.tuples import Source
from rainband.worker.books import Books
from rainband.worker.routes import HOLD_PASSES, HOLD_ROWS, Agenda, EdgeIds, Gate, Outbox, Runner, Target
from rainband.worker.transfer import Inbound

SENDER = "10.0.0.1:6700"
SPOUT, TASK = 1, 2
ROOT = 5


def no_overrun(task: int, error: EmitRefused) -> None:
    raise error


def test_tuples_of_one_root_in_several_messages_make_one_report() -> None:
    agenda = Agenda(1, Random(1))
    books = Books(agenda, [SPOUT], [])
    home = Outbox(SENDER, agenda, 1 << 20)
    books.targets[SPOUT] = Target(SPOUT, 1, agenda)
    books.targets[SPOUT].place(None, home)
    runner = Runner(TASK, 0, 100, agenda, Gate())
    source = Source("spout", "default", SPOUT, ("n",))
    inbound = Inbound(
        agenda, books, {TASK: runner}, books.targets, 100, lambda n, t: source, lambda n: 1, frozenset(),
        no_overrun,
    )  # fmt: skip
    inbound.address_of = {SPOUT: SENDER}
    edges = 0
    for state in (1, 99):
        edges ^= EdgeIds(state).next()
        run = [0, True, TASK, [SPOUT, 2], [ROOT], state, [2], {}, encode_rows([(7,), (8,)])]
        inbound.data(SENDER, msgspec.msgpack.encode(run))
    for tup in runner.take():
        agenda.release(tup._anchor)  # type: ignore[arg-type]
    books.settle()
    assert home.reports == [ROOT, edges]


def test_a_root_of_the_same_place_gets_a_proxy_of_its_own() -> None:
    agenda = Agenda(1, Random(1))
    source = Source("spout", "default", SPOUT, ("n",))
    books = Books(agenda, [SPOUT], [])
    inbound = Inbound(agenda, books, {}, {}, 1, lambda n, t: source, lambda n: 1, frozenset(), no_overrun)
    first, other = inbound.tree(ROOT), inbound.tree(ROOT + (1 << (COUNTER_BITS + INCARNATION_BITS)))
    assert (first.root, inbound.tree(ROOT).root) == (ROOT, ROOT)
    assert other is not first
    failed = inbound.tree(ROOT)
    failed.failed = True
    assert inbound.tree(ROOT) is not failed


def test_edges_can_be_drawn_again_from_the_state() -> None:
    ids = EdgeIds(Random(1).getrandbits(62))
    state = ids.state
    drawn = [ids.next() for _ in range(5)]
    again = EdgeIds(0).again(state)
    assert [again.next() for _ in range(5)] == drawn


def test_a_small_frame_waits_for_a_few_passes() -> None:
    agenda = Agenda(1, Random(1))
    outbox = Outbox(SENDER, agenda, 1 << 20)
    assert [outbox.hold() for _ in range(HOLD_PASSES + 1)] == [True] * HOLD_PASSES + [False]
    assert outbox.hold()
    source = Source("spout", "default", SPOUT, ("n",))
    for _ in range(HOLD_ROWS):
        outbox.add((1,), source, TASK, None, True)
    assert not outbox.hold()
    outbox.take()
    assert outbox.hold()


@pytest.mark.parametrize(("under_way", "good"), [(1 << 20, HOLD_ROWS), (1000, 250), (4, 1), (1, 1)])
def test_a_good_frame_is_a_part_of_what_may_be_under_way(under_way: int, good: int) -> None:
    outbox = Outbox(SENDER, Agenda(1, Random(1)), under_way)
    source = Source("spout", "default", SPOUT, ("n",))
    for _ in range(good):
        assert outbox.hold()
        outbox.held = 0
        outbox.add((1,), source, TASK, None, True)
    assert not outbox.hold()
