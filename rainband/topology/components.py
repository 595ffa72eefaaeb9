"""The classes users subclass. They are plain: no `__init__`, no `__slots__`, no abstract methods.

When a task starts, the runtime binds its own `emit`, `ack` and the like onto the instance; until then those below
answer, and refuse. Every callback may be `async def`. Optional ones (`tick`, `execute_batch`, `position`, `seek`) exist
for the type checker only: a component has them when it defines them.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Union

from rainband.errors import EmitRefused
from rainband.topology.streams import DirectStream, Outputs

if TYPE_CHECKING:
    from rainband.topology.context import TopologyContext
    from rainband.topology.tuples import Tuple

__all__ = ["Bolt", "DirectStream", "ManualBolt", "Outputs", "ReliableSpout", "Spout"]

Returned = Union[Coroutine[Any, Any, None], None]
"""What a callback returns: nothing, or the coroutine of an `async def`."""


class Component:
    """What spouts and bolts have in common."""

    outputs: Outputs = ()
    """Field names of the default stream, or a mapping of stream names to field names or a DirectStream."""
    blocking: bool = False
    """True: each executor has its own thread, on which all its callbacks run, one at a time."""
    max_in_flight: int = 64
    """How many calls of an `async def` callback one task may have under way."""


class Spout(Component):
    """Where tuples come from. `next_tuple` emits what there is, if anything, and returns soon.

    With a `message_id`, `ack` or `fail` is called once the whole tree of the tuple is done, or has failed or timed out.
    """

    def open(self, context: TopologyContext) -> Returned:
        """Once per task, before anything else. Nothing can be emitted yet."""
        return None

    def next_tuple(self) -> Returned:
        """Emit what is ready. Called again and again; after `finish()` no more."""
        raise NotImplementedError(f"{type(self).__name__} must define next_tuple(self)")

    def ack(self, message_id: Any) -> Returned:
        """Every tuple that came of this message was processed."""
        return None

    def fail(self, message_id: Any) -> Returned:
        """Some tuple that came of this message failed, or the message timed out."""
        return None

    def activate(self) -> Returned:
        """The topology goes on."""
        return None

    def deactivate(self) -> Returned:
        """The topology was paused: `next_tuple` is not called until `activate`."""
        return None

    def close(self) -> Returned:
        """Before the task ends in an orderly way; not when its process is killed."""
        return None

    def emit(self, values: Sequence[object], *, message_id: object, stream: str = "default") -> Sequence[int]:
        """Emit one tuple and return the tasks it went to. `message_id=None`: untracked, on purpose.

        Raises EmitRefused (wrong number of values, undeclared stream, wrong moment), ValueRefused (a value that does
        not travel).
        """
        _refuse(self, "emit")

    def emit_direct(
        self, task: int, values: Sequence[object], *, message_id: object, stream: str = "default"
    ) -> Sequence[int]:
        """Emit one tuple of a direct stream to one task of a bolt that subscribes to it."""
        _refuse(self, "emit_direct")

    def finish(self) -> None:
        """Nothing more will come from this task. Acks, fails and replays go on."""
        _refuse(self, "finish")


class ReliableSpout(Spout):
    """A spout that replays failed messages by itself, then gives up into its stream `dead_letters`.

    Message ids must be unique and not None. The stream has the fields message_id, stream, values, retries, reason.
    `ack` and `fail` tell of the end: `fail` comes once, when a message has become a dead letter.

    Define both `position()` (where reading stands, after the latest emit; a value that travels) and `seek(position)`
    to go on after this task's process was lost: the lowest unfinished position is stored, and sought after `open`.
    """

    max_retries: int = 5
    retry_delay_s: float = 1.0
    """Doubles with each retry of a message, and is up to 10 % longer by chance; never above `retry_delay_max_s`."""
    retry_delay_max_s: float = 60.0

    if TYPE_CHECKING:

        def position(self) -> Any:
            """Where reading stands."""

        def seek(self, position: Any) -> Returned:
            """Go on from there. Called after `open`, only if a position was stored."""


class _ByHand:
    """A method of Storm's bolts that a `Bolt` does not have: looking for it says who has.

    No `__getattr__`, which would keep the interpreter from specialising every look-up on a bolt.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, bolt: Bolt | None, kind: type[Bolt]) -> NoReturn:
        raise AttributeError(
            f"'{kind.__name__}' has no {self.name}(): a Bolt's tuple is acked when execute returns, and failed by a "
            "raise; to do it by hand derive from ManualBolt"
        )


class Bolt(Component):
    """What is done with tuples. What `execute` emits is anchored to its tuple, which is acked when `execute` returns.

    A raise fails the tuple and is recorded; `raise FailTuple("why")` fails it quietly.
    """

    def prepare(self, context: TopologyContext) -> Returned:
        """Once per task, before anything else. Nothing can be emitted yet."""
        return None

    def execute(self, tup: Tuple) -> Returned:
        """Process one tuple."""
        raise NotImplementedError(f"{type(self).__name__} must define execute(self, tup)")

    def cleanup(self) -> Returned:
        """Before the task ends in an orderly way; not when its process is killed."""
        return None

    def emit(self, values: Sequence[object], *, stream: str = "default") -> Sequence[int]:
        """Emit one tuple and return the tasks it went to. Raises EmitRefused or ValueRefused, as a spout's does."""
        _refuse(self, "emit")

    def emit_many(self, rows: Iterable[Sequence[object]], *, stream: str = "default") -> None:
        """Emit many tuples: a faster loop of `emit`."""
        _refuse(self, "emit_many")

    def emit_direct(self, task: int, values: Sequence[object], *, stream: str = "default") -> Sequence[int]:
        """Emit one tuple of a direct stream to one task of a bolt that subscribes to it."""
        _refuse(self, "emit_direct")

    if not TYPE_CHECKING:
        ack = _ByHand("ack")
        fail = _ByHand("fail")
        reset_timeout = _ByHand("reset_timeout")

    if TYPE_CHECKING:

        def tick(self) -> Returned:
            """Called every `topology.tick.tuple.freq.secs`. What it emits is not anchored."""

        def execute_batch(self, tups: Sequence[Tuple]) -> Returned:
            """May replace `execute`: process many tuples at once; what it emits is anchored to all of them."""


class ManualBolt(Bolt):
    """A bolt that anchors and acks by hand, to hold on to tuples beyond one call. Every tuple must be acked or failed.

    A raise fails the current tuple if it is still open. A second ack of a tuple is ignored and counted.
    """

    def emit(  # type: ignore[override]
        self, values: Sequence[object], *, anchors: Tuple | Sequence[Tuple], stream: str = "default"
    ) -> Sequence[int]:
        """Emit one tuple, part of the trees of `anchors`. `anchors=()`: of none, on purpose."""
        _refuse(self, "emit")

    def emit_many(  # type: ignore[override]
        self, rows: Iterable[Sequence[object]], *, anchors: Tuple | Sequence[Tuple], stream: str = "default"
    ) -> None:
        """Emit many tuples, all part of the trees of `anchors`."""
        _refuse(self, "emit_many")

    def emit_direct(  # type: ignore[override]
        self, task: int, values: Sequence[object], *, anchors: Tuple | Sequence[Tuple], stream: str = "default"
    ) -> Sequence[int]:
        """Emit one tuple of a direct stream to one task of a bolt that subscribes to it."""
        _refuse(self, "emit_direct")

    def ack(self, tup: Tuple) -> None:
        """This tuple is done."""
        _refuse(self, "ack")

    def fail(self, tup: Tuple) -> None:
        """This tuple failed: so does its tree, at once."""
        _refuse(self, "fail")

    def reset_timeout(self, tup: Tuple) -> None:
        """The time of the tuple's tree starts anew; nothing happens once the tuple is acked or failed."""
        _refuse(self, "reset_timeout")


SPOUT_CALLBACKS = ("open", "next_tuple", "ack", "fail", "activate", "deactivate", "close", "position", "seek")
BOLT_CALLBACKS = ("prepare", "execute", "execute_batch", "tick", "cleanup")
SPOUT_RUNTIME = ("emit", "emit_direct", "emit_many", "finish")
BOLT_RUNTIME = ("emit", "emit_direct", "emit_many")
MANUAL_RUNTIME = (*BOLT_RUNTIME, "ack", "fail", "reset_timeout")


def overrides(component: object, name: str) -> bool:
    """Whether the user's class (or the instance) defines this callback, rather than the base classes here."""
    if name in getattr(component, "__dict__", {}):
        return True
    owner = next((kind for kind in type(component).__mro__ if name in vars(kind)), object)
    return owner is not object and owner.__module__ != __name__


def _refuse(component: object, name: str) -> NoReturn:
    raise EmitRefused(
        f"{type(component).__name__}.{name}() was called on a component that is not running",
        "Emit from next_tuple, execute or tick while a topology runs, not in __init__, open, prepare or cleanup; "
        "to try a bolt alone use rainband.testing.run_bolt",
    )
