"""The books of trees: any order of reports, repeats and losses; one verdict each, never a false one."""

from __future__ import annotations

import gc
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainband.acker.ledger import COUNTER_MASK, SPAN, Group, Ledger, Pending, Tree, Verdict
from rainband.build import compiled
from rainband.topology.tuples import Tuple

SPOUT = 7


def tree_reports(random: Random, size: int) -> tuple[int, list[int]]:
    """Reports of one random tree of `size` tuples: XOR of the spout's edges, and one value for each tuple executed."""
    edges = [random.getrandbits(63) | 1 for _ in range(size)]
    children: list[list[int]] = [[] for _ in range(size)]
    first: list[int] = []
    for number in range(size):
        parent = random.randrange(-1, number) if number else -1
        (first if parent < 0 else children[parent]).append(number)
    reports = []
    for number in range(size):
        value = edges[number]
        for child in children[number]:
            value ^= edges[child]
        reports.append(value)
    init = 0
    for number in first:
        init ^= edges[number]
    return init, reports


@given(seed=st.integers(0, 2**32), size=st.integers(1, 40))
def test_one_right_verdict_on_the_last_report_in_any_order(seed: int, size: int) -> None:
    random = Random(seed)
    ledger = Ledger()
    init, reports = tree_reports(random, size)
    steps: list[int | None] = [None, *reports]
    random.shuffle(steps)
    verdicts: list[Verdict] = []
    for step in steps:
        assert not verdicts
        verdict = ledger.init(1, init, SPOUT) if step is None else ledger.ack(1, step)
        if verdict is not None:
            verdicts.append(verdict)
    assert verdicts == [Verdict(1, SPOUT, True)]
    assert len(ledger) == 0


@given(seed=st.integers(0, 2**32), size=st.integers(1, 40), repeats=st.integers(1, 3))
def test_a_repeated_init_never_acks_an_unfinished_tree(seed: int, size: int, repeats: int) -> None:
    random = Random(seed)
    ledger = Ledger()
    init, reports = tree_reports(random, size)
    steps: list[int | None] = [None] * (1 + repeats) + list(reports[:-1])
    random.shuffle(steps)
    for step in steps:
        verdict = ledger.init(1, init, SPOUT) if step is None else ledger.ack(1, step)
        assert verdict is None
    assert ledger.inits_repeated == repeats
    assert ledger.ack(1, reports[-1]) == Verdict(1, SPOUT, True)


@given(seed=st.integers(0, 2**32), size=st.integers(2, 40))
def test_a_lost_report_never_acks(seed: int, size: int) -> None:
    random = Random(seed)
    ledger = Ledger()
    init, reports = tree_reports(random, size)
    reports.pop(random.randrange(size))
    assert ledger.init(1, init, SPOUT) is None
    assert all(ledger.ack(1, report) is None for report in reports)
    assert len(ledger) == 1


def test_a_fail_before_the_init_is_told_with_the_init() -> None:
    ledger = Ledger()
    assert ledger.fail(5) is None
    assert ledger.init(5, 9, SPOUT) == Verdict(5, SPOUT, False)


def test_an_unsettled_tree_is_forgotten_after_three_rotations_without_a_verdict() -> None:
    ledger = Ledger()
    ledger.init(5, 9, SPOUT)
    assert [ledger.rotate() for _ in range(3)] == [0, 0, 1]
    assert len(ledger) == 0


def test_touching_keeps_a_tree() -> None:
    ledger = Ledger()
    ledger.init(5, 9, SPOUT)
    ledger.rotate()
    ledger.rotate()
    assert ledger.touch(5) == SPOUT
    assert [ledger.rotate() for _ in range(3)] == [0, 0, 1]


def test_fail_where_fails_the_trees_of_the_named_spouts_only() -> None:
    ledger = Ledger()
    ledger.init(1, 9, SPOUT)
    ledger.init(2, 9, SPOUT + 1)
    assert ledger.fail_where(frozenset({SPOUT})) == [Verdict(1, SPOUT, False)]
    assert len(ledger) == 1


def pending_tree(pending: Pending, started: float) -> Tree:
    tree = Tree(pending.new_root(), True, True, "m", started)
    pending.add(tree)
    return tree


def test_roots_are_unique_and_carry_index_and_incarnation() -> None:
    pending = Pending(4095, 2047, COUNTER_MASK)
    roots = [pending.new_root() for _ in range(1000)]
    assert len(set(roots)) == 1000
    assert all(0 < root < 2**63 and root >> 51 == 4095 for root in roots)


def test_a_root_of_another_incarnation_is_nobody() -> None:
    old, new = Pending(3, 1, 10), Pending(3, 2, 10)
    tree = pending_tree(old, 0.0)
    pending_tree(new, 0.0)
    assert new.get(int(tree.root)) is None
    assert new.remove(int(tree.root)) is None
    assert len(new) == 1


def test_a_root_is_removed_once() -> None:
    pending = Pending(0, 1, 0)
    tree = pending_tree(pending, 0.0)
    assert pending.remove(int(tree.root)) is tree
    assert pending.remove(int(tree.root)) is None


def test_expired_are_the_oldest_and_touching_starts_anew() -> None:
    pending = Pending(0, 1, 0)
    trees = [pending_tree(pending, float(second)) for second in range(5)]
    pending.touch(int(trees[0].root), 4.0)
    assert pending.expired(3.0) == trees[1:3]
    assert pending.expired(5.0) == [*trees[1:], trees[0]]


@given(seed=st.integers(0, 2**32), first=st.integers(0, SPAN))
def test_a_book_is_like_a_dict_in_order_of_the_time(seed: int, first: int) -> None:
    random = Random(seed)
    pending = Pending(5, 1, first)
    known: dict[int, Tree] = {}
    roots = [-1]
    for now in range(6 * SPAN):
        root = random.choice(roots)
        act = random.random()
        if act < 0.5:
            tree = pending_tree(pending, float(now))
            roots.append(int(tree.root))
            known[int(tree.root)] = tree
        elif act < 0.7:
            pending.touch(root, float(now))
            if root in known:
                known[root] = known.pop(root)
        elif act < 0.8:
            assert pending.get(root) is known.get(root)
        else:
            assert pending.remove(root) is known.pop(root, None)
        if now % SPAN == 0:
            before = random.randrange(now + 2)
            assert pending.expired(before) == [tree for tree in known.values() if tree.started < before]
            assert {int(tree.root): tree for tree in pending.trees()} == known
        assert len(pending) == len(known)
    for root in list(known):
        assert pending.remove(root) is known.pop(root)
    assert len(pending.blocks) <= 1
    assert not pending.touched


@pytest.mark.skipif(not compiled(), reason="Python's own objects are larger")
def test_what_a_pending_tree_weighs() -> None:
    """Memory comes in pieces of 16 bytes. Of these only a tuple, whose values are the user's, has a header for gc."""
    assert (Tree.__basicsize__, Tuple.__basicsize__) == (64, 48)
    assert not gc.is_tracked(Tree(1))


def test_a_group_names_each_root_once() -> None:
    one, other, again = (Tree(root) for root in (1, 2, 1))
    group = Group([one, Group([other, again])])
    assert sorted(int(leaf.root) for leaf in group.leaves()) == [1, 2]
    assert [int(tree.count) for tree in (one, other, again)] == [1, 1, 1]


@pytest.mark.parametrize("index", [-1, 4096])
def test_an_index_has_twelve_bits(index: int) -> None:
    with pytest.raises(AssertionError):
        Pending(index, 1, 0)
