"""Credit when a task leaves a worker and comes back to it: both ends must go on from the same count."""

from __future__ import annotations

from random import Random

from rainband.topology.tuples import Source
from rainband.worker.routes import Agenda, CreditLine, Gate, Outbox, Runner, Target

TASK = 5
SOURCE = Source("spout", "default", 1, ("n",))


def test_a_target_that_comes_back_counts_on() -> None:
    agenda = Agenda(1, Random(1))
    here, there = Outbox("a:1", agenda, 1000), Outbox("b:1", agenda, 1000)
    target = Target(TASK, 2, agenda)
    target.place(None, here)
    for number in range(2):
        target.deliver((number,), SOURCE, None, True)
    assert target.full
    target.place(None, there)
    assert not target.full
    target.place(None, here)
    assert (target.sent, target.granted, target.full) == (2, 2, True)


def test_a_new_process_counts_what_is_still_held_for_it() -> None:
    agenda = Agenda(1, Random(1))
    here = Outbox("a:1", agenda, 1000)
    target = Target(TASK, 3, agenda)
    target.place(None, here)
    for number in range(2):
        target.deliver((number,), SOURCE, None, True)
    target.place(None, here, anew=True)
    assert (target.sent, target.granted, target.full) == (2, 3, False)
    here.take()
    target.place(None, here, anew=True)
    assert (target.sent, target.granted, target.full) == (0, 3, False)


def test_a_task_that_leaves_grants_all_that_it_took() -> None:
    agenda = Agenda(1, Random(1))
    runner = Runner(TASK, 0, 4, agenda, Gate())
    line = CreditLine("a:1", TASK, 4)
    line.delivered += 1
    line.touched = True
    runner.touched = [line]
    runner.leave()
    assert (line.granted, line.touched, runner.touched, agenda.grants) == (5, False, [], [line])
