"""Trees, the spouts' own book of them (`Pending`), and the book of a separate acker task (`Ledger`).

Ids are 63-bit non-negative integers: acker index (12 bits), acker incarnation (11), counter (40).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Final

from mypy_extensions import i32, i64, mypyc_attr

INDEX_BITS: Final = 12
INCARNATION_BITS: Final = 11
COUNTER_BITS: Final = 40
COUNTER_MASK: Final = (1 << COUNTER_BITS) - 1
INDEX_MAX: Final = (1 << INDEX_BITS) - 1
SPAN_BITS: Final = 6
SPAN: Final = 1 << SPAN_BITS
SPAN_MASK: Final = SPAN - 1


@mypyc_attr(acyclic=True)
class Tree:
    """The part of one tuple tree that this worker sees.

    `count`: tuples of the tree inside this worker that are not finished. `edges`: XOR of the ids that crossed.
    `own` is true in the worker whose spout emitted the root, `home` if the whole book of the root is kept there too;
    both are false in a proxy.

    There may be millions: the fields fill 64 bytes to the last. There is no header for the search for cycles, since
    nothing but `message_id` can lead back to a tree, and that is let go of with the verdict.
    """

    def __init__(
        self, root: i64, own: bool = False, home: bool = False, message_id: object = None, started: float = 0.0
    ) -> None:
        self.root = root
        self.edges: i64 = 0
        self.message_id = message_id
        self.started = started
        self.count: i32 = 0
        self.own = own
        self.home = home
        self.failed = False
        self.announced = False


@mypyc_attr(acyclic=True)
class Group(Tree):
    """Several trees held open together: what a tuple with more than one anchor belongs to."""

    def __init__(self, parents: list[Tree]) -> None:
        Tree.__init__(self, 0)
        self.parents = parents
        for parent in parents:
            parent.count += 1

    def leaves(self) -> list[Tree]:
        """The trees behind the group, one for each different root id: an edge must enter each book once."""
        found: dict[int, Tree] = {}
        todo: list[Tree] = list(self.parents)
        while todo:
            tree = todo.pop()
            if isinstance(tree, Group):
                todo.extend(tree.parents)
            else:
                found.setdefault(int(tree.root), tree)
        return list(found.values())


class Block:
    """The trees of SPAN successive roots, each at the place its counter says; `open` of them are not closed."""

    def __init__(self, number: i64) -> None:
        self.number = number
        self.trees: list[Tree | None] = [None] * SPAN
        self.open: i64 = 0


class Pending:
    """The book of the roots emitted by one spout task: ack, fail, timeout. `size` is how many are open.

    Counters follow each other, so the upper part of a root's counter names its block and the lower its place there:
    12 bytes for each tree, where a dict by root takes some 70. A block is dropped when all its trees are closed;
    `last` is the one looked at last, mostly also the next. A tree that was touched leaves its block for `touched`,
    by root: either is in order of `started`, so that timeouts look at the oldest only.
    """

    def __init__(self, index: int, incarnation: int, first: int) -> None:
        assert 0 <= index <= INDEX_MAX
        known = incarnation & ((1 << INCARNATION_BITS) - 1)
        self.prefix: i64 = ((index << INCARNATION_BITS) | known) << COUNTER_BITS
        self.counter: i64 = first & (COUNTER_MASK >> 1)
        self.blocks: dict[int, Block] = {}
        self.newest = Block(-1)
        self.last = self.newest
        self.touched: dict[int, Tree] = {}
        self.size: i64 = 0

    def new_root(self) -> i64:
        """A root id never used before by this book."""
        self.counter = (self.counter + 1) & COUNTER_MASK
        return self.prefix | self.counter

    def add(self, tree: Tree) -> None:
        """Open the book on the newest root."""
        number = self.counter >> SPAN_BITS
        block = self.newest
        if block.number != number:
            block = self.next_block(number)
        block.trees[self.counter & SPAN_MASK] = tree
        block.open += 1
        self.size += 1

    def next_block(self, number: i64) -> Block:
        """Begin to fill another block; the one so far is no longer kept for those to come."""
        if self.newest.open == 0:
            self.blocks.pop(int(self.newest.number), None)
        self.newest = Block(number)
        self.blocks[int(number)] = self.newest
        return self.newest

    def block_of(self, root: i64) -> Block | None:
        """The block that has, or had, the tree of `root`; None when all its trees are closed or `root` is not ours."""
        if root & ~COUNTER_MASK != self.prefix:
            return None
        number = (root & COUNTER_MASK) >> SPAN_BITS
        if self.last.number == number:
            return self.last
        block = self.blocks.get(int(number))
        if block is not None:
            self.last = block
        return block

    def get(self, root: i64) -> Tree | None:
        """The open tree of `root`; None when it is finished or belongs to another incarnation."""
        block = self.block_of(root)
        tree = None if block is None else block.trees[root & SPAN_MASK]
        if tree is None and self.touched:
            return self.touched.get(int(root))
        return tree

    def remove(self, root: i64) -> Tree | None:
        """Close the book on `root`. None when it was closed before: every root gets one verdict."""
        block = self.block_of(root)
        tree = None if block is None else block.trees[root & SPAN_MASK]
        if block is not None and tree is not None:
            block.trees[root & SPAN_MASK] = None
            block.open -= 1
            if block.open == 0 and block is not self.newest:
                self.blocks.pop(int(block.number), None)
        elif self.touched:
            tree = self.touched.pop(int(root), None)
        if tree is not None:
            self.size -= 1
        return tree

    def touch(self, root: i64, now: float) -> None:
        """Start the timeout of `root` anew."""
        tree = self.remove(root)
        if tree is not None:
            tree.started = now
            self.touched[int(root)] = tree
            self.size += 1

    def untouched(self) -> Iterator[Tree]:
        """The open trees in blocks."""
        for block in self.blocks.values():
            for tree in block.trees:
                if tree is not None:
                    yield tree

    def trees(self) -> list[Tree]:
        """All open trees."""
        return [*self.untouched(), *self.touched.values()]

    def expired(self, before: float) -> list[Tree]:
        """Open trees started (or touched) before `before`, oldest first."""
        found = started_before(before, self.untouched()) + started_before(before, self.touched.values())
        return sorted(found, key=lambda tree: tree.started)

    def __len__(self) -> int:
        return int(self.size)


def started_before(before: float, trees: Iterable[Tree]) -> list[Tree]:
    """The first of `trees`, which are in order of `started`."""
    return list(takewhile(lambda tree: tree.started < before, trees))


@mypyc_attr(acyclic=True)
class Entry:
    """What a separate acker knows of a root: XOR so far, and the spout task once the init has come (0 before)."""

    def __init__(self) -> None:
        self.edges: i64 = 0
        self.task: i64 = 0
        self.failed = False


class Verdict:
    """The end of a tree, to be told to the spout task that emitted its root."""

    def __init__(self, root: int, task: int, done: bool) -> None:
        self.root = root
        self.task = task
        self.done = done

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Verdict) and (self.root, self.task, self.done) == (other.root, other.task, other.done)

    def __hash__(self) -> int:
        return hash((self.root, self.task, self.done))

    def __repr__(self) -> str:
        return f"Verdict(root={self.root:#x}, task={self.task}, {'done' if self.done else 'failed'})"


class Ledger:
    """XOR book of a separate acker task, as in Storm's Acker bolt. Reports may arrive in any order, even before init.

    `rotate()` every T: what was not settled within 3T is forgotten without a verdict.
    """

    def __init__(self) -> None:
        self.buckets: list[dict[int, Entry]] = [{}, {}, {}]
        self.inits_repeated = 0

    def _entry(self, root: int) -> Entry:
        for bucket in self.buckets:
            entry = bucket.get(root)
            if entry is not None:
                return entry
        entry = Entry()
        self.buckets[0][root] = entry
        return entry

    def _forget(self, root: int) -> None:
        for bucket in self.buckets:
            if bucket.pop(root, None) is not None:
                return

    def _settle(self, root: int, entry: Entry) -> Verdict | None:
        if entry.task == 0:
            return None
        if not entry.failed and entry.edges != 0:
            return None
        self._forget(root)
        return Verdict(root, int(entry.task), not entry.failed)

    def init(self, root: int, edges: int, spout_task: int) -> Verdict | None:
        """`spout_task` (> 0) emitted `root` over edges whose XOR is `edges`."""
        assert spout_task > 0
        entry = self._entry(root)
        if entry.task != 0:
            self.inits_repeated += 1
            return None
        entry.task = spout_task
        entry.edges ^= edges
        return self._settle(root, entry)

    def ack(self, root: int, edges: int) -> Verdict | None:
        """`edges` = XOR of the edges consumed and emitted."""
        entry = self._entry(root)
        entry.edges ^= edges
        return self._settle(root, entry)

    def fail(self, root: int) -> Verdict | None:
        entry = self._entry(root)
        entry.failed = True
        return self._settle(root, entry)

    def touch(self, root: int) -> int:
        """Keep `root` for another 3T. Returns the spout task to tell, 0 when it is not known."""
        entry = self._entry(root)
        self._forget(root)
        self.buckets[0][root] = entry
        return int(entry.task)

    def fail_where(self, spout_tasks: frozenset[int]) -> list[Verdict]:
        """Fail every tree emitted by one of `spout_tasks`."""
        roots = [root for bucket in self.buckets for root, entry in bucket.items() if int(entry.task) in spout_tasks]
        return [verdict for root in roots if (verdict := self.fail(root)) is not None]

    def rotate(self) -> int:
        """Forget the oldest bucket; returns how many trees were in it."""
        forgotten = len(self.buckets.pop())
        self.buckets.insert(0, {})
        return forgotten

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self.buckets)
