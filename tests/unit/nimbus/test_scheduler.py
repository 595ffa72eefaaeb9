"""Laws of placement, each over random clusters."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rainband.nimbus.scheduler import Schedule, choose_slots, place
from rainband.records import Executor, Slot

SUPERVISORS = ("a", "b", "c", "d")
slots = st.sets(st.builds(Slot, st.sampled_from(SUPERVISORS), st.integers(1, 5)), max_size=12)
shapes = st.lists(st.integers(1, 6), min_size=1, max_size=5)
workers = st.integers(1, 8)


def executors_of(shape: list[int]) -> list[Executor]:
    """One component per number, with that many executors of one task each."""
    result = []
    task = 1
    for index, count in enumerate(shape):
        for _ in range(count):
            result.append(Executor(f"component-{index}", task, task))
            task += 1
    return result


def per_slot(schedule: Schedule) -> Counter[Slot]:
    return Counter(schedule.slots.values())


def is_even(counts: Counter[Slot], used: set[Slot]) -> bool:
    return max(counts[slot] for slot in used) - min(counts[slot] for slot in used) <= 1


@given(shapes, workers, slots)
def test_each_executor_is_placed_once_and_on_usable_slots(shape: list[int], count: int, usable: set[Slot]) -> None:
    executors = executors_of(shape)
    schedule = place(executors, count, {}, usable)
    assert set(schedule.slots) == (set(executors) if usable else set())
    assert set(schedule.slots.values()) <= usable
    wanted = min(count, len(executors))
    assert len(set(schedule.slots.values())) == min(wanted, len(usable)) == wanted - schedule.missing


@given(shapes, workers, slots, st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(
    shape: list[int], count: int, usable: set[Slot], dice: random.Random
) -> None:
    executors = executors_of(shape)
    shuffled = executors[:]
    dice.shuffle(shuffled)
    mixed = list(usable)
    dice.shuffle(mixed)
    first, second = place(executors, count, {}, usable), place(shuffled, count, {}, mixed)
    assert first == second
    assert list(first.slots) == list(second.slots)


@given(shapes, workers, slots.filter(bool))
def test_components_are_spread_first_and_then_all_executors(shape: list[int], count: int, usable: set[Slot]) -> None:
    schedule = place(executors_of(shape), count, {}, usable)
    used = set(schedule.slots.values())
    assert is_even(per_slot(schedule), used)
    for component in {executor.component for executor in schedule.slots}:
        here = Counter(slot for executor, slot in schedule.slots.items() if executor.component == component)
        assert is_even(here, used)


@given(shapes, workers, slots.filter(bool), st.booleans())
def test_what_runs_well_stays(shape: list[int], count: int, usable: set[Slot], level: bool) -> None:
    executors = executors_of(shape)
    first = place(executors, count, {}, usable)
    assert place(executors, count, first.slots, usable, level=level) == first


@given(shapes, workers, slots.filter(bool), st.sampled_from(SUPERVISORS), slots)
def test_a_lost_supervisor_moves_its_own_executors_and_no_others(
    shape: list[int], count: int, usable: set[Slot], lost: str, spare: set[Slot]
) -> None:
    executors = executors_of(shape)
    before = place(executors, count, {}, usable)
    left = {slot for slot in usable | spare if slot.supervisor != lost}
    after = place(executors, count, before.slots, left)
    if before.missing or not left:
        return
    moved = {executor for executor in executors if after.slots[executor] != before.slots[executor]}
    assert moved == {executor for executor in executors if before.slots[executor].supervisor == lost}


@given(shapes, st.integers(1, 4), slots.filter(bool), slots)
def test_more_slots_are_taken_with_the_fewest_moves(
    shape: list[int], count: int, few: set[Slot], more: set[Slot]
) -> None:
    executors = executors_of(shape)
    before = place(executors, count, {}, few)
    after = place(executors, count, before.slots, few | more)
    used = set(after.slots.values())
    assert is_even(per_slot(after), used)
    moved = [executor for executor in executors if after.slots[executor] != before.slots[executor]]
    fresh = used - set(before.slots.values())
    assert all(after.slots[executor] in fresh for executor in moved)
    assert len(moved) == sum(per_slot(after)[slot] for slot in fresh)


@given(shapes, workers, workers, slots.filter(bool))
def test_rebalance_to_any_number_of_workers_is_even(
    shape: list[int], first: int, second: int, usable: set[Slot]
) -> None:
    executors = executors_of(shape)
    before = place(executors, first, {}, usable)
    after = place(executors, second, before.slots, usable, level=True)
    used = set(after.slots.values())
    assert len(used) == min(second, len(executors), len(usable))
    assert is_even(per_slot(after), used)
    if len(used) <= len(set(before.slots.values())):
        assert used <= set(before.slots.values())


def test_slots_come_from_different_supervisors_first() -> None:
    usable = [Slot("a", 1), Slot("a", 2), Slot("a", 3), Slot("b", 1), Slot("c", 1)]
    assert choose_slots(3, Counter(), usable) == [Slot("a", 1), Slot("b", 1), Slot("c", 1)]
    assert choose_slots(4, Counter(), usable) == [Slot("a", 1), Slot("a", 2), Slot("b", 1), Slot("c", 1)]


def test_the_emptier_supervisor_comes_first() -> None:
    usable = [Slot("a", 1), Slot("b", 1), Slot("b", 2)]
    assert choose_slots(1, Counter(), usable) == [Slot("b", 1)]


def test_fewer_workers_keep_the_fullest_slots() -> None:
    used = Counter({Slot("a", 1): 1, Slot("b", 1): 3, Slot("c", 1): 2})
    assert choose_slots(2, used, used) == [Slot("b", 1), Slot("c", 1)]


def test_changed_executors_are_placed_and_the_others_stay() -> None:
    """Parallelism of `count` from 1 to 2: its old executor is gone, two new ones come; `lines` does not move."""
    lines, whole = Executor("lines", 9, 9), Executor("count", 1, 8)
    left, right = Executor("count", 1, 4), Executor("count", 5, 8)
    a, b = Slot("a", 1), Slot("b", 1)
    after = place([lines, left, right], 2, {lines: b, whole: a}, [a, b], level=True)
    assert after.slots[lines] == b
    assert {after.slots[left], after.slots[right]} == {a, b}


def test_nothing_usable_means_nothing_placed() -> None:
    assert place(executors_of([3]), 2, {}, []) == Schedule({}, 2)
