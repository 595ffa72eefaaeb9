"""Join a user's instance to the runtime: bind emit, ack, finish ... onto it, and make the task object that runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Protocol

from rainband.errors import EmitRefused
from rainband.messaging.values import check_value
from rainband.topology.components import Bolt, ManualBolt, ReliableSpout, Spout
from rainband.topology.tuples import Tuple
from rainband.worker.emit import FORGOTTEN, BoltEmitter, Emitter, ManualEmitter, SpoutEmitter, forgotten
from rainband.worker.reliable import DeadLetter, ReliableBook, Row
from rainband.worker.routes import Agenda
from rainband.worker.spouts import LOST, SpoutTask
from rainband.worker.tasks import BatchBoltTask, BoltTask, ManualBoltTask, PlainBoltTask


class Instruments(Protocol):
    """What a test kit may see of a task: it wraps the callables before they are bound."""

    def wrap_emit(self, component: str, task: int, emit: Callable[..., Any]) -> Callable[..., Any]: ...

    def wrap_execute(self, component: str, task: int, execute: Callable[..., Any]) -> Callable[..., Any]: ...

    def settled(self, component: str, task: int, message_id: object, done: bool) -> None: ...

    def added(self, made: Any) -> None:
        """The LocalTask is complete; its component is not prepared yet."""


def bind_methods(instance: object, methods: Mapping[str, Callable[..., Any]]) -> None:
    """Put the runtime's methods onto the user's instance, over those of the base class that only refuse.

    A frozen dataclass, or a class with a `__setattr__` of its own, takes them as well. Unpickling leaves the attributes
    in a dict that shares its keys with those of its class, and the interpreter (CPython 3.11, `specialize.c`) has quick
    ways to those in a dict of their own only: a chain of bolts takes a fifth less time with them.
    """
    for name, method in methods.items():
        object.__setattr__(instance, name, method)
    attributes = getattr(instance, "__dict__", None)
    if type(attributes) is dict:
        object.__setattr__(instance, "__dict__", dict(attributes))


def bind_emits(instance: object, emitter: Emitter, instruments: Instruments | None) -> None:
    """Put the emitter's methods onto the user's instance."""
    methods = {name: getattr(emitter, name) for name in ("emit", "emit_many", "emit_direct")}
    bind_methods(instance, instrumented(methods, emitter, instruments))


def instrumented(
    methods: Mapping[str, Callable[..., Any]], emitter: Emitter, instruments: Instruments | None
) -> Mapping[str, Callable[..., Any]]:
    """The emits as the test kit wants them; as they are without one."""
    if instruments is None:
        return methods
    return {name: instruments.wrap_emit(emitter.component, emitter.task, method) for name, method in methods.items()}


def bolt_task(
    instance: Bolt | ManualBolt,
    emitter: Emitter,
    level: int,
    limit: int,
    agenda: Agenda,
    clock: Callable[[], float],
    batch_size: int,
    patience_s: float,
    instruments: Instruments | None,
) -> BoltTask:
    """The runner of one bolt task on the worker's own loop. `patience_s`: how long it may wait for a fuller batch."""
    component = emitter.component
    bind_emits(instance, emitter, instruments)
    batch = getattr(instance, "execute_batch", None)
    execute: Callable[..., Any] | None = batch if batch is not None else getattr(instance, "execute", None)
    assert execute is not None
    if instruments is not None:
        execute = instruments.wrap_execute(component, emitter.task, execute)
    if isinstance(emitter, ManualEmitter):
        bind_methods(instance, {"ack": emitter.ack, "fail": emitter.fail, "reset_timeout": emitter.reset_timeout})
        if batch is None:
            return ManualBoltTask(level, limit, agenda, clock, emitter, execute, None, batch_size)
        return patient(ManualBoltTask(level, limit, agenda, clock, emitter, None, execute, batch_size), patience_s)
    assert isinstance(emitter, BoltEmitter)
    if batch is not None:
        return patient(BatchBoltTask(level, limit, agenda, clock, emitter, execute, batch_size), patience_s)
    return PlainBoltTask(level, limit, agenda, clock, emitter, execute)


def patient(task: BatchBoltTask | ManualBoltTask, patience_s: float) -> BoltTask:
    """Have the task wait for a full batch, or as much of it as senders have credit for, but no longer than that."""
    task.fill = min(task.size, task.limit)
    task.room = max(task.room, task.fill)
    task.patience_s = patience_s
    return task


def spout_task(
    instance: Spout, emitter: SpoutEmitter, clock: Callable[[], float], wait_s: float, instruments: Instruments | None
) -> SpoutTask:
    """The runner of one plain spout task."""
    component = emitter.component
    ack: Callable[[object], Any] = instance.ack
    fail: Callable[[object], Any] = instance.fail
    if instruments is not None:
        ack = told(instruments, component, emitter.task, ack, True)
        fail = told(instruments, component, emitter.task, fail, False)
    task = SpoutTask(emitter.task, clock, emitter, instance.next_tuple, ack, without_reason(fail), wait_s)
    bind_emits(instance, emitter, instruments)
    bind_methods(instance, {"finish": task.finish})
    return task


def row_of(values: object) -> tuple[object, ...]:
    """The row to keep for replays; what is no row at all is left to the emit to refuse."""
    return tuple(values) if isinstance(values, Sequence) else ()


def told(
    instruments: Instruments, component: str, task: int, callback: Callable[[object], Any], done: bool
) -> Callable[[object], Any]:
    def tell(message_id: object) -> Any:
        instruments.settled(component, task, message_id, done)
        return callback(message_id)

    return tell


def without_reason(fail: Callable[[object], Any]) -> Callable[[object, int], Any]:
    def fail_with_reason(message_id: object, reason: int) -> Any:
        return fail(message_id)

    return fail_with_reason


class Reliable:
    """A ReliableSpout joined to its book: replays come before new rows, dead letters after max_retries."""

    def __init__(
        self, instance: ReliableSpout, emitter: SpoutEmitter, random: Random, instruments: Instruments | None
    ) -> None:
        self.instance = instance
        self.emitter = emitter
        self.random = random
        self.book = ReliableBook(instance.max_retries, instance.retry_delay_s, instance.retry_delay_max_s)
        self.instruments = instruments
        self.finished = False
        self.position: Callable[[], object] | None = getattr(instance, "position", None)
        self.user_next = instance.next_tuple
        self.user_ack: Callable[[Any], object] = instance.ack
        self.user_fail: Callable[[Any], object] = instance.fail
        self.task: SpoutTask | None = None
        self.beside = False
        self.looked = False
        self.last_position: object = None
        again: dict[str, Callable[..., Any]] = {"emit": emitter.emit, "emit_direct": emitter.emit_direct}
        self.again = instrumented(again, emitter, instruments)

    def bind(self, clock: Callable[[], float], wait_s: float) -> SpoutTask:
        emits: dict[str, Callable[..., Any]] = {
            "emit": self.emit,
            "emit_many": self.emit_many,
            "emit_direct": self.emit_direct,
        }
        bind_methods(self.instance, instrumented(emits, self.emitter, self.instruments))
        bind_methods(self.instance, {"finish": self.finish})
        self.task = SpoutTask(self.emitter.task, clock, self.emitter, self.next_tuple, self.ack, self.fail, wait_s)
        return self.task

    def finish(self) -> None:
        self.finished = True

    def look(self) -> None:
        """Ask for the position, where the callbacks run."""
        if self.position is not None:
            self.stands_at(self.position())

    def stands_at(self, position: object) -> None:
        self.looked = True
        self.last_position = position

    def stands(self) -> object:
        """Where reading stands. Beside the loop: where it stood when a call was last back, for one may be under way."""
        assert self.position is not None
        return self.last_position if self.beside else self.position()

    @property
    def drained(self) -> bool:
        return self.finished and not self.book.rows

    def emit(
        self, values: Sequence[object], *, message_id: object = FORGOTTEN, stream: str = "default"
    ) -> tuple[int, ...]:
        if message_id is FORGOTTEN:
            raise forgotten(self.emitter.component, "message_id")
        self.book.emitted(message_id, row_of(values), stream)
        try:
            return self.emitter.emit(values, message_id=message_id, stream=stream)
        except BaseException:
            self.book.forget(message_id)
            raise

    def emit_many(
        self, rows: Sequence[Sequence[object]], *, message_ids: Sequence[object], stream: str = "default"
    ) -> int:
        names = list(message_ids)
        listed = list(rows)
        if len(names) != len(listed):
            raise EmitRefused(f"{len(listed)} rows but {len(names)} message ids", "Give one message id for each row")
        for message_id, values in zip(names, listed, strict=True):
            self.emit(values, message_id=message_id, stream=stream)
        return len(listed)

    def emit_direct(
        self, task: int, values: Sequence[object], *, message_id: object = FORGOTTEN, stream: str = "default"
    ) -> tuple[int, ...]:
        if message_id is FORGOTTEN:
            raise forgotten(self.emitter.component, "message_id")
        self.book.emitted(message_id, row_of(values), stream, task)
        try:
            return self.emitter.emit_direct(task, values, message_id=message_id, stream=stream)
        except BaseException:
            self.book.forget(message_id)
            raise

    def replay(self, message_id: object, row: Row) -> None:
        """Emit a row again, under the same message id and a new root."""
        if row.direct >= 0:
            self.again["emit_direct"](row.direct, row.values, message_id=message_id, stream=row.stream)
        else:
            self.again["emit"](row.values, message_id=message_id, stream=row.stream)

    def next_tuple(self) -> object:
        task = self.task
        assert task is not None
        due = self.book.due(self.emitter.agenda.now)
        if due is not None:
            self.replay(*due)
            return None
        if self.finished:
            task.sleep_until = self.book.next_due()
            return None
        if self.position is None:
            return self.user_next()
        self.last_position = self.position()
        self.book.begin(self.last_position)
        try:
            return self.user_next()
        finally:
            self.book.end()

    def ack(self, message_id: object) -> object:
        self.book.acked(message_id)
        if isinstance(message_id, DeadLetter):
            return None
        if self.instruments is not None:
            self.instruments.settled(self.emitter.component, self.emitter.task, message_id, True)
        return self.user_ack(message_id)

    def fail(self, message_id: object, reason: int) -> object:
        now = self.emitter.agenda.now
        if self.instruments is not None and not isinstance(message_id, DeadLetter):
            self.instruments.settled(self.emitter.component, self.emitter.task, message_id, False)
        if reason == LOST:
            self.book.lost(message_id, now)
            return None
        row = self.book.failed(message_id, now, self.random.random())
        if row is None:
            return None
        why = f"{'timed out' if reason else 'failed'} after {row.retries} replays"
        said = self.task.why if self.task is not None else ""
        why += f": {said}" if said else ""
        letter, values = self.book.bury(message_id, why)
        if check_value(message_id) is not None:
            values = (repr(message_id), *values[1:])
        self.again["emit"](values, message_id=letter, stream="dead_letters")
        return self.user_fail(message_id)


def shown(tup: Tuple | None) -> str:
    """A tuple for an error record, at most 500 characters."""
    return "" if tup is None else repr(tup)[:500]
