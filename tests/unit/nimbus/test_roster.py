"""Supervisors that share a name, and those that only start again."""

from __future__ import annotations

import msgspec
import pytest

from kit.clusters import heartbeat
from rainband.errors import SupervisorReplaced
from rainband.nimbus.liveness import Liveness
from rainband.nimbus.roster import Roster
from rainband.records import Heartbeat

LEASE_S = 30.0


def of(incarnation: int, host: str = "127.0.0.1", *, stopping: bool = False) -> Heartbeat:
    return msgspec.structs.replace(heartbeat(stopping=stopping), incarnation=incarnation, host=host)


@pytest.fixture
def roster() -> Roster:
    return Roster(Liveness(LEASE_S, (), 0.0))


def test_of_two_supervisors_with_one_name_the_first_is_refused_and_moves_nothing(roster: Roster) -> None:
    roster.hear(of(1, "10.0.0.1"), 0.0)
    assert roster.hear(of(2, "10.0.0.2"), 1.0)
    roster.take_changed()
    for now in (1.5, 2.5, 60.0):
        roster.hear(of(2, "10.0.0.2"), now - 0.5)
        with pytest.raises(SupervisorReplaced) as caught:
            roster.hear(of(1, "10.0.0.1"), now)
        assert str(caught.value) == (
            "two supervisors are called a: the one at 10.0.0.2 has taken the place of the one at 10.0.0.1. "
            "Start each with its own state directory and supervisor.id"
        )
    assert [beat.host for beat in roster.alive_heartbeats()] == ["10.0.0.2"]
    assert not roster.take_changed()


def test_a_supervisor_that_starts_again_and_again_is_not_disturbed(roster: Roster) -> None:
    for incarnation in range(1, 20):
        assert roster.hear(of(incarnation), incarnation * 0.1)
        assert not roster.hear(of(incarnation), incarnation * 0.1 + 0.05)


def test_a_late_word_of_a_dead_process_keeps_its_replacement_out_for_half_a_lease(roster: Roster) -> None:
    roster.hear(of(2), 0.0)
    roster.hear(of(1), 0.1)
    with pytest.raises(SupervisorReplaced):
        roster.hear(of(2), 1.0)
    assert roster.hear(of(2), 0.1 + LEASE_S / 2)
    assert not roster.hear(of(2), 20.0)


def test_whoever_was_heard_once_stays_known_when_it_is_forgotten(roster: Roster) -> None:
    assert not roster.knows("a")
    roster.hear(of(1), 0.0)
    roster.expire(10_000.0)
    roster.expire(10_001.0)
    assert roster.summaries({}, 10_001.0) == ()
    assert roster.knows("a")


def test_the_place_of_one_that_says_goodbye_is_free(roster: Roster) -> None:
    roster.hear(of(1), 0.0)
    roster.hear(of(2), 1.0)
    with pytest.raises(SupervisorReplaced):
        roster.hear(of(1, stopping=True), 1.5)
    assert roster.liveness.alive("a")
    roster.hear(of(2, stopping=True), 2.0)
    assert roster.hear(of(1), 2.5)
