"""Laws of placement, each over random clusters."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rainband.nimbus.scheduler import Schedule, choose_slots, place
from rainband.records import Executor, Slot

SUPERVISORS = ("a", "b", "c", "d")
EVERY_SLOT = [Slot(supervisor, port) for supervisor in SUPERVISORS for port in range(1, 6)]
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
    """Into fresh slots; an old one is refilled only if it had to give something else away to keep components spread.

    That cannot always be had without: of {b, b}, {b, b}, {a, b, c}, {a, b, c} one pair of b must be split for a fifth.
    """
    executors = executors_of(shape)
    before = place(executors, count, {}, few)
    after = place(executors, count, before.slots, few | more)
    used, old = set(after.slots.values()), set(before.slots.values())
    assert is_even(per_slot(after), used)
    moved = [executor for executor in executors if after.slots[executor] != before.slots[executor]]
    for slot in used - old:
        assert per_slot(after)[slot] == sum(after.slots[executor] == slot for executor in moved)
    for slot in old:
        came = [executor.component for executor in moved if after.slots[executor] == slot]
        went = [executor.component for executor in moved if before.slots[executor] == slot]
        assert len(came) <= len(went)
        assert not set(came) & set(went)
        assert not came or len(shape) > 1


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


@given(shapes, workers, slots.filter(bool), slots)
def test_rebalance_spreads_over_supervisors_that_came_with_the_fewest_moves(
    shape: list[int], count: int, few: set[Slot], more: set[Slot]
) -> None:
    executors = executors_of(shape)
    before = place(executors, count, {}, few)
    after = place(executors, count, before.slots, few | more, level=True)
    old, used = set(before.slots.values()), set(after.slots.values())
    held = Counter(slot.supervisor for slot in used)
    for slot in (few | more) - used:
        assert max(held.values()) - held[slot.supervisor] <= 1
    for name in SUPERVISORS:
        had = {slot for slot in old if slot.supervisor == name}
        has = {slot for slot in used if slot.supervisor == name}
        assert had <= has or has <= had
    assert is_even(per_slot(after), used)


def test_a_supervisor_that_came_back_gets_its_share_by_rebalance() -> None:
    executors = executors_of([4, 4])
    alone = place(executors, 4, {}, [Slot("a", port) for port in range(4)])
    usable = [Slot(name, port) for name in "ab" for port in range(4)]
    assert place(executors, 4, alone.slots, usable) == alone
    after = place(executors, 4, alone.slots, usable, level=True)
    assert Counter(slot.supervisor for slot in after.slots.values()) == {"a": 4, "b": 4}
    assert sum(after.slots[executor] != alone.slots[executor] for executor in executors) == 4


@given(st.integers(0, 14), st.dictionaries(st.sampled_from(EVERY_SLOT), st.integers(1, 9), max_size=4), slots)
def test_each_free_slot_chosen_is_the_best_of_all_that_are_left(
    wanted: int, used: dict[Slot, int], usable: set[Slot]
) -> None:
    chosen = sorted(used, key=lambda slot: (-used[slot], slot))[:wanted]
    free = usable - set(used)
    while len(chosen) < wanted and free:
        held, idle = (Counter(slot.supervisor for slot in some) for some in (chosen, free))
        best = min(free, key=lambda slot: (held[slot.supervisor], -idle[slot.supervisor], slot))
        free.remove(best)
        chosen.append(best)
    assert choose_slots(wanted, used, usable) == sorted(chosen)


@given(shapes, st.sets(st.sampled_from(EVERY_SLOT), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_each_lost_executor_goes_to_the_best_of_all_slots(
    shape: list[int], usable: set[Slot], dice: random.Random
) -> None:
    executors = executors_of(shape)
    count = min(len(executors), len(usable))
    chosen = sorted(dice.sample(sorted(usable), count))
    before = {executor: dice.choice(chosen) for executor in executors if dice.random() < 0.5}
    before |= zip(dice.sample(executors, count), chosen, strict=True)
    expected = dict(before)
    for executor in executors:
        if executor not in before:
            total = Counter(expected.values())
            here = Counter(slot for other, slot in expected.items() if other.component == executor.component)
            expected[executor] = min(chosen, key=lambda slot: (here[slot], total[slot], slot))
    assert place(executors, count, before, chosen).slots == expected


@given(shapes, st.sets(st.sampled_from(EVERY_SLOT), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_levelling_evens_out_wherever_executors_were(shape: list[int], usable: set[Slot], dice: random.Random) -> None:
    executors = executors_of(shape)
    few = {executor.component: dice.choices(sorted(usable), k=2) for executor in executors}
    before = {executor: dice.choice(few[executor.component]) for executor in executors}
    after = place(executors, len(usable), before, usable, level=True)
    mixed = dict(dice.sample(list(before.items()), len(before)))
    assert place(reversed(executors), len(usable), mixed, usable, level=True) == after
    used = set(after.slots.values())
    assert is_even(per_slot(after), used)
    for component in {executor.component for executor in executors}:
        assert is_even(Counter(after.slots[e] for e in executors if e.component == component), used)


def test_reluctant_components_stay_where_another_can_go() -> None:
    a, b = Slot("a", 1), Slot("b", 1)
    lines, count, store = Executor("lines", 1, 1), Executor("count", 2, 2), Executor("store", 3, 3)
    before = dict.fromkeys((lines, count, store), a)
    for stays, goes in ((), count), (("count",), lines), (("count", "lines"), store):
        after = place(before, 2, before, [a, b], level=True, reluctant=stays)
        assert after.slots == before | {goes: b}


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
