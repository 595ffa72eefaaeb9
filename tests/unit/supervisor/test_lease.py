"""What is exclusive ends here before it can begin elsewhere."""

from __future__ import annotations

from rainband.supervisor.lease import Lease

SECONDS = 30.0


def test_nothing_is_held_before_the_first_answer() -> None:
    assert not Lease(SECONDS).held(0.0)


def test_it_counts_from_the_question_and_ends_before_nimbus_gives_up() -> None:
    lease = Lease(SECONDS)
    lease.confirmed(100.0)
    assert lease.held(123.9)
    assert not lease.held(124.0)
    assert not lease.overdue(126.9)
    assert lease.overdue(127.0)


def test_an_answer_that_waited_in_a_stopped_process_renews_nothing() -> None:
    lease = Lease(SECONDS)
    lease.confirmed(100.0)
    assert not lease.held(500.0)
    lease.confirmed(90.0)
    assert lease.until == 124.0


def test_workers_that_were_told_more_by_an_earlier_supervisor_are_not_overdue() -> None:
    assert Lease(SECONDS).overdue(10.0)
    assert not Lease(SECONDS, inherited=20.0).overdue(10.0)
