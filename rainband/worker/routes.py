"""Where tuples of this worker can go, and who must wait: targets, edges, gates, outboxes, credit, and the agenda.

Law of flow: an executor runs only while its `Gate.blocked` is zero. A `Target` that runs out of room (a full inbox
here, or no credit there) fills the edges that lead to it; an `Edge` blocks its gate when one target is full (fields,
all, global, direct ...) or when all are (shuffle). Nothing is scanned: counters move on the transition only.
Edges on a cycle watch no target, so that a cycle can never wait for itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from random import Random
from typing import Final

from mypy_extensions import i64, mypyc_attr

from rainband.acker.ledger import Group, Tree
from rainband.errors import EmitRefused
from rainband.groupings.choosers import Chooser
from rainband.topology.tuples import Source, Tuple

ROWS_MAX: Final = 4096
HOLD_ROWS: Final = 1024
HOLD_SHARE: Final = 4
CYCLE_MAX: Final = 1 << 20  # tuples that may wait at one task of a cycle, which takes no credit
INBOX_MAX: Final = 512  # tuples from tasks of this worker: more would outgrow the processor's cache
HOLD_PASSES: Final = 4
WHYS_MAX: Final = 4096
WHY_CHARACTERS_MAX: Final = 500
MASK: Final = 0x3FFFFFFFFFFFFFFF
STEP: Final = 0x1E3779B97F4A7C15


class EdgeIds:
    """Random ids of 62 bits, never zero: a counter from a random start, each step scrambled as in splitmix.

    Who knows the state before some ids were drawn can draw the same ones `again`.
    """

    def __init__(self, state: i64) -> None:
        self.state: i64 = state & MASK

    def again(self, state: i64) -> EdgeIds:
        return EdgeIds(state)

    def next(self) -> i64:
        """The same compiled or not: the mask cuts off what overflows."""
        state = (self.state + STEP) & MASK
        self.state = state
        mixed = ((state ^ (state >> 30)) * 0x3F58476D1CE4E5B9) & MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x14D049BB133111EB) & MASK
        return mixed ^ (mixed >> 31) or 1


@mypyc_attr(allow_interpreted_subclasses=True)
class Waiter:
    """A task that a gate may hold back. Its `place` in the line is kept until it has had a turn; 0 is none."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.place: i64 = 0


@mypyc_attr(allow_interpreted_subclasses=True)
class Runner(Waiter):
    """A task that has input: its inbox, and whether it already stands in a queue to run.

    Each sending worker has credit for `limit` tuples; senders in this worker stop when `room` are in the inbox.
    """

    def __init__(self, task: int, level: int, limit: int, agenda: Agenda, gate: Gate) -> None:
        Waiter.__init__(self, gate)
        self.task = task
        self.level = level
        self.limit: i64 = limit
        self.room: i64 = min(limit, INBOX_MAX)
        self.agenda = agenda
        self.inbox: list[Tuple] = []
        self.ready = False
        self.full = False
        self.target: Target | None = None
        self.touched: list[CreditLine] = []

    def run(self, begin: float) -> float:
        """Work for one turn from `begin` on; returns when it ended."""
        raise NotImplementedError

    def take(self) -> list[Tuple]:
        """Everything in the inbox. Makes room: local sources go on, remote ones are granted credit."""
        batch = self.inbox
        self.inbox = []
        if self.full:
            self.full = False
            if self.target is not None:
                self.target.set_full(False)
        if self.touched:
            self.grant()
        return batch

    def leave(self) -> None:
        """The task goes elsewhere: grant all that was taken, for it may come back to senders that wait."""
        for line in self.touched:
            line.touched = False
            line.runner = None
            line.granted = line.delivered + self.limit
            self.agenda.grants.append(line)
        self.touched = []

    def grant(self) -> None:
        waiting: list[CreditLine] = []
        for line in self.touched:
            room = line.delivered + self.limit - line.granted
            if room >= line.step:
                line.granted += room
                line.touched = False
                self.agenda.grants.append(line)
            else:
                waiting.append(line)
        self.touched = waiting


class CreditLine:
    """Receiver's side of the credit of one (sending worker -> this task): counts are absolute.

    `touched` since tuples came that were not granted anew: `runner` is the task here then, and knows of the line.
    """

    def __init__(self, sender: str, task: int, window: int) -> None:
        self.sender = sender
        self.task = task
        self.delivered: i64 = 0
        self.granted: i64 = window
        self.step: i64 = max(1, window // 2)
        self.touched = False
        self.runner: Runner | None = None


class Gate:
    """Holds back all tasks of one component of this worker while `blocked` > 0."""

    def __init__(self) -> None:
        self.blocked: i64 = 0
        self.parked: list[Runner] = []


class Edge:
    """One subscription seen from one source component in this worker: its targets, and how many of them are full."""

    def __init__(
        self, source: str, stream: str, consumer: str, targets: list[Target], gate: Gate, *, credited: bool
    ) -> None:
        self.source = source
        self.stream = stream
        self.consumer = consumer
        self.targets = targets
        self.gate = gate
        self.credited = credited
        self.full: i64 = 0
        self.threshold: i64 = 1
        self.choosers: list[Chooser] = []
        self.blocked_since = 0.0
        self.blocked_s = 0.0

    def update(self, target: Target, full: bool) -> None:
        if self.choosers:
            index = self.targets.index(target)
            for chooser in self.choosers:
                chooser.set_blocked(index, full)
        if full:
            self.full += 1
            if self.full == self.threshold:
                self.gate.blocked += 1
                self.blocked_since = target.agenda.now
        else:
            self.full -= 1
            if self.full == self.threshold - 1:
                self.gate.blocked -= 1
                self.blocked_s += target.agenda.now - self.blocked_since
                if self.gate.blocked == 0:
                    target.agenda.unpark(self.gate)


def overrun(source: Source, task: int) -> EmitRefused:
    """The error for a tuple too many on a cycle."""
    return EmitRefused(
        f"'{source.component}' emitted on stream '{source.stream}', which lies on a cycle: {CYCLE_MAX} tuples wait for "
        f"task {task} already",
        "Let no more go round than is taken out: nothing else bounds a cycle",
    )


class Target:
    """One receiving task, here (`runner`) or in another worker (`outbox`)."""

    def __init__(self, task: int, window: int, agenda: Agenda) -> None:
        self.task = task
        self.ids: tuple[int, ...] = (task,)
        self.agenda = agenda
        self.window: i64 = window
        self.runner: Runner | None = None
        self.outbox: Outbox | None = None
        self.full = False
        self.sent: i64 = 0
        self.granted: i64 = window
        self.overflow: deque[tuple[Source, tuple[object, ...], Tree | None]] = deque()
        self.watchers: list[Edge] = []

    def set_full(self, full: bool) -> None:
        if self.full is not full:
            self.full = full
            for edge in self.watchers:
                edge.update(self, full)

    def deliver(self, row: tuple[object, ...], source: Source, anchor: Tree | None, credited: bool) -> None:
        """Hand `row` on: by reference within the worker, else into the outbox (or its overflow when out of credit)."""
        runner = self.runner
        if runner is not None:
            inbox = runner.inbox
            if not credited and len(inbox) >= CYCLE_MAX:
                raise overrun(source, self.task)
            inbox.append(Tuple(row, source, anchor))
            if anchor is not None:
                anchor.count += 1
            if not runner.ready:
                self.agenda.mark(runner)
            if credited and len(inbox) >= runner.room and not runner.full:
                runner.full = True
                self.set_full(True)
            return
        outbox = self.outbox
        if not credited:
            if outbox is not None:
                outbox.add(row, source, self.task, anchor, False)
                return
        elif outbox is not None and self.sent < self.granted and not self.overflow and not outbox.choked:
            self.sent += 1
            outbox.add(row, source, self.task, anchor, True)
            if self.sent >= self.granted:
                self.set_full(True)
            return
        if anchor is not None:
            anchor.count += 1
        self.overflow.append((source, row, anchor))
        self.agenda.overflowing[self.task] = self
        self.set_full(True)

    def grant(self, upto: i64) -> None:
        """The receiver allows tuples up to number `upto`; old and repeated grants change nothing."""
        if upto > self.granted:
            self.granted = upto
            self.drain()

    def drain(self) -> None:
        """Move the overflow on as far as credit goes, then tell the edges whether there is room."""
        runner = self.runner
        outbox = self.outbox
        while self.overflow and (
            runner is not None or (outbox is not None and self.sent < self.granted and not outbox.choked)
        ):
            source, row, anchor = self.overflow.popleft()
            if runner is not None:
                runner.inbox.append(Tuple(row, source, anchor))
                self.agenda.mark(runner)
                continue
            assert outbox is not None
            self.sent += 1
            outbox.add(row, source, self.task, anchor, True)
            if anchor is not None:
                self.agenda.release(anchor)
        if not self.overflow:
            self.agenda.overflowing.pop(self.task, None)
        if runner is not None:
            runner.full = len(runner.inbox) >= runner.room
            self.set_full(runner.full)
        else:
            self.set_full(outbox is None or self.sent >= self.granted or bool(self.overflow))

    def place(self, runner: Runner | None, outbox: Outbox | None, anew: bool = False) -> None:
        """The task now runs here, or behind `outbox`.

        Credit counts on from what it was when the task last ran there, as the worker there does; `anew` when that
        is another process by now.
        """
        if self.outbox is not None:
            self.outbox.counts[self.task] = (int(self.sent), int(self.granted))
        self.runner = runner
        self.outbox = outbox
        if runner is not None:
            runner.target = self
        self.sent = 0
        self.granted = self.window
        if outbox is not None:
            self.sent = outbox.waiting(self.task)
            known = outbox.counts.pop(self.task, None)
            if known is not None and not anew:
                self.sent = known[0]
                self.granted = known[1]
        self.drain()


class Run:
    """Tuples of one stream on their way to one worker, as columns. Anchors are held until the run is sent.

    `sources` and `starts`: the emitting tasks, each with the position of its first tuple.
    """

    def __init__(self, number: int, credited: bool) -> None:
        self.number = number
        self.credited = credited
        self.rows: list[tuple[object, ...]] = []
        self.targets: list[int] = []
        self.anchors: list[Tree | None] = []
        self.sources: list[int] = []
        self.starts: list[int] = []
        self.tracked = False

    def source(self, position: int) -> int:
        """The task that emitted the tuple at `position`."""
        return self.sources[bisect_right(self.starts, position) - 1]


class Outbox:
    """What is ready to leave for one worker (address `host:port`): runs of tuples, reports for its ackers, grants.

    `choked` while its link has as many bytes under way as it may: tuples wait in the overflow of their targets.
    `under_way`: how many tuples may be between the two workers at all. A good frame has a quarter of them, that none
    of the workers has to wait for it, and no more than HOLD_ROWS.
    """

    def __init__(self, address: str, agenda: Agenda, under_way: int) -> None:
        self.address = address
        self.agenda = agenda
        self.good: i64 = max(1, min(HOLD_ROWS, under_way // HOLD_SHARE))
        self.runs: list[Run] = []
        self.open: dict[int, Run] = {}
        self.run: Run | None = None
        self.source: Source | None = None
        self.dirty = False
        self.choked = False
        self.rows: i64 = 0
        self.held: i64 = 0
        self.reports: list[int] = []
        self.fails: list[int] = []
        self.inits: list[int] = []
        self.verdicts: list[int] = []
        self.touches: list[int] = []
        self.grants: list[int] = []
        self.counts: dict[int, tuple[int, int]] = {}  # (sent, granted) of tasks that have left that worker

    def mark(self) -> None:
        if not self.dirty:
            self.dirty = True
            self.agenda.outboxes.append(self)

    def waiting(self, task: int) -> int:
        """How many tuples for `task` that took credit have not left yet."""
        return sum([run.targets.count(task) for run in self.runs if run.credited])

    def add(self, row: tuple[object, ...], source: Source, task: int, anchor: Tree | None, credited: bool) -> None:
        """Take a tuple for `task` and hold its anchor."""
        run = self.run
        if run is None or source is not self.source or run.credited is not credited or len(run.rows) >= ROWS_MAX:
            run = self.turn_to(source, credited)
        run.rows.append(row)
        run.targets.append(task)
        run.anchors.append(anchor)
        if anchor is not None:
            anchor.count += 1
            run.tracked = True
        self.rows += 1

    def turn_to(self, source: Source, credited: bool) -> Run:
        """The run that takes the next tuple of `source`."""
        key = source.number * 2 + credited
        run = self.open.get(key)
        if run is None or len(run.rows) >= ROWS_MAX:
            run = Run(source.number, credited)
            self.open[key] = run
            self.runs.append(run)
            self.mark()
        self.run = run
        self.source = source
        run.sources.append(source.task)
        run.starts.append(len(run.rows))
        return run

    def take(self) -> list[Run]:
        """The runs so far; what is added from now on goes into new ones."""
        runs = self.runs
        self.runs = []
        self.open = {}
        self.run = None
        self.rows = 0
        return runs

    def hold(self) -> bool:
        """Whether to wait for more while there is other work: not for long, and not when a good frame is together."""
        if self.rows >= self.good or self.held >= HOLD_PASSES:
            self.held = 0
            return False
        self.held += 1
        return True

    @property
    def empty(self) -> bool:
        return not self.dirty


def place_of(runner: Runner) -> int:
    return int(runner.place)


class Agenda:
    """What the next pass of the loop has to do.

    `ready` are the tasks with input, by level. Those that found their gate shut at their turn stand in line: `first`
    are the bolts whose gate has opened since, `shut_out` the spouts. What a gate lets through goes to whoever has
    waited longest, also where several components fill one target. `turn`, one number, is the task that has its turn.
    """

    def __init__(self, levels: int, dice: Random) -> None:
        self.now = 0.0
        self.ids = EdgeIds(dice.getrandbits(62))
        self.ready: list[list[Runner]] = [[] for _ in range(levels)]
        self.ready_count: i64 = 0
        self.first: list[Runner] = []
        self.shut_out: list[Waiter] = []
        self.places: i64 = 0
        self.settled: list[Tree] = []
        self.failed: list[Tree] = []
        self.whys: dict[int, str] = {}
        self.grants: list[CreditLine] = []
        self.outboxes: list[Outbox] = []
        self.overflowing: dict[int, Target] = {}
        self.turn = memoryview(bytearray(8)).cast("q")

    def mark(self, runner: Runner) -> None:
        """`runner` has input."""
        if not runner.ready:
            runner.ready = True
            self.ready[runner.level].append(runner)
            self.ready_count += 1

    def unpark(self, gate: Gate) -> None:
        parked = gate.parked
        gate.parked = []
        for runner in parked:
            if runner.place > 0:
                self.first.append(runner)
            else:
                self.ready[runner.level].append(runner)
            self.ready_count += 1

    def line_up(self, waiter: Waiter) -> None:
        """Its gate is shut at its turn."""
        if waiter.place == 0:
            self.places += 1
            waiter.place = self.places

    def first_place(self) -> i64:
        """That of the bolt which has waited longest and may run; beyond all when there is none."""
        place: i64 = self.places + 1
        for runner in self.first:
            place = min(place, runner.place)
        return place

    def spout_is_next(self) -> bool:
        """Whether a spout that was shut out may run, and has waited longer than any bolt that may."""
        place: i64 = -1
        for spout in self.shut_out:
            if spout.gate.blocked == 0:
                if place < 0:
                    place = self.first_place()
                if spout.place < place:
                    return True
        return False

    def give_way(self, level: int) -> None:
        """All that is ready from `level` on waits for a spout, and is next after it."""
        for at in range(level, len(self.ready)):
            for runner in self.ready[at]:
                self.line_up(runner)
                self.first.append(runner)
            self.ready[at] = []

    def take_first(self) -> list[Runner]:
        """Those that have waited, longest first."""
        first = self.first
        self.first = []
        first.sort(key=place_of)
        return first

    def release(self, tree: Tree) -> None:
        """One tuple of `tree` inside this worker is finished."""
        tree.count -= 1
        if tree.count == 0:
            self.settled.append(tree)

    def fail(self, anchor: Tree, why: str = "") -> None:
        """Fail every root behind `anchor`; once each. `why` is told to their spouts."""
        trees: list[Tree] = anchor.leaves() if isinstance(anchor, Group) else [anchor]
        for tree in trees:
            if not tree.failed:
                tree.failed = True
                self.failed.append(tree)
                self.explain(int(tree.root), why)

    def explain(self, root: int, why: str) -> None:
        """Keep why `root` fails, on its way to its spout; the first reason counts, and only the newest are kept."""
        if why and root not in self.whys:
            if len(self.whys) >= WHYS_MAX:
                del self.whys[next(iter(self.whys))]
            self.whys[root] = why[:WHY_CHARACTERS_MAX]

    def take_whys(self, roots: list[int]) -> dict[int, str]:
        """Hand over what is known of those of `roots` that failed."""
        return {root: self.whys.pop(root) for root in roots if root in self.whys}
