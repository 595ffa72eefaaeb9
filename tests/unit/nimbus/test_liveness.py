from __future__ import annotations

from rainband.nimbus.liveness import Liveness


def test_silence_for_a_whole_lease_is_death() -> None:
    liveness = Liveness(30.0, [], 0.0)
    assert liveness.hear("a", 5.0)
    assert not liveness.hear("a", 6.0)
    assert liveness.deadline() == 36.0
    assert liveness.expire(35.9) == []
    assert liveness.expire(36.0) == ["a"]
    assert liveness.expire(36.0) == []
    assert not liveness.alive("a")
    assert liveness.hear("a", 40.0)


def test_a_fresh_nimbus_gives_everyone_one_lease_from_its_start() -> None:
    liveness = Liveness(30.0, ["b", "a"], 1000.0)
    assert liveness.alive("a")
    liveness.hear("b", 1029.0)
    assert liveness.expire(1030.0) == ["a"]
    assert liveness.alive("b")


def test_goodbye_is_at_once() -> None:
    liveness = Liveness(30.0, [], 0.0)
    liveness.hear("a", 0.0)
    assert liveness.stop("a")
    assert not liveness.stop("a")
    assert not liveness.alive("a")
    assert liveness.deadline() == float("inf")


def test_a_pause_of_nimbus_itself_kills_nobody() -> None:
    liveness = Liveness(30.0, [], 0.0)
    liveness.hear("a", 10.0)
    liveness.pause(100.0)
    assert liveness.expire(139.0) == []
    assert liveness.expire(140.0) == ["a"]
