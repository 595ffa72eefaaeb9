"""The book of a ReliableSpout: replay with growing delays, dead letters, lowest unfinished position."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainband.errors import EmitRefused
from rainband.worker.reliable import ReliableBook


def book(max_retries: int = 3) -> ReliableBook:
    return ReliableBook(max_retries, 1.0, 4.0)


def test_replays_after_delays_that_double_up_to_the_limit_then_gives_up() -> None:
    kept = book(max_retries=4)
    kept.emitted("a", (1,), "default")
    now = 0.0
    delays = []
    while kept.failed("a", now, 0.0) is None:
        due = kept.next_due()
        assert kept.due(due - 0.001) is None
        assert kept.due(due) == ("a", kept.rows["a"])
        delays.append(due - now)
        now = due
    assert delays == [1.0, 2.0, 4.0, 4.0]
    letter, values = kept.bury("a", "failed")
    assert values == ("a", "default", (1,), 4, "failed")
    assert kept.dead_letters == 1
    assert letter in kept.rows


@pytest.mark.parametrize("dice", [0.5, 0.999])
def test_delays_are_a_little_longer_by_chance_but_never_above_the_limit(dice: float) -> None:
    kept = book(max_retries=4)
    kept.emitted("a", (1,), "default")
    delays = []
    while kept.failed("a", 0.0, dice) is None:
        delays.append(kept.next_due())
        kept.due(delays[-1])
    assert delays == [1.0 * (1.0 + 0.1 * dice), 2.0 * (1.0 + 0.1 * dice), 4.0, 4.0]


def test_a_dead_letter_is_replayed_without_limit() -> None:
    kept = book(max_retries=0)
    kept.emitted("a", (1,), "default")
    assert kept.failed("a", 0.0, 0.0) is not None
    letter, _ = kept.bury("a", "failed")
    for _ in range(10):
        assert kept.failed(letter, 0.0, 0.0) is None
        assert kept.due(1e9) is not None
    kept.acked(letter)
    assert not kept.rows


def test_what_was_lost_with_a_process_is_replayed_at_once_and_not_counted() -> None:
    kept = book(max_retries=1)
    kept.emitted("a", (1,), "default")
    for _ in range(5):
        kept.lost("a", 10.0)
        assert kept.due(10.0) is not None
    assert kept.rows["a"].retries == 0
    assert kept.replayed == 5


@pytest.mark.parametrize("message_id", [None, "twice"])
def test_ids_must_be_there_and_differ(message_id: str | None) -> None:
    kept = book()
    kept.emitted("twice", (1,), "default")
    with pytest.raises(EmitRefused):
        kept.emitted(message_id, (2,), "default")
    assert list(kept.rows) == ["twice"]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_seeking_the_lowest_position_never_loses_a_row(rows_per_call: list[int], random) -> None:  # type: ignore[no-untyped-def]
    kept = book()
    open_ids: list[tuple[int, int]] = []
    for position, rows in enumerate(rows_per_call):
        kept.begin(position)
        for row in range(rows):
            kept.emitted((position, row), (row,), "default")
            open_ids.append((position, row))
        kept.end()
        if open_ids and random.random() < 0.6:
            kept.acked(open_ids.pop(random.randrange(len(open_ids))))
        unfinished, lowest = kept.lowest()
        assert unfinished == bool(open_ids)
        if unfinished:
            assert lowest == min(position for position, _ in open_ids)
