"""The law of each grouping, one property at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainband.errors import EmitRefused, ValueRefused
from rainband.groupings import CustomGrouping, Grouping, make_chooser
from rainband.groupings import choosers as module
from rainband.groupings.choosers import Fields, LocalOrShuffle, PartialKey, Shuffle, permutation
from rainband.groupings.hashing import key_group, task_of_group
from rainband.groupings.specs import KINDS

counts = st.integers(1, 40)
seeds = st.integers(0, 2**64)
ROW = ("a",)


def groups_for(tasks: int) -> int:
    groups = 64
    while groups < 64 * tasks:
        groups *= 2
    return groups


def fields(tasks: int, *positions: int, names: Sequence[str] = ()) -> Fields:
    return Fields(positions or (0,), tasks, groups_for(tasks), names)


class Every(CustomGrouping):
    """Chooses what it was made with."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def choose_tasks(self, values: tuple[Any, ...]) -> Any:
        return self.answer


# shuffle


@given(counts, seeds, st.integers(0, 200))
def test_shuffle_spreads_within_one(n: int, seed: int, calls: int) -> None:
    chooser = Shuffle(n, seed)
    used = Counter(dict.fromkeys(range(n), 0))
    for _ in range(calls):
        used[chooser.choose(ROW)] += 1
        assert max(used.values()) - min(used.values()) <= 1
    assert set(used) == set(range(n))


@given(counts, seeds)
def test_shuffle_of_one_seed_is_one_sequence(n: int, seed: int) -> None:
    first, second = Shuffle(n, seed), Shuffle(n, seed)
    assert [first.choose(ROW) for _ in range(n)] == [second.choose(ROW) for _ in range(n)]


@given(st.integers(2, 20), seeds, st.data())
def test_shuffle_passes_over_blocked_targets_unless_all_are(n: int, seed: int, data: st.DataObject) -> None:
    chooser = Shuffle(n, seed)
    blocked: set[int] = set()
    for _ in range(60):
        index = data.draw(st.integers(0, n - 1))
        chooser.set_blocked(index, index not in blocked)
        blocked ^= {index}
        assert chooser.blocked_count == len(blocked)
        chosen = chooser.choose(ROW)
        assert 0 <= chosen < n
        assert chosen not in blocked or len(blocked) == n


@given(st.integers(2, 20), seeds, st.data())
def test_shuffle_spreads_the_rest_within_one_while_some_are_blocked(n: int, seed: int, data: st.DataObject) -> None:
    chooser = Shuffle(n, seed)
    blocked = data.draw(st.sets(st.integers(0, n - 1), min_size=1, max_size=n - 1))
    for index in blocked:
        chooser.set_blocked(index, True)
        chooser.set_blocked(index, True)
    used = Counter(chooser.choose(ROW) for _ in range(5 * (n - len(blocked))))
    assert set(used.values()) == {5}


@given(st.integers(2, 20), seeds, st.data())
def test_when_all_targets_of_a_shuffle_are_blocked_the_one_blocked_last_gets_the_rest(
    n: int, seed: int, data: st.DataObject
) -> None:
    """A bolt that emits twice, one target that never takes anything again: what waits for that one must not grow."""
    chooser = Shuffle(n, seed)
    order = data.draw(st.permutations(range(n)))
    for index in order:
        chooser.set_blocked(index, True)
    assert {chooser.choose(ROW) for _ in range(3 * n)} == {order[-1]}
    for index in data.draw(st.lists(st.sampled_from(order[1:]), max_size=10)):
        chooser.set_blocked(index, False)
        assert chooser.choose(ROW) == index
        chooser.set_blocked(index, True)
        assert chooser.choose(ROW) == index


@given(st.integers(3, 20), seeds)
def test_local_or_shuffle_with_all_local_targets_blocked_stays_local(n: int, seed: int) -> None:
    chooser = LocalOrShuffle(n, [0, 1], seed)
    for index in (1, 0, *range(2, n)):
        chooser.set_blocked(index, True)
    assert chooser.choose(ROW) == 0
    chooser.relocate([n - 1])
    assert chooser.choose(ROW) == n - 1


def test_permutations_are_drawn_evenly() -> None:
    drawn = Counter(tuple(permutation([0, 1, 2], seed)) for seed in range(6000))
    assert len(drawn) == 6
    assert max(drawn.values()) - min(drawn.values()) < 200


# local or shuffle


@given(counts, seeds, st.data())
def test_local_or_shuffle_stays_in_the_worker_when_it_can(n: int, seed: int, data: st.DataObject) -> None:
    local = sorted(data.draw(st.sets(st.integers(0, n - 1))))
    chooser = LocalOrShuffle(n, local, seed)
    used = Counter(chooser.choose(ROW) for _ in range(3 * n * max(1, len(local))))
    assert set(used) == set(local or range(n))
    assert len(set(used.values())) == 1
    chooser.relocate([n - 1])
    assert {chooser.choose(ROW) for _ in range(5)} == {n - 1}
    chooser.set_blocked(n - 1, True)
    assert chooser.choose(ROW) == n - 1


# fields


@given(st.one_of(st.text(), st.binary(), st.integers(), st.none(), st.tuples(st.text(), st.integers())), counts)
def test_fields_gives_equal_keys_one_task(key: object, n: int) -> None:
    one, other = fields(n), fields(n, 2, names=("called", "otherwise"))
    chosen = one.choose((key, 1))
    assert 0 <= chosen < n
    assert chosen == one.choose((key, 2)) == other.choose((None, None, key))


@given(st.integers(-(2**53), 2**53), counts, st.randoms(use_true_random=False))
def test_fields_sees_numbers_as_python_does(number: int, n: int, random: Any) -> None:
    same = [number, float(number), Decimal(number), Fraction(number), complex(number)]
    same += [bool(number)] if number in (0, 1) else []
    random.shuffle(same)
    shared = fields(n)
    assert len({shared.choose((key,)) for key in same} | {fields(n).choose((key,)) for key in same}) == 1


@given(st.text(max_size=4), st.integers(), counts)
def test_fields_of_several_positions_is_fields_of_the_tuple(word: str, number: int, n: int) -> None:
    assert fields(n, 0, 2).choose((word, None, number)) == fields(n).choose(((word, number),))


@pytest.mark.parametrize("edge", [0, -1, 2**31, 2**53, 2**61 - 1, -(2**61 - 1), 2**63, -(2**63), 2**64])
def test_fields_places_a_number_where_its_key_group_is(edge: int) -> None:
    for number in range(edge - 3, edge + 4):
        group = key_group(number, groups_for(1000))
        assert fields(1000).choose((number,)) == task_of_group(group, 1000, groups_for(1000))


def test_fields_reaches_every_task_and_ignores_blocked_ones() -> None:
    chooser = fields(8)
    before = [chooser.choose((f"key-{number}",)) for number in range(400)]
    assert set(before) == set(range(8))
    for index in range(7):
        chooser.set_blocked(index, True)
    assert [chooser.choose((f"key-{number}",)) for number in range(400)] == before


def test_the_cache_of_keys_is_bounded_in_entries_and_in_size(monkeypatch: pytest.MonkeyPatch) -> None:
    chooser = fields(4)
    for number in range(module.CACHE_ENTRIES_MAX + 10):
        chooser.choose((b"%d" % number,))
    assert len(chooser.cache) == 10
    big = "x" * (module.CACHED_KEY_BYTES_MAX + 1)
    assert chooser.choose((big,)) == chooser.choose((big,))
    assert big not in chooser.cache


NAN = float("nan")


@pytest.mark.parametrize("kind", ["fields", "partial_key"])
@pytest.mark.parametrize(
    ("bad", "why"), [(NAN, "NaN"), ((1, NAN), "NaN"), (Decimal("nan"), "NaN"), ([1], "not hashable")]
)
def test_refused_keys_name_their_field_and_the_fix(kind: str, bad: object, why: str) -> None:
    chooser = make_chooser(kind, tasks=range(4), positions=(0, 2), groups=256, fields=("word", "size"))
    for _ in range(2):
        with pytest.raises(ValueRefused, match=why) as caught:
            chooser.choose(("ok", None, bad))
        assert "'size'" in caught.value.message
        assert caught.value.fix
    single = make_chooser(kind, tasks=range(4), positions=(1,), groups=256)
    with pytest.raises(ValueRefused, match="number 1"):
        single.choose(("ok", bad))


# partial key


@given(st.text(), st.integers(2, 40))
def test_partial_key_uses_two_tasks_in_turn(key: str, n: int) -> None:
    chooser = PartialKey((0,), n)
    used = Counter(chooser.choose((key,)) for _ in range(10))
    assert sorted(used.values()) == [5, 5]
    assert {PartialKey((0,), n).choose((key,)) for _ in range(3)} <= set(used)


def test_partial_key_of_one_task() -> None:
    assert PartialKey((0,), 1).choose(("a",)) == 0


def test_partial_key_evens_out_a_hot_key() -> None:
    chooser = PartialKey((0,), 4)
    for number in range(4000):
        chooser.choose(("hot" if number % 2 else f"key-{number}",))
    assert max(chooser.used) < 1300, "the hot key alone would give one task 2,000"


def test_partial_key_prefers_the_candidate_that_is_not_blocked() -> None:
    chooser = PartialKey((0,), 5)
    first, second = chooser.choose(("a",)), chooser.choose(("a",))
    chooser.set_blocked(first, True)
    assert [chooser.choose(("a",)) for _ in range(3)] == [second] * 3
    chooser.set_blocked(second, True)
    assert {chooser.choose(("a",)) for _ in range(9)} == {first, second}


# all, global, none, direct, custom


@given(counts)
def test_all_takes_every_task_once_and_global_the_lowest(n: int) -> None:
    assert make_chooser("all", tasks=range(5, 5 + n)).choose_many(ROW) == list(range(n))
    assert make_chooser("global", tasks=range(5, 5 + n)).choose(ROW) == 0


def test_none_is_shuffle() -> None:
    assert type(make_chooser("none", tasks=range(3))) is Shuffle


def test_only_all_and_custom_choose_many() -> None:
    made = {
        kind: make_chooser(kind, tasks=[1], positions=(0,), groups=64, custom=Every([1]) if kind == "custom" else None)
        for kind in KINDS
    }
    assert {kind for kind, chooser in made.items() if chooser.many} == {"all", "custom"}
    assert all(chooser.choose_many(ROW) == [0] for kind, chooser in made.items() if kind != "direct")


def test_a_plain_emit_has_no_target_on_a_direct_stream() -> None:
    with pytest.raises(EmitRefused, match="emit_direct"):
        make_chooser("direct", tasks=[1]).choose(ROW)


def test_custom_translates_ids_to_indexes() -> None:
    for answer, indexes in [([9], [2]), ((7, 9), [0, 2]), ([], []), (range(7, 9), [0, 1]), ([8, 8], [1, 1])]:
        assert make_chooser("custom", tasks=[7, 8, 9], custom=Every(answer)).choose_many(ROW) == indexes


@pytest.mark.parametrize("answer", [7, None, "7", b"7", [6], ["7"], [7.0], [True], [None], {7}])
def test_custom_answers_that_are_no_task_ids_are_refused(answer: object) -> None:
    with pytest.raises(EmitRefused, match=r"Every\.choose_tasks returned") as caught:
        make_chooser("custom", tasks=[1, 7], custom=Every(answer)).choose_many(ROW)
    assert caught.value.fix


def test_unknown_kinds_have_no_chooser() -> None:
    with pytest.raises(ValueError, match="no chooser"):
        make_chooser("nearest", tasks=[1])


# specs


def test_groupings_are_values() -> None:
    assert Grouping("fields", ("word",)) == Grouping("fields", ("word",)) != Grouping("partial_key", ("word",))
    assert Grouping("custom", custom=Every([])).kind == "custom"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("nearest",), "no grouping 'nearest'"),
        (("fields", "word"), r"Write \['word'\]"),
        (("fields",), "at least one field"),
        (("shuffle", ("word",)), "has no fields"),
        (("custom", (), Every), r"Write Every\(\)"),
        (("custom",), "needs an instance"),
        (("all", (), Every([])), "no other kind takes one"),
    ],
)
def test_groupings_that_do_not_fit_together_are_refused(arguments: tuple[Any, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Grouping(*arguments)


def test_a_custom_grouping_must_choose() -> None:
    with pytest.raises(NotImplementedError, match="CustomGrouping must define choose_tasks"):
        CustomGrouping().choose_tasks(ROW)
