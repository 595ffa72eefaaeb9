"""Who leads, and for how long: decided without a clock or a connection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainband.cluster.election import Alone, Lease, Standing, lasts_s, places_of, queue_of

A, B = "a" * 32, "b" * 32


def test_a_lease_counts_from_when_its_renewal_was_sent() -> None:
    lease = Lease()
    lease.session_s = 10.0
    lease.renewed(100.0)
    assert lease.held(107.9)
    assert not lease.held(108.0)
    lease.renewed(99.0)
    assert lease.held(107.9)
    lease.end()
    assert not lease.held(0.0)


def test_without_a_known_session_there_is_no_lease() -> None:
    lease = Lease()
    lease.renewed(100.0)
    assert not lease.held(100.0)


@pytest.mark.parametrize(("session_s", "lasts"), [(0.5, 0.0), (1.0, 0.0), (4.0, 3.0), (10.0, 8.0), (40.0, 32.0)])
def test_the_margin_is_a_fifth_and_at_least_a_second(session_s: float, lasts: float) -> None:
    assert lasts_s(session_s) == lasts


@given(
    session_s=st.floats(2.0, 60.0),
    sent=st.lists(st.floats(0.0, 50.0), min_size=1, max_size=8),
    delay_s=st.floats(0.0, 5.0),
    rate=st.floats(0.9, 1.1),
)
def test_a_leader_believes_no_longer_than_the_others_wait(
    session_s: float, sent: list[float], delay_s: float, rate: float
) -> None:
    """The other side counts the session from when it hears of a renewal; its clock may run a tenth fast or slow."""
    lease = Lease()
    lease.session_s = session_s
    for at in sorted(sent):
        lease.renewed(at)
    replaced_at = max(sent) + delay_s + session_s / rate
    assert lease.until <= replaced_at


def test_the_queue_is_by_number_and_takes_no_strangers() -> None:
    nodes = [f"{B}-0000000007", "lock-0000000001", f"{A}-0000000012", f"{A}-12", f"{A}-0000000012\n", "x" * 32]
    assert [candidate.number for candidate in queue_of(nodes)] == [7, 12]


def test_of_two_places_the_first_is_kept() -> None:
    queue = queue_of([f"{A}-0000000009", f"{B}-0000000004", f"{A}-0000000003"])
    own, more = places_of(A, queue)
    assert own == queue[0]
    assert more == [queue[2]]
    assert places_of("c" * 32, queue) == (None, [])


def test_alone_leads_always() -> None:
    election = Alone()
    election.stand("127.0.0.1:6627", lambda: None)
    election.resign()
    assert election.standing(0.0) == Standing(True, "127.0.0.1:6627", ("127.0.0.1:6627",))
    election.close()
