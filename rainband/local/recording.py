"""What the test kit sees of a topology: who emitted, executed, acked what; and whether values could have travelled.

Every emitted row goes through the codec: what cannot be encoded is refused in the emit itself, consumers receive what
comes out of the codec, and a row whose encoding is another one later was changed after it had been emitted.
"""

from __future__ import annotations

import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import get_ident
from typing import Any, NamedTuple

from rainband.clock import Clock
from rainband.config import Config
from rainband.errors import EmitRefused, ValueRefused
from rainband.messaging.values import PLAIN_TYPES, check_row, decode_rows, encode_rows
from rainband.topology.components import Bolt, ManualBolt
from rainband.topology.graph import Topology
from rainband.topology.tuples import Tuple
from rainband.worker.bind import Reliable, bind_methods
from rainband.worker.emit import OUTSIDE, OUTSIDE_FIX, Emitter
from rainband.worker.returned import unfinished
from rainband.worker.side import is_side
from rainband.worker.spouts import SpoutTask
from rainband.worker.wiring import LocalTask

WATCHED_MAX = 4096

Report = Callable[[int, BaseException, Tuple | None], None]

EMITTED, EXECUTED, ACKED, FAILED = "emitted", "executed", "acked", "failed"


class Event(NamedTuple):
    """One thing that happened: `subject` is the values of a tuple, or the message id for a spout's ack and fail."""

    at: float
    kind: str
    component: str
    task: int
    stream: str
    subject: Any


class Loop:
    """Which thread the workers' loops run on."""

    def __init__(self) -> None:
        self.thread = get_ident()

    def check(self) -> None:
        """Refuse an emit in another thread, which would race with this one."""
        if get_ident() != self.thread:
            raise EmitRefused(OUTSIDE, OUTSIDE_FIX)


class Watched(NamedTuple):
    """A row with something changeable in it, and its encoding when it was emitted."""

    row: tuple[object, ...]
    data: bytes
    component: str
    task: int
    stream: str
    report: Report


class Recorder:
    """Everything seen of one topology, over all its workers. Memory: all events with `record`, else a fixed amount."""

    def __init__(self, topology: Topology, clock: Clock, *, record: bool, check: bool) -> None:
        self.plan = topology.plan
        self.components = topology.components
        self.clock = clock
        self.record = record
        self.check = check
        self.events: list[Event] = []
        self.pickle_types = frozenset(Config.layer(topology.plan.config)["topology.pickle.types"])
        self._watched: OrderedDict[int, Watched] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, kind: str, component: str, task: int, stream: str, subject: Any) -> None:
        if self.record:
            self.events.append(Event(self.clock.now(), kind, component, task, stream, subject))

    def encoded(self, component: str, stream: str, row: tuple[object, ...]) -> bytes:
        """The row as it would travel; b'' when the emit itself will refuse it. Raises ValueRefused."""
        try:
            return encode_rows([row], self.pickle_types)
        except ValueRefused as error:
            if check_row(row, self.pickle_types) >= 0:
                return b""
            raise ValueRefused(self._where(component, stream, error.message), error.fix) from None

    def _where(self, component: str, stream: str, message: str) -> str:
        """The codec counts fields, users name them."""
        plan = self.plan.components[component].streams.get(stream)
        number, colon, reason = message.removeprefix("field ").partition(": ")
        if plan is not None and colon and number.isdecimal() and int(number) < len(plan.fields):
            message = f"field '{plan.fields[int(number)]}': {reason}"
        return f"'{component}' emitted on stream '{stream}', {message}"

    @property
    def watching(self) -> bool:
        """Whether any row is remembered."""
        return bool(self._watched)

    def watch(self, watched: Watched) -> None:
        """Remember a row, to see later whether it is still the same."""
        oldest = None
        with self._lock:
            self._watched[id(watched.row)] = watched
            if len(self._watched) > WATCHED_MAX:
                _, oldest = self._watched.popitem(last=False)
        if oldest is not None:
            self._verify(oldest)

    def received(self, tup: Tuple) -> None:
        """A consumer is about to see a row that was handed on by reference: give it what the codec makes of it."""
        watched = self._watched.get(id(tup._values))
        if watched is not None and watched.row is tup._values:
            self._verify(watched)
            tup._values = decode_rows(watched.data, self.pickle_types)[0]

    def verify(self) -> None:
        """Look at every row that is still remembered."""
        with self._lock:
            rows = list(self._watched.values())
        for watched in rows:
            self._verify(watched)

    def _verify(self, watched: Watched) -> None:
        try:
            same = encode_rows([watched.row], self.pickle_types) == watched.data
        except (ValueRefused, ValueError):
            same = False
        if same:
            return
        with self._lock:
            if self._watched.pop(id(watched.row), None) is None:
                return
        before = decode_rows(watched.data, self.pickle_types)[0]
        fields = self.plan.components[watched.component].streams[watched.stream].fields
        changed = [name for name, old, new in zip(fields, before, watched.row, strict=False) if repr(old) != repr(new)]
        error = ValueRefused(
            f"'{watched.component}' changed what it had emitted on stream '{watched.stream}': "
            f"{', '.join(map(repr, changed)) or 'a value'} was {before!r:.200}, now it is {watched.row!r:.200}",
            "Emitted values belong to the runtime: emit a copy",
        )
        watched.report(watched.task, error, None)


class Probe:
    """The instruments of one worker: see rainband.worker.bind.Instruments."""

    def __init__(self, recorder: Recorder, call_s: float, idle_max_s: float, loop: Loop) -> None:
        """Under a virtual clock (`call_s` > 0) each call of a spout takes that long, and one that has nothing to emit
        is asked again after 1, 2, 4 ... ms, at most `idle_max_s`.
        """
        self.recorder = recorder
        self.loop = loop
        self.call_s = call_s
        self.idle_max_s = idle_max_s
        self._report: Report | None = None

    def added(self, made: LocalTask) -> None:
        """A task was made: look at it in the ways that its callables alone do not offer."""
        instance = made.instance
        if isinstance(instance, ManualBolt):
            settling = {"ack": self._settling(made, ACKED, instance.ack)}
            settling["fail"] = self._settling(made, FAILED, instance.fail)
            bind_methods(instance, settling)
        if made.bolt is not None:
            self._report = made.bolt.on_error
        elif made.spout is not None:
            self._report = made.spout.on_error
            if self.call_s > 0.0:
                made.spout.pace_s = self.call_s
                made.spout.next_tuple = paced(made.spout, self.idle_max_s)

    def wrap_emit(self, component: str, task: int, emit: Callable[..., Any]) -> Callable[..., Any]:
        """`emit`, `emit_many` or `emit_direct` that records and checks each row, and its thread."""
        if emit.__name__ == "emit_many":
            return self._emit_many(component, task, emit)
        record = self.recorder.record
        loop = self._loop_of(emit)

        def emit_one(*arguments: Any, **given: Any) -> Any:
            if loop is not None:
                loop.check()
            if not record and arguments and is_plain(arguments[-1]):
                return emit(*arguments, **given)
            if "values" in given:
                values, before = given.pop("values"), arguments
            elif arguments:
                values, before = arguments[-1], arguments[:-1]
            else:
                return emit(**given)
            stream = given.get("stream", "default")
            row = row_of(values)
            data = self._encoded(component, stream, row)
            result = emit(*before, row, **given)
            self._emitted(component, task, stream, row, data)
            return result

        return emit_one

    def _loop_of(self, emit: Callable[..., Any]) -> Loop | None:
        """The loop on which alone this may be called; a lane checks for itself."""
        return self.loop if isinstance(getattr(emit, "__self__", None), (Emitter, Reliable)) else None

    def _emit_many(self, component: str, task: int, emit: Callable[..., Any]) -> Callable[..., Any]:
        loop = self._loop_of(emit)

        def emit_many(rows: Any, **given: Any) -> Any:
            if loop is not None:
                loop.check()
            stream = given.get("stream", "default")
            made = [row_of(values) for values in rows]
            encoded = [self._encoded(component, stream, row) for row in made]
            result = emit(made, **given)
            for row, data in zip(made, encoded, strict=True):
                self._emitted(component, task, stream, row, data)
            return result

        return emit_many

    def _encoded(self, component: str, stream: str, row: Any) -> bytes:
        """Raises ValueRefused. What is no row at all is left to the emit to refuse."""
        if type(row) is not tuple or not self.recorder.check or is_plain(row):
            return b""
        return self.recorder.encoded(component, stream, row)

    def _emitted(self, component: str, task: int, stream: str, row: tuple[object, ...], data: bytes) -> None:
        self.recorder.note(EMITTED, component, task, stream, row)
        if data:
            assert self._report is not None
            self.recorder.watch(Watched(row, data, component, task, stream, self._report))

    def wrap_execute(self, component: str, task: int, execute: Callable[..., Any]) -> Callable[..., Any]:
        """`execute` or `execute_batch` that records what it received and what became of it."""
        recorder = self.recorder
        if not recorder.record:
            return self._checking(execute)
        bolt = recorder.components[component]
        manual, beside = isinstance(bolt, ManualBolt), isinstance(bolt, Bolt) and is_side(bolt)

        def settle(kind: str, tups: list[Tuple]) -> None:
            for tup in tups:
                if not manual or (kind == FAILED and tup._open):
                    recorder.note(kind, component, task, tup.stream, tup.values)

        async def finish(result: Any, tups: list[Tuple]) -> Any:
            try:
                returned = await result
            except BaseException:
                settle(FAILED, tups)
                raise
            settle(FAILED if unfinished(returned) else ACKED, tups)
            return returned

        def executed(argument: Any) -> Any:
            tups = argument if isinstance(argument, list) else [argument]
            for tup in tups:
                recorder.received(tup)
                recorder.note(EXECUTED, component, task, tup.stream, tup.values)
            try:
                result = execute(argument)
            except BaseException:
                settle(FAILED, tups)
                raise
            if beside and inspect.isawaitable(result):
                return finish(result, tups)
            settle(FAILED if unfinished(result) else ACKED, tups)
            return result

        return executed

    def _checking(self, execute: Callable[..., Any]) -> Callable[..., Any]:
        recorder = self.recorder

        def executed(argument: Any) -> Any:
            if recorder.watching:
                for tup in argument if isinstance(argument, list) else [argument]:
                    recorder.received(tup)
            return execute(argument)

        return executed

    def settled(self, component: str, task: int, message_id: object, done: bool) -> None:
        """A spout is told that a message is done, or that it failed."""
        self.recorder.note(ACKED if done else FAILED, component, task, "", message_id)

    def _settling(self, made: LocalTask, kind: str, act: Callable[[Tuple], object]) -> Callable[[Tuple], None]:
        def settle(tup: Tuple) -> None:
            counted = getattr(tup, "_open", False)
            act(tup)
            if counted:
                self.recorder.note(kind, made.component, made.task, tup.stream, tup.values)

        return settle


def row_of(values: Any) -> Any:
    """The row as a tuple; what is no row at all is left to the emit to refuse."""
    if isinstance(values, (str, bytes, bytearray, memoryview)) or not isinstance(values, Sequence):
        return values
    return tuple(values)


def is_plain(values: object) -> bool:
    """Whether this is a row of values that surely travel and that nobody can change."""
    if type(values) is not list and type(values) is not tuple:
        return False
    for value in values:
        kind = type(value)
        if kind is str:
            if not value.isascii():
                return False
        elif kind not in PLAIN_TYPES:
            return False
    return True


def paced(spout: SpoutTask, idle_max_s: float) -> Callable[[], object]:
    """Its next_tuple, which lets a spout without anything to emit rest for longer and longer."""
    call = spout.next_tuple
    emitter = spout.emitter
    rest_s = spout.wait_s

    def next_tuple() -> object:
        before = emitter.emitted
        result: object = call()
        spout.wait_s = rest_s if emitter.emitted != before else min(max(idle_max_s, rest_s), 2 * spout.wait_s)
        return result

    return next_tuple
