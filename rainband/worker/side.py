"""Tasks whose callbacks run on a lane beside the worker's loop: `async def` components, and `blocking = True` ones.

What such a call emits is checked and routed on the lane, carried back as ops, and delivered on the worker's loop in
the order in which calls complete; books, credit and counters are touched there only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mypy_extensions import i64

from rainband.acker.ledger import Group, Tree
from rainband.errors import EmitRefused, FailTuple
from rainband.topology.components import Bolt, Spout
from rainband.topology.tuples import Tuple
from rainband.worker.bind import Instruments, Reliable, bind_methods, instrumented
from rainband.worker.emit import (
    FORGOTTEN,
    OUTSIDE,
    OUTSIDE_FIX,
    Emitter,
    ManualEmitter,
    Output,
    SpoutEmitter,
    forgotten,
)
from rainband.worker.lanes import CURRENT, Call, Lane
from rainband.worker.routes import Agenda, Target
from rainband.worker.spouts import SpoutTask
from rainband.worker.tasks import BoltTask

if TYPE_CHECKING:
    pass

CALLBACKS = (
    "open",
    "next_tuple",
    "ack",
    "fail",
    "activate",
    "deactivate",
    "close",
    "seek",
    "prepare",
    "execute",
    "execute_batch",
    "tick",
    "cleanup",
)
BLOCKING_AHEAD = 32
PUMP = 64


def is_async(instance: object) -> bool:
    return any(inspect.iscoroutinefunction(getattr(instance, name, None)) for name in CALLBACKS)


def is_side(instance: Spout | Bolt) -> bool:
    """Whether the callbacks of this component run on a lane."""
    return instance.blocking or is_async(instance)


class UnderWay:
    """How many calls of one worker are on its lanes."""

    def __init__(self) -> None:
        self.calls = 0


class Emitted:
    """One emit of a call: delivered when the call is back. `direct`: the task it was addressed to, or -1."""

    def __init__(
        self, out: Output, row: tuple[object, ...], picked: list[tuple[Target, bool]], subject: Any, direct: int = -1
    ) -> None:
        self.out = out
        self.row = row
        self.picked = picked
        self.subject = subject
        self.direct = direct


class SideEmits:
    """The emits bound onto an instance whose callbacks run on a lane. `subject` is anchors or a message id."""

    def __init__(self, emitter: Emitter, keyword: str) -> None:
        self.emitter = emitter
        self.keyword = keyword

    def call(self) -> Call:
        call = CURRENT.get()
        if call is None or call.closed or not call.owner.emits:
            raise EmitRefused(OUTSIDE, OUTSIDE_FIX)
        return call

    def subject(self, given: dict[str, Any]) -> Any:
        if not self.keyword:
            if "anchors" in given:
                raise EmitRefused(
                    f"'{self.emitter.component}' emitted with anchors, and a Bolt anchors to the tuple of the call",
                    "To anchor by hand derive from ManualBolt",
                )
            if given:
                raise TypeError(f"emit() got an unexpected keyword argument '{next(iter(given))}'")
            return None
        if given.get(self.keyword, FORGOTTEN) is FORGOTTEN:
            raise forgotten(self.emitter.component, self.keyword)
        if len(given) > 1:
            other = next(name for name in given if name != self.keyword)
            raise TypeError(f"emit() got an unexpected keyword argument '{other}'")
        return given[self.keyword]

    def emit(self, values: Sequence[object], *, stream: str = "default", **given: Any) -> tuple[int, ...]:
        call = self.call()
        subject = self.subject(given)
        out = self.emitter.plain_output(stream)
        row = self.emitter.row(values, out)
        picked = self.emitter.pick(out, row)
        call.ops.append(Emitted(out, row, picked, subject))
        return tuple([target.task for target, _ in picked])

    def emit_many(self, rows: Iterable[Sequence[object]], *, stream: str = "default", **given: Any) -> int:
        names = given.pop("message_ids", None)
        count = 0
        for values in rows:
            if names is not None:
                self.emit(values, stream=stream, message_id=names[count])
            else:
                self.emit(values, stream=stream, **given)
            count += 1
        return count

    def emit_direct(
        self, task: int, values: Sequence[object], *, stream: str = "default", **given: Any
    ) -> tuple[int, ...]:
        call = self.call()
        subject = self.subject(given)
        out = self.emitter.output(stream)
        picked = self.emitter.pick_direct(out, task)
        call.ops.append(Emitted(out, self.emitter.row(values, out), picked, subject, task))
        return (task,)

    def bind(self, instance: object, instruments: Instruments | None) -> None:
        emits: dict[str, Callable[..., Any]] = {
            "emit": self.emit,
            "emit_many": self.emit_many,
            "emit_direct": self.emit_direct,
        }
        bind_methods(instance, instrumented(emits, self.emitter, instruments))


class SideBoltTask(BoltTask):
    """A bolt task whose calls run on a lane, at most `ahead` at a time."""

    def __init__(
        self,
        level: int,
        limit: int,
        agenda: Agenda,
        clock: Callable[[], float],
        emitter: Emitter,
        lane: Lane,
        under_way: UnderWay,
        execute: Callable[[Any], Any],
        ahead: int,
        batch_size: int,
    ) -> None:
        BoltTask.__init__(self, level, limit, agenda, clock, emitter)
        self.lane = lane
        self.under_way = under_way
        self.execute = execute
        self.ahead = ahead
        self.batch_size = batch_size
        self.in_flight: i64 = 0
        self.back_at = 0.0
        self.ticking = False
        self.told = 0
        self.emits = True

    @property
    def waiting(self) -> bool:
        return self.in_flight >= self.ahead

    @property
    def busy(self) -> bool:
        """Whether any call is on its lane."""
        return self.in_flight > 0 or self.ticking or self.told > 0

    def turn(self, limit: i64) -> i64:
        start = self.at
        end = len(self.batch)
        while self.at < end and self.in_flight < self.ahead and self.gate.blocked == 0:
            if self.batch_size:
                tups = self.batch[self.at : self.at + self.batch_size]
                self.at += len(tups)
                self.begin(tups, tups)
            else:
                tup = self.batch[self.at]
                self.at += 1
                self.begin([tup], tup)
        return self.at - start

    def begin(self, tups: list[Tuple], argument: Any) -> None:
        if self.in_flight == 0:
            self.back_at = self.agenda.now
        self.in_flight += 1
        self.under_way.calls += 1
        execute = self.execute
        callback = "execute_batch" if self.batch_size else "execute"
        self.lane.submit(Call(self, lambda: execute(argument), self.emitter.component, callback, tups))

    def back(self, call: Call) -> None:
        """Deliver what the call emitted, ack or fail its tuples."""
        tups: list[Tuple] = call.subject or []
        if call.callback == "tick":
            self.ticking = False
        if tups:
            self.in_flight -= 1
            self.under_way.calls -= 1
            self.back_at = self.agenda.now
        emitter = self.emitter
        if isinstance(emitter, ManualEmitter):
            self.back_manual(call, emitter, tups)
        else:
            trees = [tree for tup in tups if isinstance(tree := tup._anchor, Tree)]
            anchor = None if not trees else trees[0] if len(trees) == 1 else Group(trees)
            if anchor is not None:
                anchor.count += 1
            for op in call.ops:
                self.deliver(op, anchor)
            if anchor is not None:
                self.agenda.release(anchor)
            if call.error is None:
                self.acked += len(tups)
            else:
                self.failed += len(tups)
                for tree in trees:
                    self.agenda.fail(tree, self.cause(call.error))
            for tree in trees:
                self.agenda.release(tree)
        if call.error is not None and not isinstance(call.error, FailTuple):
            self.error(call.error, tups[0] if tups else None)
        if not self.idle:
            self.agenda.mark(self)

    def back_manual(self, call: Call, emitter: ManualEmitter, tups: list[Tuple]) -> None:
        for op in call.ops:
            if isinstance(op, Emitted):
                try:
                    anchor = emitter.hold(emitter.anchor_of(op.subject))
                except EmitRefused as error:
                    self.error(error, tups[0] if tups else None)
                    continue
                self.deliver(op, anchor)
                if anchor is not None:
                    self.agenda.release(anchor)
            else:
                name, tup = op
                if name == "ack":
                    emitter.ack(tup)
                elif name == "fail":
                    emitter.fail(tup)
                else:
                    emitter.reset_timeout(tup)
        if call.error is not None:
            for tup in tups:
                if tup._open:
                    emitter.fail_with(tup, self.cause(call.error))

    def deliver(self, op: Emitted, anchor: Tree | None) -> None:
        self.emitter.hand_over(op.out, op.row, op.picked, anchor)


class SideSpoutTask(SpoutTask):
    """A spout task whose callbacks run on a lane; one round of next_tuple is under way at a time.

    None while it is `told` that it is active, or is not.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        emitter: SpoutEmitter,
        instance: Spout,
        lane: Lane,
        under_way: UnderWay,
        wait_s: float,
        ack: Callable[[Any], Any],
        fail: Callable[[Any], Any],
    ) -> None:
        SpoutTask.__init__(
            self, emitter.task, clock, emitter, instance.next_tuple, self.tell_ack, self.tell_fail, wait_s
        )
        self.user_next = instance.next_tuple
        self.user_ack = ack
        self.user_fail = fail
        self.lane = lane
        self.under_way = under_way
        self.pumping = False
        self.told = 0
        self.telling = 0
        self.emitted = False
        self.gone = False
        self.emits = True
        self.reliable: Reliable | None = None
        self.asynchronous = is_async(instance)

    def tell_ack(self, message_id: object) -> None:
        if self.reliable is not None:
            self.reliable.ack(message_id)
        else:
            self.tell("ack", self.user_ack, message_id)

    def tell_fail(self, message_id: object, reason: int) -> None:
        if self.reliable is not None:
            self.reliable.fail(message_id, reason)
        else:
            self.tell("fail", self.user_fail, message_id)

    @property
    def busy(self) -> bool:
        """Whether any call is on its lane."""
        return self.pumping or self.told > 0 or self.telling > 0

    def tell(self, name: str, callback: Callable[[Any], Any], message_id: object) -> None:
        self.under_way.calls += 1
        self.telling += 1
        self.lane.submit(Call(self, lambda: callback(message_id), self.emitter.component, name, "tell"))

    def run(self, budget: i64, now: float) -> bool:
        if self.hand_back():
            self.idle_until = 0.0
        reliable = self.reliable
        if not self.active or now < self.paused_until:
            return False
        if reliable is not None:
            self.replay_due(reliable, now)
        room = self.window - len(self.emitter.pending)
        if self.gate.blocked > 0 or room <= 0:
            self.limited = room <= 0
            return False
        if self.ended or self.pumping or self.told or now < self.idle_until:
            return False
        self.pumping = True
        self.emitted = False
        self.under_way.calls += 1
        call = Call(self, self.pump, self.emitter.component, "next_tuple", "next")
        self.room = min(int(room), PUMP)
        if self.pace_s > 0.0:
            self.room = 1
            self.paused_until = now + self.pace_s
        self.lane.submit(call)
        return False

    @property
    def ended(self) -> bool:
        """Whether next_tuple has nothing more to say."""
        return self.finished or (self.reliable is not None and self.reliable.finished)

    def replay_due(self, reliable: Reliable, now: float) -> None:
        """Emit again what is due, as far as gate and window let it."""
        pending = self.emitter.pending
        self.emitter.active = True
        while self.gate.blocked == 0 and len(pending) < self.window:
            due = reliable.book.due(now)
            if due is None:
                break
            reliable.replay(*due)
        self.emitter.active = False

    def wanted_at(self) -> float:
        reliable = self.reliable
        replay_at = float("inf") if reliable is None else max(self.paused_until, reliable.book.next_due())
        if self.pumping or self.told or (reliable is not None and reliable.finished):
            return replay_at
        return min(SpoutTask.wanted_at(self), replay_at)

    def pump(self) -> Any:
        call = CURRENT.get()
        assert call is not None
        if self.asynchronous:
            return self.pump_async(call)
        self.mark_position(call)
        more = True
        while more:
            before = len(call.ops)
            call.check(self.user_next())
            more = self.goes_on(call, before)
        return None

    async def pump_async(self, call: Call) -> None:
        self.mark_position(call)
        more = True
        while more:
            before = len(call.ops)
            result: Any = self.user_next()
            if inspect.isawaitable(result):
                result = await result
            call.check(result)
            more = self.goes_on(call, before)

    def goes_on(self, call: Call, before: int) -> bool:
        """Whether next_tuple is called once more. What it has emitted leaves now, for that call may wait for long."""
        emitted = len(call.ops) - before
        self.mark_position(call)
        self.pause_s = 0.0
        self.room -= emitted
        if emitted == 0 or self.room <= 0 or self.ended or not self.active or self.gate.blocked > 0:
            return False
        self.lane.results.part(call)
        return True

    def mark_position(self, call: Call) -> None:
        position = self.reliable.position if self.reliable is not None else None
        call.ops.append(("position", position() if position is not None else None))

    def leave(self) -> None:
        """The task goes elsewhere, and reads on there from where it stood: what a call still emits here is dropped."""
        self.gone = True
        if self.pumping:
            self.under_way.calls -= 1

    def apply(self, call: Call) -> None:
        """Deliver what `call` has emitted since the last time; it may still be adding to it."""
        if self.gone:
            return
        reliable = self.reliable
        book = reliable.book if reliable is not None and reliable.position is not None else None
        ops = call.ops
        while call.applied < len(ops):
            op = ops[call.applied]
            call.applied += 1
            if isinstance(op, Emitted):
                self.emitted = True
                self.begin(op)
            elif book is not None:
                book.end()
                book.begin(op[1])
                assert reliable is not None
                reliable.stands_at(op[1])

    def back(self, call: Call) -> None:
        if call.subject != "next" or not self.gone:
            self.under_way.calls -= 1
        self.apply(call)
        if call.error is not None:
            self.error(call.error)
        if call.subject == "tell":
            self.telling -= 1
        if call.subject == "next":
            if self.reliable is not None:
                self.reliable.book.end()
            self.pumping = False
            self.calls += 1
            if not self.emitted:
                self.idle_until = self.emitter.agenda.now + self.wait_s

    def begin(self, op: Emitted) -> None:
        emitter = self.emitter
        if self.reliable is not None:
            try:
                self.reliable.book.emitted(op.subject, op.row, op.out.source.stream, op.direct)
            except EmitRefused as error:
                self.error(error)
                return
        tree = emitter.begin(op.subject)
        emitter.hand_over(op.out, op.row, op.picked, tree)
        if tree is not None:
            emitter.agenda.release(tree)
