"""The loops that call user code: one object per task, run in batches by the worker's pass.

A raise in `execute` fails that tuple and the task goes on. Clocks are read once per batch; counts are exact. The loop
of a spout is in spouts.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mypy_extensions import i64, mypyc_attr

from rainband.acker.ledger import Group, Tree
from rainband.errors import FailTuple, described
from rainband.topology.tuples import Tuple
from rainband.worker.emit import BoltEmitter, Emitter, ManualEmitter
from rainband.worker.returned import check_returned
from rainband.worker.routes import Agenda, Runner

SLOW_CALL_S: Final = 0.1
TURN_S: Final = 0.004
TURN_MAX: Final = 1024
PIECES: Final = 8

OnError = Callable[[int, BaseException, "Tuple | None"], None]


def adapted(budget: i64, calls: i64, spent: float) -> i64:
    """How many calls the next turn may be, after one of `calls` that took `spent` seconds."""
    if spent > TURN_S:
        fitting: i64 = int(TURN_S * int(calls) / spent)
        return max(1, min(budget // 2, fitting))
    if spent < 0.001 and calls == budget and budget < TURN_MAX:
        return budget * 2
    return budget


@mypyc_attr(allow_interpreted_subclasses=True)
class BoltTask(Runner):
    """One task of a `Bolt`: executes what is in its inbox, acks each tuple on return, fails it on a raise."""

    def __init__(self, level: int, limit: int, agenda: Agenda, clock: Callable[[], float], emitter: Emitter) -> None:
        Runner.__init__(self, emitter.task, level, limit, agenda, emitter.gate)
        self.emitter = emitter
        self.clock = clock
        self.batch: list[Tuple] = []
        self.at: i64 = 0
        self.budget: i64 = 64
        self.executed: i64 = 0
        self.acked: i64 = 0
        self.failed: i64 = 0
        self.execute_s = 0.0
        self.slow_s = 0.0
        self.fill: i64 = 1
        self.patience_s = 0.0
        self.due_at = float("inf")
        self.late_tick: Callable[[], object] | None = None
        self.on_error: OnError | None = None

    @property
    def queued(self) -> int:
        return len(self.batch) - self.at + len(self.inbox)

    @property
    def waiting(self) -> bool:
        """Has input but cannot go on by itself; something else will mark it ready, a timer at `due_at`."""
        return self.due_at != float("inf")

    def holds(self) -> bool:
        """Whether to wait for a fuller batch, until `due_at`."""
        now = self.agenda.now
        if self.queued >= self.fill or now >= self.due_at:
            self.due_at = float("inf")
            return False
        if not self.waiting:
            self.due_at = now + self.patience_s
        return True

    @property
    def idle(self) -> bool:
        return self.at >= len(self.batch) and not self.inbox

    def error(self, error: BaseException, tup: Tuple | None) -> None:
        on_error = self.on_error
        if on_error is not None:
            on_error(self.task, error, tup)

    def cause(self, error: BaseException) -> str:
        """Why a tuple fails, for the spouts of its roots."""
        text = described(error).removeprefix("FailTuple: ")
        return f"'{self.emitter.component}' task {self.task}: {' '.join(text.split())}"

    def leftover(self) -> list[Tuple]:
        """Give up everything not yet executed (the task moves elsewhere), a tick that waited too."""
        self.late_tick = None
        rest = self.batch[self.at :] + self.inbox
        self.batch = []
        self.at = 0
        self.inbox = []
        return rest

    def run(self, begin: float) -> float:
        """Work for one turn. The budget adapts: a turn of slow calls gets shorter, of fast ones longer.

        In pieces of 1, 8, 64 ... calls, with a look at the clock after each: whoever asks a worker waits for a turn.
        """
        late_tick = self.late_tick
        if late_tick is not None:
            self.late_tick = None
            late_tick()
        if self.patience_s > 0.0 and self.holds():
            return begin
        if self.at >= len(self.batch):
            self.batch = self.take()
            self.at = 0
        elif len(self.batch) - self.at < self.fill:
            self.batch = self.batch[self.at :] + self.take()
            self.at = 0
        limit = self.budget
        piece: i64 = 1
        done = self.turn(piece)
        spent = self.clock() - begin
        made = done
        while made == piece and done < limit and spent <= TURN_S and self.at < len(self.batch):
            piece = piece * PIECES
            if piece > limit - done:
                piece = limit - done
            made = self.turn(piece)
            done += made
            spent = self.clock() - begin
        self.execute_s += spent
        self.executed += done
        self.budget = adapted(limit, done, spent)
        if spent > SLOW_CALL_S and done > 0:
            self.slow_s = max(self.slow_s, spent / int(done))
        if self.at >= len(self.batch):
            self.batch = []
            self.at = 0
        return begin + spent

    def turn(self, limit: i64) -> i64:
        raise NotImplementedError


def run_ready(agenda: Agenda, at: float) -> float:
    """One turn from `at` on for every task that has input, sinks first. A task held back by its gate parks there.

    Ends early when it is a spout's turn. Returns when the first of those that wait for more input is due.
    """
    due_at = float("inf")
    for level in range(len(agenda.ready)):
        if agenda.shut_out and agenda.spout_is_next():
            agenda.give_way(level)
            break
        if agenda.first:
            at, due_at = run_each(agenda, agenda.take_first(), at, due_at)
        runners = agenda.ready[level]
        if runners:
            agenda.ready[level] = []
            at, due_at = run_each(agenda, runners, at, due_at)
    return due_at


def run_each(agenda: Agenda, runners: list[Runner], at: float, due_at: float) -> tuple[float, float]:
    """One turn for each of `runners`; (when the last ended, the earlier of `due_at` and when one of them is due)."""
    turn = agenda.turn
    for runner in runners:
        assert isinstance(runner, BoltTask)
        agenda.ready_count -= 1
        if runner.gate.blocked > 0:
            agenda.line_up(runner)
            runner.gate.parked.append(runner)
            continue
        runner.place = 0
        turn[0] = runner.task
        at = runner.run(at)
        if runner.idle:
            runner.ready = False
        elif runner.gate.blocked > 0:
            runner.gate.parked.append(runner)
        elif runner.waiting:
            runner.ready = False
            due_at = min(due_at, runner.due_at)
        else:
            agenda.ready[runner.level].append(runner)
            agenda.ready_count += 1
    return at, due_at


class PlainBoltTask(BoltTask):
    """`Bolt.execute`."""

    def __init__(
        self,
        level: int,
        limit: int,
        agenda: Agenda,
        clock: Callable[[], float],
        emitter: BoltEmitter,
        execute: Callable[[Tuple], object],
    ) -> None:
        BoltTask.__init__(self, level, limit, agenda, clock, emitter)
        self.anchored = emitter
        self.execute = execute

    def turn(self, limit: i64) -> i64:
        batch = self.batch
        position = self.at
        end: i64 = len(batch)
        if position + limit < end:
            end = position + limit
        start = position
        gate = self.gate
        emitter = self.anchored
        execute = self.execute
        settled = self.agenda.settled
        failed = self.failed
        emitter.active = True
        while position < end and gate.blocked == 0:
            tup = batch[position]
            position += 1
            anchor = tup._anchor
            if anchor is None:
                emitter.anchor = None
                try:
                    result = execute(tup)
                    if result is not None:
                        check_returned(emitter.component, "execute", result)
                except BaseException as error:
                    self.at = position
                    self.reject(tup, error)
            else:
                assert isinstance(anchor, Tree)
                emitter.anchor = anchor
                try:
                    result = execute(tup)
                    if result is not None:
                        check_returned(emitter.component, "execute", result)
                    anchor.count -= 1
                    if anchor.count == 0:
                        settled.append(anchor)
                except BaseException as error:
                    self.at = position
                    self.reject(tup, error)
        emitter.active = False
        emitter.anchor = None
        self.at = position
        self.acked += (position - start) - (self.failed - failed)
        return position - start

    def reject(self, tup: Tuple, error: BaseException) -> None:
        self.failed += 1
        tree = tup._anchor
        if tree is not None:
            assert isinstance(tree, Tree)
            self.agenda.fail(tree, self.cause(error))
            self.agenda.release(tree)
        if not isinstance(error, FailTuple):
            self.error(error, tup)


class BatchBoltTask(BoltTask):
    """`Bolt.execute_batch`: emits are anchored to every tuple of the batch; a raise fails them all."""

    def __init__(
        self,
        level: int,
        limit: int,
        agenda: Agenda,
        clock: Callable[[], float],
        emitter: BoltEmitter,
        execute: Callable[[list[Tuple]], object],
        size: int,
    ) -> None:
        BoltTask.__init__(self, level, limit, agenda, clock, emitter)
        self.anchored = emitter
        self.execute = execute
        self.size: i64 = size
        self.budget = size

    def turn(self, limit: i64) -> i64:
        if self.gate.blocked > 0:
            return 0
        start = self.at
        end: i64 = len(self.batch)
        if start + self.size < end:
            end = start + self.size
        tups = self.batch[start:end]
        if not tups:
            return 0
        self.at = end
        trees: list[Tree] = []
        for tup in tups:
            tree = tup._anchor
            if tree is not None:
                assert isinstance(tree, Tree)
                trees.append(tree)
        anchor: Tree | None = Group(trees) if len(self.anchored.outputs) > 0 and trees else None
        emitter = self.anchored
        emitter.anchor = anchor
        emitter.active = True
        if anchor is not None:
            anchor.count += 1
        try:
            result = self.execute(tups)
            if result is not None:
                check_returned(emitter.component, "execute_batch", result)
            self.acked += len(tups)
        except BaseException as error:
            self.failed += len(tups)
            for tree in trees:
                self.agenda.fail(tree, self.cause(error))
            if not isinstance(error, FailTuple):
                self.error(error, tups[0])
        emitter.active = False
        emitter.anchor = None
        if anchor is not None:
            self.agenda.release(anchor)
        for tree in trees:
            self.agenda.release(tree)
        return end - start


class ManualBoltTask(BoltTask):
    """`ManualBolt.execute`: the bolt acks; a raise fails the current tuple if it is still open."""

    def __init__(
        self,
        level: int,
        limit: int,
        agenda: Agenda,
        clock: Callable[[], float],
        emitter: ManualEmitter,
        execute: Callable[[Tuple], object] | None,
        execute_batch: Callable[[list[Tuple]], object] | None,
        size: int,
    ) -> None:
        BoltTask.__init__(self, level, limit, agenda, clock, emitter)
        self.manual = emitter
        self.execute = execute
        self.execute_batch = execute_batch
        self.size: i64 = size
        if execute_batch is not None:
            self.budget = size

    def turn(self, limit: i64) -> i64:
        if self.execute_batch is not None:
            return self.batch_turn()
        execute = self.execute
        assert execute is not None
        batch = self.batch
        start = self.at
        position = start
        end: i64 = len(batch)
        if position + limit < end:
            end = position + limit
        emitter = self.manual
        emitter.active = True
        while position < end and self.gate.blocked == 0:
            tup = batch[position]
            position += 1
            self.at = position
            try:
                result = execute(tup)
                if result is not None:
                    check_returned(emitter.component, "execute", result)
            except BaseException as error:
                self.reject(tup, error)
        emitter.active = False
        return position - start

    def batch_turn(self) -> i64:
        if self.gate.blocked > 0:
            return 0
        start = self.at
        end: i64 = len(self.batch)
        if start + self.size < end:
            end = start + self.size
        tups = self.batch[start:end]
        if not tups:
            return 0
        self.at = end
        assert self.execute_batch is not None
        self.manual.active = True
        try:
            result = self.execute_batch(tups)
            if result is not None:
                check_returned(self.manual.component, "execute_batch", result)
        except BaseException as error:
            for tup in tups[1:]:
                if tup._open:
                    self.manual.fail_with(tup, self.cause(error))
            self.reject(tups[0], error)
        self.manual.active = False
        return end - start

    def reject(self, tup: Tuple, error: BaseException) -> None:
        if tup._open:
            self.manual.fail_with(tup, self.cause(error))
        if not isinstance(error, FailTuple):
            self.error(error, tup)
