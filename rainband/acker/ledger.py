"""Trees, the spouts' own book of them (`Pending`), and the book of a separate acker task (`Ledger`).

Ids are 63-bit non-negative integers: acker index (12 bits), acker incarnation (11), counter (40).
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

INDEX_BITS: Final = 12
INCARNATION_BITS: Final = 11
COUNTER_BITS: Final = 40
COUNTER_MASK: Final = (1 << COUNTER_BITS) - 1
INDEX_MAX: Final = (1 << INDEX_BITS) - 1


class Tree:
    """The part of one tuple tree that this worker sees.

    `count`: tuples of the tree inside this worker that are not finished. `edges`: XOR of the ids that crossed.
    `home` is true in the worker whose spout emitted the root. `task` is that spout's task (0 in a proxy).
    """

    def __init__(self, root: i64, task: i64, home: bool, message_id: object, started: float) -> None:
        self.root = root
        self.edges: i64 = 0
        self.count: i64 = 0
        self.task = task
        self.message_id = message_id
        self.started = started
        self.home = home
        self.failed = False
        self.announced = False


class Group(Tree):
    """Several trees held open together: what a tuple with more than one anchor belongs to."""

    def __init__(self, parents: list[Tree]) -> None:
        Tree.__init__(self, 0, 0, False, None, 0.0)
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


class Pending:
    """The book of the roots emitted by one spout task: ack, fail, timeout. Keyed by the counter part of the root id.

    Kept in order of `started`, so that timeouts look at the oldest only.
    """

    def __init__(self, index: int, incarnation: int, first: int) -> None:
        assert 0 <= index <= INDEX_MAX
        known = incarnation & ((1 << INCARNATION_BITS) - 1)
        self.prefix: i64 = ((index << INCARNATION_BITS) | known) << COUNTER_BITS
        self.counter: i64 = first & (COUNTER_MASK >> 1)
        self.trees: dict[int, Tree] = {}

    def new_root(self) -> i64:
        """A root id never used before by this book."""
        self.counter = (self.counter + 1) & COUNTER_MASK
        return self.prefix | self.counter

    def add(self, tree: Tree) -> None:
        self.trees[int(self.counter)] = tree

    def get(self, root: i64) -> Tree | None:
        """The open tree of `root`; None when it is finished or belongs to another incarnation."""
        if root & ~COUNTER_MASK != self.prefix:
            return None
        return self.trees.get(int(root & COUNTER_MASK))

    def remove(self, root: i64) -> Tree | None:
        """Close the book on `root`. None when it was closed before: every root gets one verdict."""
        if root & ~COUNTER_MASK != self.prefix:
            return None
        return self.trees.pop(int(root & COUNTER_MASK), None)

    def touch(self, root: i64, now: float) -> None:
        """Start the timeout of `root` anew."""
        tree = self.remove(root)
        if tree is not None:
            tree.started = now
            self.trees[int(root & COUNTER_MASK)] = tree

    def expired(self, before: float) -> list[Tree]:
        """Open trees started (or touched) before `before`, oldest first."""
        found = []
        for tree in self.trees.values():
            if tree.started >= before:
                break
            found.append(tree)
        return found

    def __len__(self) -> int:
        return len(self.trees)


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
