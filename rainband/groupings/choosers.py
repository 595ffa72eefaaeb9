"""The rules that route: each picks, for a tuple's values, indexes into the sorted task ids of the receiving component.

The law every chooser keeps: 0 <= index < n, decided by its arguments, its own earlier answers and `blocked` alone.

Hot: one call per emitted tuple and subscription. Plain classes, compiled by mypyc, with the same behaviour uncompiled.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Final

from mypy_extensions import i64

from rainband.errors import EmitRefused, ValueRefused
from rainband.groupings.hashing import (
    INT_MAX,
    canonical,
    hash_of_canonical,
    spread_of_int,
    spread_of_str,
    stable_hash,
    task_of_group,
)
from rainband.groupings.specs import (
    ALL,
    CUSTOM,
    DIRECT,
    FIELDS,
    GLOBAL,
    LOCAL_OR_SHUFFLE,
    NONE,
    PARTIAL_KEY,
    SHUFFLE,
    CustomGrouping,
)

CACHE_ENTRIES_MAX: Final = 65_536
CACHED_KEY_BYTES_MAX: Final = 256
MASK_64 = (1 << 64) - 1
COMPILED: Final = not __file__.endswith(".py")


class Chooser:
    """Base of all. `many` choosers answer `choose_many`, the others `choose`.

    `blocked[i]` says that target i should not get more now; `blocked_count` is how many are, so that the usual case
    is one test. Set both through `set_blocked`.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.many = False
        self.blocked: list[bool] = [False] * n
        self.blocked_count: i64 = 0

    def choose(self, values: tuple[object, ...]) -> int:
        """Index of the one target of `values`."""
        raise NotImplementedError

    def choose_many(self, values: tuple[object, ...]) -> list[int]:
        """Indexes of all targets of `values`. The list may be shared: do not change it."""
        return [self.choose(values)]

    def set_blocked(self, index: int, blocked: bool) -> None:
        """Mark one target as blocked or not; repeating it changes nothing."""
        if self.blocked[index] != blocked:
            self.blocked[index] = blocked
            self.blocked_count += 1 if blocked else -1


class Shuffle(Chooser):
    """Round robin over a random permutation of `targets` (all n by default), passing over blocked ones.

    When all are blocked, the rest of what a call emits goes to the one that was blocked last: it had room a moment ago.
    In turn, one that stands still would get a share of whatever the others make room for, and its queue would grow on.
    """

    def __init__(self, n: int, seed: int, targets: Sequence[int] = ()) -> None:
        Chooser.__init__(self, n)
        self.order: list[int] = permutation(list(targets) if targets else list(range(n)), seed)
        self.size: i64 = len(self.order)
        self.next: i64 = 0
        self.newest = self.order[0]

    def set_blocked(self, index: int, blocked: bool) -> None:
        """Mark one target as blocked or not; repeating it changes nothing."""
        if blocked and not self.blocked[index] and index in self.order:
            self.newest = index
        Chooser.set_blocked(self, index, blocked)

    def choose(self, values: tuple[object, ...]) -> int:
        at = self.next
        index = self.order[at]
        at += 1
        self.next = at if at < self.size else 0
        if self.blocked_count > 0 and self.blocked[index]:
            return self._pass_over(index)
        return index

    def _pass_over(self, index: int) -> int:
        """The next target in order that is not blocked; the one blocked last when all are."""
        at = self.next
        for _ in range(self.size - 1):
            other = self.order[at]
            at += 1
            if at == self.size:
                at = 0
            if not self.blocked[other]:
                self.next = at
                return other
        return self.newest


class LocalOrShuffle(Shuffle):
    """Shuffle over the targets in the emitter's own worker (`local` indexes) when it has any, else over all.

    A busy local target is passed over for another local one only: a remote one would cost what the rule avoids.
    """

    def __init__(self, n: int, local: Sequence[int], seed: int) -> None:
        Shuffle.__init__(self, n, seed, local)
        self.seed = seed

    def relocate(self, local: Sequence[int]) -> None:
        """Tasks have moved: `local` is the new list of indexes in this worker."""
        self.order = permutation(list(local) if local else list(range(self.n)), self.seed)
        self.size = len(self.order)
        self.next = 0
        if self.newest not in self.order:
            self.newest = self.order[0]


class Keyed(Chooser):
    """Common part of fields and partial key: the key of a tuple is one value, or the tuple of several.

    `cache` maps keys to answers by Python's own `==`, so 1, True and 1.0 share an entry as they share a hash.
    """

    def __init__(self, positions: Sequence[int], n: int, fields: Sequence[str]) -> None:
        Chooser.__init__(self, n)
        self.positions: tuple[int, ...] = tuple(positions)
        self.position: i64 = self.positions[0]
        self.single = len(self.positions) == 1
        self.fields: tuple[str, ...] = tuple(fields)
        self.cache: dict[object, int] = {}
        self.where = ""  # who emits to whom, in errors

    def key_of(self, values: tuple[object, ...]) -> object:
        if self.single:
            return values[self.position]
        return tuple([values[position] for position in self.positions])

    def answer(self, hashed: int) -> int:
        """What the cache holds for a key with this stable hash."""
        raise NotImplementedError

    def miss(self, values: tuple[object, ...], key: object) -> int:
        try:
            data = canonical(key)
        except ValueRefused as error:
            raise self.refusal(values, error) from None
        found = self.answer(hash_of_canonical(data))
        if len(data) <= CACHED_KEY_BYTES_MAX:
            if len(self.cache) >= CACHE_ENTRIES_MAX:
                self.cache.clear()
            self.cache[key] = found
        return found

    def refusal(self, values: tuple[object, ...], error: ValueRefused) -> ValueRefused:
        """`error`, naming the grouping field whose value is at fault."""
        for at, position in enumerate(self.positions):
            try:
                stable_hash(values[position])
            except ValueRefused as reason:
                name = f"'{self.fields[at]}'" if at < len(self.fields) else f"number {position}"
                return ValueRefused(f"{self.where}field {name} of a grouping: {reason.message}", reason.fix)
        return error


class Fields(Keyed):
    """Equal keys to one task: key group of the key's stable hash, `groups` of them spread over the tasks.

    `groups` is a power of two up to 2**31. Keys go through the cache, except single strings and integers where this is
    compiled: to hash one takes no more time than a look-up there, and eight times as much where it is interpreted.
    """

    def __init__(self, positions: Sequence[int], n: int, groups: int, fields: Sequence[str] = ()) -> None:
        Keyed.__init__(self, positions, n, fields)
        self.groups: i64 = groups
        self.group_mask: i64 = groups - 1
        self.tasks: i64 = n

    def choose(self, values: tuple[object, ...]) -> int:
        key = values[self.position] if self.single else self.key_of(values)
        if COMPILED and type(key) is str:
            assert isinstance(key, str)
            try:
                return (spread_of_str(key) & self.group_mask) * self.tasks // self.groups
            except UnicodeEncodeError:
                return self.miss(values, key)
        if COMPILED and type(key) is int:
            assert isinstance(key, int)
            if -INT_MAX <= key <= INT_MAX:
                return (spread_of_int(key) & self.group_mask) * self.tasks // self.groups
        try:
            index = self.cache.get(key)
        except TypeError:  # unhashable
            return self.miss(values, key)
        if index is not None:
            return index
        return self.miss(values, key)

    def answer(self, hashed: int) -> int:
        return task_of_group(hashed % self.groups, self.n, self.groups)


class PartialKey(Keyed):
    """Each key has two candidate tasks; a tuple goes to the one this emitter has used less, if that is not blocked.

    The cache holds both candidates as first * n + second.
    """

    def __init__(self, positions: Sequence[int], n: int, fields: Sequence[str] = ()) -> None:
        Keyed.__init__(self, positions, n, fields)
        self.used: list[int] = [0] * n

    def choose(self, values: tuple[object, ...]) -> int:
        key = values[self.position] if self.single else self.key_of(values)
        try:
            pair = self.cache.get(key)
        except TypeError:  # unhashable
            pair = None
        if pair is None:
            pair = self.miss(values, key)
        first = pair // self.n
        second = pair % self.n
        index = first if self.used[first] <= self.used[second] else second
        if self.blocked_count > 0 and self.blocked[index]:
            other = second if index == first else first
            if not self.blocked[other]:
                index = other
        self.used[index] += 1
        return index

    def answer(self, hashed: int) -> int:
        first = hashed % self.n
        if self.n == 1:
            return 0
        second = (first + 1 + (hashed >> 31) % (self.n - 1)) % self.n
        return first * self.n + second


class All(Chooser):
    """Every task gets a copy."""

    def __init__(self, n: int) -> None:
        Chooser.__init__(self, n)
        self.many = True
        self.indexes: list[int] = list(range(n))

    def choose_many(self, values: tuple[object, ...]) -> list[int]:
        return self.indexes


class Global(Chooser):
    """The task with the lowest id gets everything."""

    def choose(self, values: tuple[object, ...]) -> int:
        return 0


class Direct(Chooser):
    """The emitter names the task: a plain emit has no target to choose."""

    def choose(self, values: tuple[object, ...]) -> int:
        raise EmitRefused(
            "emit on a direct stream", "Use emit_direct(task, values, ...), which names the receiving task"
        )


class Custom(Chooser):
    """Asks the user's CustomGrouping (already prepared) for task ids, and checks that they are the receiver's."""

    def __init__(self, grouping: CustomGrouping, tasks: Sequence[int]) -> None:
        Chooser.__init__(self, len(tasks))
        self.many = True
        self.grouping = grouping
        self.tasks: tuple[int, ...] = tuple(tasks)
        self.index: dict[int, int] = {task: index for index, task in enumerate(tasks)}

    def choose_many(self, values: tuple[object, ...]) -> list[int]:
        chosen: object = self.grouping.choose_tasks(values)
        if isinstance(chosen, (str, bytes)) or not isinstance(chosen, Sequence):
            raise self.refusal(chosen, "Return a list of task ids, also for one: [task]")
        found: list[int] = []
        for task in chosen:
            known = not isinstance(task, bool) and hasattr(task, "__index__")
            index = self.index.get(operator.index(task)) if known else None
            if index is None:
                raise self.refusal(task, f"Return ids out of the tasks given to prepare: {list(self.tasks[:16])}")
            found.append(index)
        return found

    def refusal(self, answer: object, fix: str) -> EmitRefused:
        return EmitRefused(f"{type(self.grouping).__name__}.choose_tasks returned {answer!r}", fix)


def permutation(items: list[int], seed: int) -> list[int]:
    """`items` in an order drawn from `seed` (Fisher-Yates over a splitmix64 sequence)."""
    state = seed & MASK_64
    for last in range(len(items) - 1, 0, -1):
        state = (state + 0x9E3779B97F4A7C15) & MASK_64
        mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK_64
        other = (mixed ^ (mixed >> 31)) % (last + 1)
        items[last], items[other] = items[other], items[last]
    return items


def make_chooser(
    kind: str,
    *,
    tasks: Sequence[int],
    positions: Sequence[int] = (),
    groups: int = 0,
    local: Sequence[int] = (),
    seed: int = 0,
    custom: CustomGrouping | None = None,
    fields: Sequence[str] = (),
) -> Chooser:
    """The chooser of one subscription.

    `tasks`: sorted ids of the receiving component. `positions`, `fields`: where the grouping's fields are in the
    values, and what they are called in errors. `groups`: G of the plan. `local`: indexes of the tasks in the emitting
    worker. `custom`: an instance whose `prepare` has been called. Raises ValueError for an unknown kind.
    """
    n = len(tasks)
    if kind in (SHUFFLE, NONE):
        return Shuffle(n, seed)
    if kind == FIELDS:
        return Fields(positions, n, groups, fields)
    if kind == PARTIAL_KEY:
        return PartialKey(positions, n, fields)
    if kind == ALL:
        return All(n)
    if kind == GLOBAL:
        return Global(n)
    if kind == LOCAL_OR_SHUFFLE:
        return LocalOrShuffle(n, local, seed)
    if kind == DIRECT:
        return Direct(n)
    if kind == CUSTOM and custom is not None:
        return Custom(custom, tasks)
    raise ValueError(f"no chooser for grouping '{kind}'")
