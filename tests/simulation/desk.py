"""Between the components of one worker and the oracle: wraps what they call and what calls them, as `Instruments`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rainband.records import Status
from rainband.topology.components import ManualBolt
from rainband.topology.streams import DEAD_LETTERS
from rainband.topology.tuples import Tuple
from simulation.oracle import Attempt, Emission, Oracle, anchors_of
from simulation.topologies import Trouble

if TYPE_CHECKING:
    from rainband.topology.context import TopologyContext
    from rainband.worker.worker import Worker
    from simulation.processes import WorkerProcess


class Desk:
    """One per worker process."""

    def __init__(self, oracle: Oracle, process: WorkerProcess) -> None:
        self.oracle = oracle
        self.process = process
        self.worker: Worker | None = None
        self.incarnation = process.incarnation
        self.address = process.address
        self.now = process.world.now
        self.anchors: tuple[Attempt, ...] = ()
        self.reason = 0
        self.spouts: dict[int, Any] = {}
        self.placed_version = -1
        self.places: dict[int, int] = {}
        self.local: frozenset[int] = frozenset()
        self.moved_at: dict[int, float] = {}
        self.address_of: dict[int, str] = {}
        self.closed: set[int] = set()
        self.lives: dict[int, int] = {}

    def life(self, task: int) -> int:
        """Which instance of the task this is: it may leave this process and come back to it."""
        return self.incarnation * 1000 + self.lives[task]

    # What the simulation tells

    def placed(self) -> dict[int, int]:
        """Placement numbers by task, as the worker believes now."""
        worker = self.worker
        if worker is not None and worker.assignment.version != self.placed_version:
            self.placed_version = worker.assignment.version
            assignment = worker.assignment
            homes = assignment.homes()
            for task in self.address_of.keys() - homes.keys():
                del self.address_of[task]
                self.moved_at[task] = self.now()
            for task, placement in homes.items():
                address = assignment.address(placement.slot)
                if self.address_of.get(task) != address:
                    self.address_of[task] = address
                    self.moved_at[task] = self.now()
                self.places[task] = placement.number
            self.local = frozenset(task for task, at in self.address_of.items() if at == self.address)
        return self.places

    def gave_up(self, emission: Emission) -> bool:
        """Whether its source sent it from a place after this worker knew of a later one.

        This worker may itself be behind: one that knows an older place gets what was sent from the later one when a
        worker on the way passes it on.
        """
        task = emission.source
        ahead = self.placed().get(task, 0) >= emission.place
        return ahead and self.address_of.get(task) != emission.address and emission.at > self.moved_at.get(task, 0.0)

    # What components ask

    def opened(self, context: TopologyContext) -> None:
        """A task begins; it may be broken just now."""
        self.called(context.task_id)
        if self.process.world.faults.is_broken(context.component):
            raise Trouble("broken just now")

    def called(self, task: int) -> None:
        """User code of `task` runs."""
        if task in self.closed:
            self.oracle.wrong("D3", f"task {task} runs after its last call")
        if self.oracle.options.exclusive:
            self.oracle.called(task, self.life(task), self.now())

    def is_acked(self, row: int) -> bool:
        """The queue outside forgets a row when it is acked."""
        return row in self.oracle.acked

    def letter_arrived(self, row: int) -> None:
        self.oracle.arrived.add(row)

    # Instruments

    def wrap_emit(self, component: str, task: int, emit: Callable[..., Any]) -> Callable[..., Any]:
        name = emit.__name__
        if name == "emit_direct":
            return lambda to, values, **how: self.emit(component, task, values, how, lambda row: emit(to, row, **how))
        if name == "emit":
            return lambda values, **how: self.emit(component, task, values, how, lambda row: emit(row, **how))
        return emit

    def emit(
        self,
        component: str,
        task: int,
        values: Sequence[Any],
        how: dict[str, Any],
        send: Callable[[Sequence[Any]], tuple[int, ...]],
    ) -> tuple[int, ...]:
        oracle = self.oracle
        self.called(task)
        if how.get("stream") == DEAD_LETTERS:
            if self.letter_is_new(task, how["message_id"]):
                oracle.buried(task, self.life(task), values[0], values[3])
            ids = send(values)
            self.new_root(task)
            return ids
        row, now = values[0], self.now()
        places = self.placed()
        if "message_id" in how:
            if self.worker is not None and self.worker.assignment.status is not Status.ACTIVE:
                oracle.wrong("P1", f"task {task} emits row {row} while the topology is {self.worker.assignment.status}")
            emission = oracle.spout_emits(task, self.life(task), self.address, row, now)
        else:
            attempts = anchors_of(oracle, how["anchors"]) if "anchors" in how else self.anchors
            emission = oracle.emission(row, attempts, task, self.incarnation, self.address, now)
        ids = send((row, emission.uid, values[2]))
        emission.stream = how.get("stream", "default")
        oracle.sent(emission, ids, places, self.address_of)
        oracle.check_grouping(emission, component, values[2], self.local)
        if "message_id" in how:
            self.new_root(task)
        return ids

    def new_root(self, task: int) -> None:
        """What `task` has just emitted began a tree."""
        if self.oracle.tracked:
            pending = self.spouts[task].emitter.pending
            self.oracle.new_root(pending.prefix | pending.counter)

    def letter_is_new(self, task: int, letter: object) -> bool:
        """A dead letter is replayed until it is acked: only its first emit buries the row."""
        known = self.__dict__.setdefault("letters", set())
        fresh = id(letter) not in known
        known.add(id(letter))
        self.__dict__.setdefault("kept", []).append(letter)
        return fresh

    def wrap_execute(self, component: str, task: int, execute: Callable[..., Any]) -> Callable[..., Any]:
        manual = isinstance(getattr(execute, "__self__", None), ManualBolt)
        if component == "letters":
            return execute
        if execute.__name__ == "execute_batch":
            return lambda tups: self.execute_batch(task, tups, execute)
        return lambda tup: self.execute(task, tup, execute, manual)

    def execute(self, task: int, tup: Tuple, execute: Callable[..., Any], manual: bool) -> None:
        emission = self.begin(task, tup)
        if emission is None:
            execute(tup)
            return
        self.anchors = () if manual else emission.attempts
        try:
            execute(tup)
        except BaseException:
            if not manual:
                self.oracle.ends(emission, task, False, self.now())
            raise
        finally:
            self.anchors = ()
        if not manual:
            self.oracle.ends(emission, task, True, self.now())

    def execute_batch(self, task: int, tups: Sequence[Tuple], execute: Callable[..., Any]) -> None:
        emissions = [self.begin(task, tup) for tup in tups]
        found = {id(attempt): attempt for emission in emissions if emission for attempt in emission.attempts}
        self.anchors = tuple(found.values())
        try:
            execute(tups)
        finally:
            self.anchors = ()
        for emission in emissions:
            if emission is not None:
                self.oracle.ends(emission, task, True, self.now())

    def begin(self, task: int, tup: Tuple) -> Emission | None:
        self.called(task)
        return self.oracle.begins(tup[1], task, self.incarnation, self.now(), self.gave_up)

    def settled(self, component: str, task: int, message_id: object, done: bool) -> None:
        assert isinstance(message_id, int)
        if task in self.closed:
            self.oracle.wrong("D3", f"a verdict for task {task} after its close")
        reason = 0 if done else self.reason
        self.oracle.verdict(task, self.life(task), message_id, done, reason, self.now(), self.process.stood)

    def added(self, made: Any) -> None:
        """The task is complete: give the component its desk, listen to its acks, learn why its rows failed."""
        instance = made.instance
        instance.desk = self
        task = made.task
        self.closed.discard(task)
        self.lives[task] = self.lives.get(task, 0) + 1
        if made.spout is not None:
            self.spouts[task] = made.spout
            self.listen_to_fails(made.spout)
            self.wrap_end(instance, "close", task)
            return
        self.wrap_end(instance, "cleanup", task)
        if isinstance(instance, ManualBolt):
            self.wrap_ack(instance, "ack", task, True)
            self.wrap_ack(instance, "fail", task, False)
            reset: Callable[[Tuple], None] = instance.reset_timeout

            def reset_timeout(tup: Tuple) -> None:
                self.oracle.touched(self.oracle.emissions[tup[1]], self.now())
                reset(tup)

            instance.__dict__["reset_timeout"] = reset_timeout

    def listen_to_fails(self, spout: Any) -> None:
        on_fail = spout.on_fail

        def fail(message_id: object, reason: int) -> None:
            self.reason = reason
            on_fail(message_id, reason)

        spout.on_fail = fail

    def wrap_end(self, instance: Any, name: str, task: int) -> None:
        end = getattr(instance, name)

        def ended() -> None:
            self.closed.add(task)
            end()

        instance.__dict__[name] = ended

    def wrap_ack(self, instance: Any, name: str, task: int, done: bool) -> None:
        call = getattr(instance, name)

        def settle(tup: Tuple) -> None:
            self.oracle.ends(self.oracle.emissions[tup[1]], task, done, self.now())
            call(tup)

        instance.__dict__[name] = settle
