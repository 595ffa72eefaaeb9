"""Sums over workers that come, go and come back."""

from __future__ import annotations

import pytest

from kit.clusters import beat, word_count
from rainband.nimbus.rows import Entry, TopologyRow
from rainband.nimbus.statistics import COMPONENT_ERRORS_MAX, ERRORS_MAX, Tally
from rainband.records import (
    Assignment,
    ErrorRecord,
    Executor,
    LinkCount,
    Placement,
    Slot,
    Statistics,
    Status,
    TaskCount,
    WorkerBeat,
    WorkerState,
)

ID = "wc-1-1700000000"
ONE, TWO = Slot("a", 6700), Slot("a", 6701)
ROW = TopologyRow("wc", ID, 1, Status.ACTIVE, Status.ACTIVE, 0.0)


def entry(*slots: Slot, version: int = 1, status: Status = Status.ACTIVE) -> Entry:
    """One executor per slot, placed in `version`."""
    executors = [Executor("count", 1, 2), Executor("count", 3, 4)]
    placements = tuple(Placement(e, slot, version) for e, slot in zip(executors, slots, strict=False))
    row = TopologyRow("wc", ID, 1, status, Status.ACTIVE, 0.0)
    return Entry(row, word_count(), Assignment(ID, version, status, placements, {"a": "127.0.0.1"}))


def total(tally: Tally, at: Entry) -> Statistics:
    tally.observe(at)
    return tally.statistics(at, missing=0, wanted=len(at.slots), uptime_s=1.0)


def spout(acked: int, pending: int = 0, failed: int = 0) -> TaskCount:
    return TaskCount(5, "lines", emitted=acked + pending + failed, acked=acked, failed=failed, pending=pending)


def test_spouts_and_bolts_are_summed_apart() -> None:
    tally = Tally()
    lines = TaskCount(
        5, "lines", 20, 20, executed=30, acked=7, failed=2, timed_out=1, replayed=2, pending=1, complete_s=0.5
    )
    split = TaskCount(6, "split", emitted=40, transferred=80, executed=20, acked=20, errors=3, queued=4, execute_s=0.25)
    acker = TaskCount(9, "__acker", executed=1000)
    tally.hear(ONE, beat(ID, 6700, 1, lines, acker, counters={"second_acks": 2}))
    tally.hear(TWO, beat(ID, 6701, 2, split, counters={"second_acks": 1, "passes": 9}))
    found = total(tally, entry(ONE, TWO))
    assert (found.emitted, found.acked, found.failed, found.pending) == (10, 7, 2, 1)
    assert (found.timed_out, found.replayed) == (1, 2)
    assert (found.executed, found.transferred, found.errors, found.complete_s) == (20, 100, 3, 0.5)
    assert found.counters == {"passes": 9, "second_acks": 3}
    assert (found.workers_running, found.workers_wanted) == (2, 2)
    component = found.components["split"]
    assert (component.emitted, component.executed, component.queued, component.tasks) == (40, 20, 4, 2)
    assert component.execute_s == 0.25
    assert found.components["lines"].executed == 30, "how often it was asked"
    assert set(found.components) == {"lines", "split", "count"}


@pytest.mark.parametrize("seeking", [False, True])
def test_roots_that_died_with_their_spout_are_lost_or_read_again(seeking: bool) -> None:
    tally = Tally()
    positions = {5: b"here"} if seeking else {}
    lines = TaskCount(5, "lines", acked=90, failed=2, pending=8, tracked=100)
    tally.hear(ONE, beat(ID, 6700, 1, lines, positions=positions))
    found = total(tally, entry(ONE))
    assert (found.emitted, found.lost, found.counters) == (100, 0, {})
    tally.hear(ONE, beat(ID, 6700, 2, TaskCount(5, "lines", acked=1, pending=3, tracked=4), positions=positions))
    found = total(tally, entry(ONE))
    assert (found.acked, found.pending, found.failed) == (91, 3, 2)
    assert found.emitted == found.acked + found.pending + found.failed + found.lost
    assert (found.lost, found.counters) == ((0, {"read_again": 8}) if seeking else (8, {}))


def test_what_dead_workers_did_stays_and_what_they_had_pending_goes() -> None:
    tally = Tally()
    tally.hear(ONE, beat(ID, 6700, 1, spout(100, pending=8)))
    assert total(tally, entry(ONE)).pending == 8
    tally.hear(ONE, beat(ID, 6700, 1, spout(100, pending=8), state=WorkerState.CRASHED, restarts=1))
    found = total(tally, entry(ONE))
    assert (found.acked, found.pending, found.workers_running, found.restarts) == (100, 0, 0, 1)
    tally.hear(ONE, beat(ID, 6700, 2, spout(5, pending=3), restarts=1))
    found = total(tally, entry(ONE))
    assert (found.acked, found.pending, found.workers_running, found.restarts) == (105, 3, 1, 1)


def test_a_late_word_of_a_dead_worker_is_not_counted_again() -> None:
    tally = Tally()
    tally.hear(ONE, beat(ID, 6700, 1, spout(100)))
    tally.hear(ONE, beat(ID, 6700, 2, spout(1)))
    tally.hear(ONE, beat(ID, 6700, 1, spout(120)))
    assert total(tally, entry(ONE)).acked == 101


def test_who_speaks_on_after_a_late_word_of_its_predecessor_is_believed() -> None:
    """A new leader hears of the worker that is there first, then what the supervisor before had still on its way."""
    tally = Tally()
    at = entry(ONE, version=2)
    tally.hear(ONE, beat(ID, 6700, 2, spout(10), version=2, counters={"passes": 5}))
    tally.hear(ONE, beat(ID, 6700, 1, spout(100), version=1, counters={"passes": 7}))
    assert not tally.moved(at)
    tally.hear(ONE, beat(ID, 6700, 2, spout(11), version=2, counters={"passes": 6}))
    tally.hear(ONE, beat(ID, 6700, 2, spout(12), version=2, counters={"passes": 8}))
    assert tally.moved(at)
    found = total(tally, at)
    assert (found.acked, found.counters["passes"], found.restarts) == (112, 15, 1)
    tally.hear(ONE, beat(ID, 6700, 1, spout(100), version=1))
    assert tally.moved(at)
    assert total(tally, at).acked == 112


def test_a_supervisor_that_was_restarted_finds_the_same_sums() -> None:
    """It reports nothing until it has found its workers; and it may say CRASHED with no worker behind it."""
    tally = Tally()
    tally.hear(ONE, beat(ID, 6700, 1, spout(100)))
    tally.silence([ONE])
    found = total(tally, entry(ONE))
    assert (found.acked, found.workers_running, found.workers) == (100, 0, ())
    tally.hear(ONE, beat(ID, 6700, 0, state=WorkerState.CRASHED, note="cannot localize"))
    assert total(tally, entry(ONE)).workers[0].note == "cannot localize"
    tally.hear(ONE, beat(ID, 6700, 1, spout(110)))
    found = total(tally, entry(ONE))
    assert (found.acked, found.workers_running, found.restarts) == (110, 1, 0)


def test_sums_of_slots_and_tasks_that_were_left_stay() -> None:
    tally = Tally()
    tally.hear(ONE, beat(ID, 6700, 1, spout(100), TaskCount(1, "count", executed=7)))
    tally.hear(TWO, beat(ID, 6701, 2, TaskCount(3, "count", executed=5), restarts=2))
    tally.hear(ONE, beat(ID, 6700, 1, spout(101)))
    tally.keep_only({ONE})
    found = total(tally, entry(ONE))
    assert (found.acked, found.executed, found.restarts) == (101, 12, 2)
    assert len(found.workers) == 1


def test_a_process_whose_slot_was_given_up_and_came_back_counts_again_and_once() -> None:
    tally = Tally()
    tally.hear(ONE, beat(ID, 6700, 1, spout(acked=3)))
    tally.hear(TWO, beat(ID, 6701, 2, spout(acked=4), counters={"passes": 5}))
    tally.keep_only({ONE})
    tally.hear(TWO, beat(ID, 6701, 2, spout(acked=6), counters={"passes": 9}, version=3))
    found = total(tally, entry(ONE, TWO))
    assert (found.acked, found.counters["passes"]) == (9, 9)
    tally.hear(ONE, beat(ID, 6700, 1, spout(acked=3), version=3))
    assert tally.moved(entry(ONE, TWO, version=3))


def test_running_means_having_opened_what_was_placed_there_last() -> None:
    tally = Tally()
    at = entry(ONE, TWO, version=3)
    tally.hear(ONE, beat(ID, 6700, 1, version=3, state=WorkerState.STARTING))
    tally.hear(TWO, beat(ID, 6701, 2, version=2))
    assert tally.running(at) == 0
    tally.hear(ONE, beat(ID, 6700, 1, version=4))
    tally.hear(TWO, beat(ID, 6701, 2, version=3))
    assert tally.running(at) == 2


def idle(port: int, incarnation: int, executed: int = 0, **fields: object) -> WorkerBeat:
    """A worker with nothing to do. Give `links=` where it is joined to others."""
    return beat(ID, port, incarnation, TaskCount(port - 6699, "count", executed=executed), **fields)  # type: ignore[arg-type]


def link(port: int, peer: int, sent: int, received: int) -> tuple[LinkCount, ...]:
    return (LinkCount(f"127.0.0.1:{port}", peer, sent, received),)


def test_drained_when_all_that_was_sent_was_received() -> None:
    tally = Tally()
    at = entry(ONE, TWO)
    tally.hear(ONE, idle(6700, 1, links=link(6701, 2, 3, 1)))
    assert not total(tally, at).drained
    tally.hear(TWO, idle(6701, 2, links=link(6700, 1, 1, 2)))
    assert not total(tally, at).drained  # one frame is under way
    tally.hear(TWO, idle(6701, 2, links=link(6700, 1, 1, 3)))
    assert total(tally, at).drained
    tally.hear(TWO, idle(6701, 2, idle=False, links=link(6700, 1, 1, 3)))
    assert not total(tally, at).drained


def test_frames_of_another_process_do_not_count() -> None:
    tally = Tally()
    at = entry(ONE, TWO)
    tally.hear(ONE, idle(6700, 1, links=link(6701, 9, 3, 0)))
    tally.hear(TWO, idle(6701, 2, links=link(6700, 1, 0, 3)))
    assert not total(tally, at).drained
    tally.hear(ONE, idle(6700, 1, links=link(6701, 2, 0, 0)))
    tally.hear(TWO, idle(6701, 2, links=link(6700, 1, 0, 0)))
    assert total(tally, at).drained


def test_ticks_that_always_have_something_under_way_do_not_matter_after_as_many_rounds_as_levels() -> None:
    """Worker 1 sends a tuple each time before it reports, so one is always missing at worker 2."""
    tally = Tally()
    at = entry(ONE, TWO)
    levels = at.plan.levels
    rounds = 0
    while not total(tally, at).drained:
        rounds += 1
        assert rounds <= levels
        tally.hear(ONE, idle(6700, 1, links=link(6701, 2, 10 + rounds, 0)))
        tally.hear(TWO, idle(6701, 2, links=link(6700, 1, 0, 9 + rounds)))
    assert rounds == levels


def test_a_worker_that_does_not_receive_what_was_sent_holds_the_rounds_up() -> None:
    tally = Tally()
    at = entry(ONE, TWO)
    for number in range(10):
        tally.hear(ONE, idle(6700, 1, links=link(6701, 2, 10 + number, 0)))
        tally.hear(TWO, idle(6701, 2, links=link(6700, 1, 0, 9)))
        assert not total(tally, at).drained


def test_a_repeated_beat_is_no_second_look() -> None:
    tally = Tally()
    at = entry(ONE, TWO)
    one = idle(6700, 1, links=link(6701, 2, 10, 0))
    two = idle(6701, 2, links=link(6700, 1, 0, 12))
    for _ in range(10):
        tally.hear(ONE, one)
        tally.hear(TWO, two)
        assert not total(tally, at).drained


def test_a_spout_that_goes_on_ends_the_rounds() -> None:
    tally = Tally()
    at = entry(ONE, TWO)
    for number in range(10):
        lines = TaskCount(5, "lines", finished=number % 2 == 0)
        tally.hear(ONE, beat(ID, 6700, 1, lines, idle=True, links=link(6701, 2, 10 + number, 0)))
        tally.hear(TWO, idle(6701, 2, links=link(6700, 1, 0, 9 + number)))
        assert not total(tally, at).drained


def test_one_worker_knows_by_itself() -> None:
    tally = Tally()
    tally.hear(ONE, idle(6700, 1))
    assert total(tally, entry(ONE)).drained
    assert not total(tally, entry(ONE, TWO)).drained
    tally.hear(ONE, idle(6700, 1, state=WorkerState.CRASHED))
    assert not total(tally, entry(ONE)).drained


def test_a_paused_topology_is_quiet_but_not_drained() -> None:
    tally = Tally()
    tally.hear(ONE, beat(ID, 6700, 1, spout(3), idle=True, paused=True))
    assert not total(tally, entry(ONE)).drained
    assert tally.quiet
    tally.hear(ONE, beat(ID, 6700, 1, spout(3), idle=True))
    assert not total(tally, entry(ONE)).drained
    assert not tally.quiet


def test_nothing_is_drained_without_workers() -> None:
    assert not total(Tally(), entry()).drained
    assert total(Tally(), Entry(ROW, word_count())).status is Status.WAITING


def test_a_wait_is_over_when_every_worker_paused_and_has_nothing_pending() -> None:
    at = entry(ONE, TWO, version=2, status=Status.KILLED)
    paused = {"version": 2, "paused": True}
    heard = {"a": 0.0}
    cases: list[tuple[list[WorkerBeat], dict[str, float], bool]] = [
        ([idle(6700, 1, **paused), idle(6701, 2, **paused)], heard, True),
        ([idle(6700, 1, **paused), idle(6701, 2, **paused)], {}, False),
        ([idle(6700, 1, **paused), idle(6701, 2, version=1, paused=True)], heard, False),
        ([idle(6700, 1, **paused), idle(6701, 2, version=2)], heard, False),
        ([idle(6700, 1, **paused), idle(6701, 2, pending=1, **paused)], heard, False),
        ([idle(6700, 1, **paused), idle(6701, 2, state=WorkerState.CRASHED)], heard, True),
        ([idle(6700, 1, **paused), idle(6701, 2, state=WorkerState.STARTING)], heard, False),
        ([idle(6700, 1, **paused), idle(6701, 2, state=WorkerState.STARTING, **paused)], heard, False),
        ([idle(6700, 1, **paused)], heard, False),
        ([idle(6700, 1, **paused)], {"a": 3.0}, True),
        ([], {"a": 2.9}, False),
        ([], {"a": 3.0}, True),
    ]
    for beats, heard_s, settled in cases:
        tally = Tally()
        for one in beats:
            tally.hear(Slot("a", one.port), one)
        assert tally.settled(at, heard_s) == settled, (beats, heard_s)


def errors_of(component: str, count: int) -> tuple[ErrorRecord, ...]:
    return tuple(ErrorRecord(component, 6, "h", 1, float(n), "E", "Traceback ...") for n in range(count))


def test_the_newest_errors_of_each_component_are_kept() -> None:
    tally = Tally()
    tally.hear(ONE, beat(ID, 6700, 1, errors=errors_of("count", 1)))
    tally.hear(ONE, beat(ID, 6700, 1, errors=errors_of("split", COMPONENT_ERRORS_MAX + 5)))
    assert [error.at for error in tally.errors("split")] == [float(n) for n in range(5, COMPONENT_ERRORS_MAX + 5)]
    assert tally.errors("count") == errors_of("count", 1), "a component with many errors does not hide another one's"


def test_errors_of_all_components_together_are_bounded() -> None:
    tally = Tally(errors_max=ERRORS_MAX)
    tally.hear(ONE, beat(ID, 6700, 1, errors=errors_of("count", 5)))
    tally.hear(ONE, beat(ID, 6700, 1, errors=errors_of("split", ERRORS_MAX)))
    assert tally.errors() == errors_of("split", ERRORS_MAX)


def test_a_beat_is_kept_without_its_errors() -> None:
    tally = Tally()
    at = entry(ONE)
    for _ in range(2):  # the supervisor says it again when it did not hear that Nimbus has it
        tally.hear(ONE, beat(ID, 6700, 1, errors=errors_of("split", 1)))
    assert tally.errors() == errors_of("split", 1)
    assert [worker.errors for worker in total(tally, at).workers] == [()]
