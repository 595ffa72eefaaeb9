"""Which executor runs in which slot? A pure function: same input, same output, whatever the order of the input.

`place` keeps what runs where it runs, moves what lost its slot, and spreads: the executors of one component over the
workers first, then all executors evenly. `choose_slots` picks the workers: over supervisors first.
With `level` it may also move executors that could stay, no more than evenness takes; without it, none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

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
    slots = choose_slots(wanted, Counter(kept.values()), available, anchored)
    if not slots:
        return Schedule({}, wanted)
    placed = {executor: slot for executor, slot in kept.items() if slot in set(slots)}
    board = Board(slots, placed)
    for executor in todo:
        if executor not in placed:
            board.add(executor, board.best_for(executor.component))
    if level or (placed and len(slots) > len(set(current.values()))):
        board.spread_components()
        board.even_out(reluctant)
    return Schedule(dict(sorted(board.where.items())), wanted - len(slots))


def choose_slots(
    wanted: int, used: Mapping[Slot, int], usable: Iterable[Slot], anchored: Mapping[Slot, int] | None = None
) -> list[Slot]:
    """Up to `wanted` slots, sorted: those in use first (the fullest, when there are too many), then free ones.

    Of equally full ones those with the most `anchored` executors are kept.
    Free ones come from the supervisor that holds the fewest of the chosen so far, then from the one with most free.
    """
    free = sorted(set(usable) - set(used))
    held_fast = anchored or {}
    chosen = sorted(used, key=lambda slot: (-used[slot], -held_fast.get(slot, 0), slot))[:wanted]
    held = Counter(slot.supervisor for slot in chosen)
    idle = Counter(slot.supervisor for slot in free)
    while len(chosen) < wanted and free:
        best = min(free, key=lambda slot: (held[slot.supervisor], -idle[slot.supervisor], slot))
        free.remove(best)
        chosen.append(best)
        held[best.supervisor] += 1
        idle[best.supervisor] -= 1
    return sorted(chosen)


class Board:
    """Executors on slots while they are being placed, with the two counts that every choice looks at."""

    def __init__(self, slots: Sequence[Slot], placed: Mapping[Executor, Slot]) -> None:
        self.slots = slots
        self.where: dict[Executor, Slot] = {}
        self.total: Counter[Slot] = Counter()
        self.of: dict[str, Counter[Slot]] = {}
        for executor, slot in sorted(placed.items()):
            self.add(executor, slot)

    def add(self, executor: Executor, slot: Slot) -> None:
        self.where[executor] = slot
        self.total[slot] += 1
        self.of.setdefault(executor.component, Counter())[slot] += 1

    def best_for(self, component: str) -> Slot:
        """Where the component has fewest executors, then where fewest are at all."""
        here = self.of.setdefault(component, Counter())
        return min(self.slots, key=lambda slot: (here[slot], self.total[slot], slot))

    def move_one(self, component: str, source: Slot, target: Slot) -> None:
        executor = max(e for e, slot in self.where.items() if slot == source and e.component == component)
        self.total[source] -= 1
        self.of[component][source] -= 1
        self.add(executor, target)

    def spread_components(self) -> None:
        """Until each component has as many executors in each slot as in any other, or one more."""
        for component, here in sorted(self.of.items()):
            while True:
                source = max(self.slots, key=lambda slot: (here[slot], self.total[slot], slot))
                target = self.best_for(component)
                if here[source] - here[target] <= 1:
                    break
                self.move_one(component, source, target)

    def even_out(self, reluctant: Collection[str]) -> None:
        """Until the slots hold equally many executors or one more, keeping the components spread.

        The fuller slot has more of some component, by one at most: moving that one mirrors the difference.
        """
        while True:
            source = max(self.slots, key=lambda slot: (self.total[slot], slot))
            target = min(self.slots, key=lambda slot: (self.total[slot], slot))
            if self.total[source] - self.total[target] <= 1:
                break
            movable = [name for name, here in self.of.items() if here[source] > here[target]]
            component = min(movable, key=lambda name: (name in reluctant, name))
            self.move_one(component, source, target)
