"""What goes round a cycle takes no credit: when too much waits, the next is refused with an error."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from rainband.errors import EmitRefused
from rainband.messaging.values import encode_rows
from rainband.topology.tuples import Source, Tuple
from rainband.worker.books import Books
from rainband.worker.routes import CYCLE_MAX, Agenda, Gate, Runner, Target
from rainband.worker.transfer import Inbound

SENDER = "10.0.0.1:6700"
SPOUT, TASK, ROOT = 1, 2, 5
SOURCE = Source("loop", "default", SPOUT, ("n",))


def full(agenda: Agenda) -> Runner:
    runner = Runner(TASK, 0, 100, agenda, Gate())
    runner.inbox = [Tuple((1,), SOURCE)] * CYCLE_MAX
    return runner


def test_within_a_worker_the_emit_is_refused() -> None:
    agenda = Agenda(1, Random(1))
    target = Target(TASK, 100, agenda)
    target.place(full(agenda), None)
    with pytest.raises(EmitRefused, match=f"'loop' emitted on stream 'default'.* a cycle: {CYCLE_MAX} tuples wait"):
        target.deliver((1,), SOURCE, None, False)
    assert target.runner is not None
    target.runner.inbox.pop()
    target.deliver((1,), SOURCE, None, False)
    assert len(target.runner.inbox) == CYCLE_MAX


def test_between_workers_the_root_fails_and_the_error_is_told() -> None:
    agenda = Agenda(1, Random(1))
    told: list[tuple[int, str]] = []
    inbound = Inbound(
        agenda, Books(agenda, [SPOUT], []), {TASK: full(agenda)}, {}, 100, lambda n, t: SOURCE, lambda n: 1,
        frozenset(), lambda task, error: told.append((task, str(error))),
    )  # fmt: skip
    inbound.address_of = {SPOUT: SENDER}
    run = [0, False, TASK, [SPOUT, 2], [ROOT, 0], 7, [1, 1], {}, encode_rows([(7,), (8,)])]
    inbound.data(SENDER, msgspec.msgpack.encode(run))
    assert [tree.root for tree in agenda.failed] == [ROOT]
    assert [task for task, _ in told] == [SPOUT, SPOUT]
    assert inbound.refused == 2
