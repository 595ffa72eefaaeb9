"""Which executor runs in which slot? A pure function: same input, same output, whatever the order of the input.

`place` keeps what runs where it runs, moves what lost its slot, and spreads: the executors of one component over the
workers first, then all executors evenly. `choose_slots` picks the workers: over supervisors first.
With `level` it may also move executors that could stay, no more than evenness takes, over supervisors first; without
it, none.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from itertools import groupby

from rainband.records import Executor, Slot


@dataclass(frozen=True, slots=True)
class Schedule:
    """`slots` by executor; `missing` is how many slots fewer than wanted it had to do with. Empty: none at all."""

    slots: Mapping[Executor, Slot]
    missing: int


def workers_wanted(executors: int, workers: int) -> int:
    """A worker without an executor would be no use."""
    return min(executors, workers)


def place(
    executors: Iterable[Executor],
    workers: int,
    current: Mapping[Executor, Slot],
    usable: Iterable[Slot],
    *,
    level: bool = False,
    reluctant: Collection[str] = (),
) -> Schedule:
    """Place all `executors` on up to `workers` of the `usable` slots (free ones and this topology's own).

    `current` says where executors run now; those whose slot is not usable any more move. A topology that gets more
    workers than it has now is levelled, otherwise only when `level` is set. Where there is a choice, executors of
    `reluctant` components (spouts: some begin anew where they move) stay.
    """
    todo = sorted(executors)
    available = set(usable)
    kept = {executor: current[executor] for executor in todo if current.get(executor) in available}
    wanted = workers_wanted(len(todo), workers)
    anchored = Counter(slot for executor, slot in kept.items() if executor.component in reluctant)
    used = Counter(kept.values())
    slots = choose_slots(wanted, used, available, anchored)
    if level:
        slots = spread_slots(slots, used, available, anchored)
    if not slots:
        return Schedule({}, wanted)
    chosen = set(slots)
    placed = {executor: slot for executor, slot in kept.items() if slot in chosen}
    board = Board(slots, placed)
    homeless = (executor for executor in todo if executor not in placed)
    for component, group in groupby(homeless, lambda executor: executor.component):
        board.add_all(component, group)
    if level or (placed and len(slots) > len(set(current.values()))):
        board.spread_components()
        board.even_out(reluctant)
    return Schedule({executor: board.where[executor] for executor in todo}, wanted - len(slots))


def choose_slots(
    wanted: int, used: Mapping[Slot, int], usable: Iterable[Slot], anchored: Mapping[Slot, int] | None = None
) -> list[Slot]:
    """Up to `wanted` slots, sorted: those in use first (the fullest, when there are too many), then free ones.

    Of equally full ones those with the most `anchored` executors are kept.
    Free ones come from the supervisor that holds the fewest of the chosen so far, then from the one with most free.
    """
    held_fast = anchored or {}
    chosen = sorted(used, key=lambda slot: (-used[slot], -held_fast.get(slot, 0), slot))[:wanted]
    held = Counter(slot.supervisor for slot in chosen)
    free: defaultdict[str, list[Slot]] = defaultdict(list)
    for slot in set(usable) - set(used):
        free[slot.supervisor].append(slot)
    for idle in free.values():
        idle.sort(reverse=True)
    offers = [(held[supervisor], -len(idle), idle[-1]) for supervisor, idle in free.items()]
    heapify(offers)
    while offers and len(chosen) < wanted:
        count, _, best = heappop(offers)
        idle = free[best.supervisor]
        chosen.append(idle.pop())
        if idle:
            heappush(offers, (count + 1, -len(idle), idle[-1]))
    return sorted(chosen)


def spread_slots(
    chosen: Iterable[Slot], used: Mapping[Slot, int], usable: Iterable[Slot], anchored: Mapping[Slot, int]
) -> list[Slot]:
    """As many slots, sorted: the supervisor with most gives one up for one where fewest are, while that evens out.

    Given up is the emptiest, by executors and then by `anchored` ones; taken is the fullest of those in use, if any.
    """

    def worth(slot: Slot) -> tuple[int, int, Slot]:
        return -used.get(slot, 0), -anchored.get(slot, 0), slot

    held: defaultdict[str, list[Slot]] = defaultdict(list)
    for slot in sorted(chosen, key=worth):
        held[slot.supervisor].append(slot)
    others: defaultdict[str, list[Slot]] = defaultdict(list)
    for slot in sorted(set(usable).difference(*held.values()), key=worth, reverse=True):
        others[slot.supervisor].append(slot)
    while others and held:
        richest = max(held, key=lambda name: (len(held[name]), name))
        poorest = min(others, key=lambda name: (len(held.get(name, ())), worth(others[name][-1])[0], name))
        if len(held[richest]) - len(held.get(poorest, ())) < 2:
            break
        held[richest].pop()
        held[poorest].append(others[poorest].pop())
        if not others[poorest]:
            del others[poorest]
    return sorted(slot for slots in held.values() for slot in slots)


class Board:
    """Executors on slots while they are being placed. Every choice looks at two counts: the component's, and all.

    A choice changes the rank of the slots it names and of no others: one ranking serves many choices.
    """

    def __init__(self, slots: Sequence[Slot], placed: Mapping[Executor, Slot]) -> None:
        self.slots = slots
        self.home = placed
        self.away: dict[tuple[str, Slot], dict[Executor, None]] = {}
        self.where: dict[Executor, Slot] = {}
        self.total = dict.fromkeys(slots, 0)
        self.of: dict[str, dict[Slot, list[Executor]]] = {}
        for executor, slot in placed.items():
            self.add(executor, slot)

    def add(self, executor: Executor, slot: Slot) -> None:
        self.where[executor] = slot
        self.total[slot] += 1
        insort(self.of.setdefault(executor.component, {}).setdefault(slot, []), executor)
        home = self.home.get(executor, slot)
        if home != slot:
            self.away.setdefault((executor.component, home), {})[executor] = None

    def take(self, executor: Executor) -> Slot:
        slot = self.where[executor]
        self.total[slot] -= 1
        self.of[executor.component][slot].remove(executor)
        return slot

    def count(self, component: str, slot: Slot) -> int:
        return len(self.of[component].get(slot, ()))

    def rank(self, component: str, slot: Slot) -> tuple[int, int, Slot]:
        """Least where the component has fewest executors, then where fewest are at all."""
        return self.count(component, slot), self.total[slot], slot

    def ranking(self, component: str) -> list[tuple[int, int, Slot]]:
        return sorted(self.rank(component, slot) for slot in self.slots)

    def add_all(self, component: str, executors: Iterable[Executor]) -> None:
        """Each of the component's executors where the rank is least by then (what is sorted is a heap, too)."""
        self.of.setdefault(component, {})
        ranking = self.ranking(component)
        for executor in executors:
            slot = ranking[0][-1]
            self.add(executor, slot)
            heapreplace(ranking, self.rank(component, slot))

    def move_one(self, component: str, source: Slot, target: Slot) -> None:
        """The last of those there. If one is away that ran in `target` before, it comes back, and this takes its place.

        Either way `source` has one less and `target` one more; coming back is one move less.
        """
        executor = self.of[component][source][-1]
        self.take(executor)
        away = self.away.get((component, target))
        if away:
            returning, _ = away.popitem()
            place = self.take(returning)
            self.add(returning, target)
            target = place
        self.add(executor, target)

    def spread_components(self) -> None:
        """Until each component has as many executors in each slot as in any other, or one more."""
        for component in sorted(self.of):
            ranking = self.ranking(component)
            while ranking[-1][0] - ranking[0][0] > 1:
                source, target = ranking.pop()[-1], ranking.pop(0)[-1]
                self.move_one(component, source, target)
                insort(ranking, self.rank(component, source))
                insort(ranking, self.rank(component, target))

    def even_out(self, reluctant: Collection[str]) -> None:
        """Until the slots hold equally many executors or one more, keeping the components spread.

        The fuller slot has more of some component, by one at most: moving that one mirrors the difference. Best is one
        of which the emptier slot has given one away before; of equally empty slots, one in which nothing ran before.
        """
        old = set(self.home.values())
        components = sorted(self.of, key=lambda name: (name in reluctant, name))
        ranking = sorted((self.total[slot], slot in old, slot) for slot in self.slots)
        while ranking[-1][0] - ranking[0][0] > 1:
            source, target = ranking.pop()[-1], ranking.pop(0)[-1]
            movable = [name for name in components if self.count(name, source) > self.count(name, target)]
            component = min(movable, key=lambda name: not self.away.get((name, target)))
            self.move_one(component, source, target)
            insort(ranking, (self.total[source], source in old, source))
            insort(ranking, (self.total[target], target in old, target))
