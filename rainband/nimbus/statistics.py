"""Adds up what workers report. In memory only: a Nimbus that was restarted counts what the living workers report.

A worker reports sums since it started. Those of the newest incarnation in each slot are kept as they are; when another
incarnation takes its place, or a task leaves it, the last known sums are folded into a base, so totals never fall.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

import msgspec

from rainband.nimbus.rest import Rest
from rainband.nimbus.rows import Entry
from rainband.records import (
    ComponentStatistics,
    ErrorRecord,
    Slot,
    Statistics,
    TaskCount,
    WorkerBeat,
    WorkerState,
)

ERRORS_MAX = 1000
COMPONENT_ERRORS_MAX = 25
COUNTERS_MAX = 1000
ABSENT_S = 3.0
NO_WORKER = 0  # the incarnation of a beat that a supervisor wrote because no worker did
SUMS = tuple(
    field
    for field in TaskCount.__struct_fields__
    if field not in ("task", "component", "pending", "queued", "finished")
)


@dataclass(frozen=True, slots=True)
class Left:
    """The last beat of a slot that was given up, whose process may still go on, and the restarts counted for it."""

    beat: WorkerBeat
    restarts: int


@dataclass(slots=True)
class Heard:
    """The newest beat of a slot. `present`: the supervisor's last heartbeat had it. `turn` grows with each beat."""

    beat: WorkerBeat
    present: bool
    turn: int


class Tally:
    """The reports of one topology's workers, and the newest `errors_max` errors of each component.

    An error comes with some KiB of traceback, or of the last words of a worker that was killed.
    """

    def __init__(self, errors_max: int = COMPONENT_ERRORS_MAX) -> None:
        self._errors_max = errors_max
        self._heard: dict[Slot, Heard] = {}
        self._retired: dict[Slot, int] = {}
        self._left: dict[Slot, Left] = {}
        self._displaced: dict[Slot, WorkerBeat] = {}
        self._again: set[Slot] = set()
        self._tasks: dict[int, TaskCount] = {}
        self._counters: Counter[str] = Counter()
        self._restarts = 0
        self._replaced: Counter[Slot] = Counter()
        self._awaited: dict[Slot, float] = {}
        self._errors: OrderedDict[tuple[object, ...], ErrorRecord] = OrderedDict()
        self._seeking: set[int] = set()
        self._turn = 0
        self._rest = Rest()
        self._quiet = False

    def hear(self, slot: Slot, beat: WorkerBeat) -> None:
        """A beat from a slot of the assignment.

        A late word of a process that was replaced is not believed. When it speaks again, with no word of the other in
        between, it was the other's that came late.
        """
        left = self._left.pop(slot, None)
        if self._retired.get(slot) != beat.incarnation:
            self._again.discard(slot)
        elif left is not None:
            self._take_back(slot, left, beat)
        elif slot in self._again and slot in self._displaced:
            self._replaced[slot] -= 1
            self._take_back(slot, Left(self._displaced[slot], 0), beat)
        else:
            self._again.add(slot)
            return
        self._remember(beat.errors)
        beat = msgspec.structs.replace(beat, errors=())
        last = self._heard.get(slot)
        if last is not None and last.beat == beat:
            last.present = True  # the supervisor repeats what it last heard: no new look
            return
        self._turn += 1
        if last is not None and last.beat.incarnation != NO_WORKER:
            if beat.incarnation == NO_WORKER:
                beat = msgspec.structs.replace(last.beat, state=beat.state, restarts=beat.restarts, note=beat.note)
            elif last.beat.incarnation != beat.incarnation:
                self._fold(slot)
                self._replaced[slot] += 1
                self._displaced[slot] = last.beat
            else:
                staying = {count.task for count in beat.tasks}
                self._fold_tasks(count for count in last.beat.tasks if count.task not in staying)
        self._heard[slot] = Heard(beat, True, self._turn)
        self._seeking.update(beat.positions)

    def silence(self, slots: Iterable[Slot]) -> None:
        """Their supervisor reported, and has no worker there."""
        for slot in slots:
            if slot in self._heard:
                self._heard[slot].present = False

    def keep_only(self, slots: Set[Slot]) -> None:
        """The workers of all other slots are gone; their sums stay."""
        for slot in self._heard.keys() - slots:
            restarts = self._restarts_of(slot)
            self._left[slot] = Left(self._heard[slot].beat, restarts)
            self._restarts += restarts
            del self._replaced[slot]
            self._displaced.pop(slot, None)
            self._fold(slot)

    def overdue(self, slots: Iterable[Slot], now: float, launch_s: float) -> list[Slot]:
        """Slots of which nothing was heard for `launch_s` since they were first asked about here."""
        self._awaited = {slot: self._awaited.get(slot, now) for slot in slots if slot not in self._heard}
        return sorted(slot for slot, since in self._awaited.items() if now >= since + launch_s)

    def observe(self, entry: Entry) -> None:
        """Look at all beats after some came."""
        beats = {slot: beat for slot in entry.slots if (beat := self.beat(slot)) is not None}
        self._quiet = self._rest.look(entry, beats, {slot: self._heard[slot].turn for slot in beats})

    def beat(self, slot: Slot) -> WorkerBeat | None:
        """The newest beat of a worker that its supervisor still has."""
        heard = self._heard.get(slot)
        return heard.beat if heard is not None and heard.present else None

    def running(self, entry: Entry) -> int:
        """Slots whose worker is up with all tasks placed there: every open and prepare has returned."""
        if entry.assignment is None:
            return 0
        waiting = {left.task for left in entry.leaving}
        needed: dict[Slot, int] = {}
        short: set[Slot] = set()
        for placement in entry.assignment.placements:
            needed[placement.slot] = max(placement.number, needed.get(placement.slot, 0))
            if waiting and not waiting.isdisjoint(range(placement.executor.first, placement.executor.last + 1)):
                short.add(placement.slot)
        return sum(is_running(self.beat(slot), number) for slot, number in needed.items() if slot not in short)

    def moved(self, entry: Entry) -> bool:
        """Every worker is up and knows the assignment as it is now."""
        assert entry.assignment is not None
        version = entry.assignment.version
        return all(is_running(self.beat(slot), version) for slot in entry.slots)

    @property
    def quiet(self) -> bool:
        """Spouts are finished or paused, and all that came of them is done; see `Rest`."""
        return self._quiet

    def finished(self, entry: Entry) -> bool:
        """Every spout is finished, everything that came of them is done."""
        beats = [self.beat(slot) for slot in entry.slots]
        spouts = [count for beat in beats if beat is not None for count in beat.tasks if is_spout(entry, count)]
        return self._quiet and all(count.finished for count in spouts)

    def settled(self, entry: Entry, heard_s: Mapping[str, float]) -> bool:
        """For the waits of kill and rebalance: spouts are paused, and nothing is pending on any worker.

        `heard_s`: for how long each supervisor has reported since the wait began or it was started itself. What runs
        on one that did not is not known, and one that was just started may still be looking for its workers.
        """
        assert entry.assignment is not None
        for slot in entry.slots:
            if slot.supervisor not in heard_s:
                return False
            beat = self.beat(slot)
            if beat is None:
                if heard_s[slot.supervisor] < ABSENT_S:
                    return False
            elif beat.state is WorkerState.STARTING:
                return False
            elif beat.state is WorkerState.RUNNING and (
                beat.version < entry.assignment.version or not beat.paused or beat.pending
            ):
                return False
        return True

    def errors(self, component: str | None = None) -> tuple[ErrorRecord, ...]:
        """The newest errors, oldest first."""
        found = [error for error in self._errors.values() if component in (None, error.component)]
        return tuple(sorted(found, key=lambda error: error.at))

    def statistics(self, entry: Entry, *, missing: int, wanted: int, uptime_s: float) -> Statistics:
        beats = tuple([beat for slot in sorted(entry.slots) if (beat := self.beat(slot)) is not None])
        newest = [heard.beat for heard in self._heard.values()]
        tasks = self._totals()
        spouts = [count for count in tasks.values() if is_spout(entry, count)]
        acked, failed, pending = (sum(getattr(c, name) for c in spouts) for name in ("acked", "failed", "pending"))
        counters = Counter(self._counters)
        for beat in newest:
            counters.update(beat.counters)
        orphans = {count.task: count.tracked - count.acked - count.failed - count.pending for count in spouts}
        lost = sum(max(0, number) for task, number in orphans.items() if task not in self._seeking)
        if again := sum(max(0, number) for task, number in orphans.items() if task in self._seeking):
            counters["read_again"] = again
        own = [count for count in tasks.values() if not count.component.startswith("__")]
        return Statistics(
            name=entry.row.name,
            topology_id=entry.topology_id,
            status=entry.shown_status,
            emitted=acked + failed + pending + lost,
            acked=acked,
            failed=failed,
            timed_out=sum(count.timed_out for count in spouts),
            replayed=sum(count.replayed for count in spouts),
            dead_letters=sum(count.dead_letters for count in spouts),
            pending=pending,
            executed=sum(count.executed for count in own if not is_spout(entry, count)),
            transferred=sum(count.transferred for count in own),
            errors=sum(count.errors for count in own),
            lost=lost,
            drained=self.finished(entry),
            complete_s=sum((count.complete_s for count in spouts), 0.0),
            uptime_s=uptime_s,
            workers_wanted=wanted,
            workers_running=self.running(entry),
            slots_missing=missing,
            restarts=self._restarts + sum(self._restarts_of(slot) for slot in self._heard),
            components=by_component(entry, own),
            workers=beats,
            counters=dict(sorted(counters.items())),
        )

    def _restarts_of(self, slot: Slot) -> int:
        """The supervisor counts them, and so do we, in case it was restarted itself."""
        return max(self._replaced[slot], self._heard[slot].beat.restarts)

    def _fold(self, slot: Slot) -> None:
        last = self._heard.pop(slot)
        self._retired[slot] = last.beat.incarnation
        self._fold_tasks(last.beat.tasks)
        if len(self._counters) < COUNTERS_MAX:
            self._counters.update(last.beat.counters)

    def _take_back(self, slot: Slot, left: Left, beat: WorkerBeat) -> None:
        """The slot came back before its process heard that it was given up: what was folded is in `beat` again."""
        del self._retired[slot]
        self._again.discard(slot)
        self._restarts -= left.restarts
        self._counters.subtract({name: n for name, n in left.beat.counters.items() if name in self._counters})
        told = {count.task: count for count in beat.tasks}
        for count in left.beat.tasks:
            now = told.get(count.task)
            if now is not None and all(getattr(now, name) >= getattr(count, name) for name in SUMS):
                folded = self._tasks[count.task]
                rest = {name: getattr(folded, name) - getattr(count, name) for name in SUMS}
                self._tasks[count.task] = msgspec.structs.replace(folded, **rest)

    def _fold_tasks(self, counts: Iterable[TaskCount]) -> None:
        for count in counts:
            self._tasks[count.task] = add_task(self._tasks.get(count.task), count, gauges=False)

    def _totals(self) -> dict[int, TaskCount]:
        totals = dict(self._tasks)
        for heard in self._heard.values():
            lives = heard.present and heard.beat.state is not WorkerState.CRASHED
            for count in heard.beat.tasks:
                totals[count.task] = add_task(totals.get(count.task), count, gauges=lives)
        return totals

    def _remember(self, errors: Iterable[ErrorRecord]) -> None:
        for error in errors:
            key = (error.component, error.task, error.host, error.port, error.at, error.error)
            known = self._errors.get(key)
            if known is None or known.count < error.count:
                self._errors[key] = error
            alike = [kept for kept in self._errors if kept[0] == error.component]
            if len(alike) > self._errors_max:
                del self._errors[alike[0]]
            elif len(self._errors) > ERRORS_MAX:
                self._errors.popitem(last=False)


def is_running(beat: WorkerBeat | None, number: int) -> bool:
    return beat is not None and beat.state == WorkerState.RUNNING and beat.version >= number


def is_spout(entry: Entry, count: TaskCount) -> bool:
    return kind_of(entry, count.component) == "spout"


def kind_of(entry: Entry, component: str) -> str:
    known = entry.plan.components.get(component)
    return known.kind if known is not None else ""


def add_task(earlier: TaskCount | None, count: TaskCount, *, gauges: bool) -> TaskCount:
    """The sums of both; what is only true now (pending, queued, finished) from `count`, or not at all."""
    sums = {name: getattr(count, name) + (getattr(earlier, name) if earlier is not None else 0) for name in SUMS}
    if gauges:
        return msgspec.structs.replace(count, **sums)
    return TaskCount(count.task, count.component, **sums)


def by_component(entry: Entry, counts: Iterable[TaskCount]) -> dict[str, ComponentStatistics]:
    """One row per component of the plan, also for those nothing was heard of."""
    rows: dict[str, dict[str, float]] = {name: {} for name in entry.plan.components if not name.startswith("__")}
    for count in counts:
        row = rows.setdefault(count.component, {})
        for name in ("emitted", "transferred", "executed", "acked", "failed", "errors", "execute_s", "queued"):
            row[name] = row.get(name, 0) + getattr(count, name)
    return {
        name: msgspec.convert({"component": name, "tasks": tasks_of(entry, name), **row}, ComponentStatistics)
        for name, row in rows.items()
    }


def tasks_of(entry: Entry, component: str) -> int:
    known: Mapping[str, range] = entry.plan.tasks
    return len(known.get(component, range(0)))
