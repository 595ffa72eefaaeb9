"""The lanes of one worker, and the tasks whose callbacks run there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from rainband.clock import Clock
from rainband.errors import EmitRefused
from rainband.topology.components import Bolt, ReliableSpout, Spout
from rainband.topology.tuples import Tuple
from rainband.worker.bind import Instruments, Reliable, bind_methods, told
from rainband.worker.emit import OUTSIDE, OUTSIDE_FIX, Emitter, ManualEmitter, SpoutEmitter, no_tuple
from rainband.worker.lanes import CURRENT, AsyncLane, Call, Lane, Results, ThreadLane, VirtualLane
from rainband.worker.returned import check_returned
from rainband.worker.routes import Agenda
from rainband.worker.side import BLOCKING_AHEAD, SideBoltTask, SideEmits, SideSpoutTask, UnderWay

if TYPE_CHECKING:
    from rainband.worker.wiring import LocalTask


class Waited:
    """Owner of a call somebody waits for: open, prepare, close."""

    emits = False


class Told:
    """Owner of a call nobody waits for, which emits nothing: activate, deactivate, the last of a task that moves."""

    emits = False

    def __init__(
        self, task: SideSpoutTask | SideBoltTask, under_way: UnderWay, report: Callable[[BaseException], None]
    ) -> None:
        self.task = task
        self.under_way = under_way
        self.report = report
        under_way.calls += 1
        task.told += 1

    def back(self, call: Call) -> None:
        self.under_way.calls -= 1
        self.task.told -= 1
        if call.error is not None:
            self.report(call.error)


class Sides:
    """The lanes of one worker. `in_flight` counts calls under way."""

    def __init__(self, agenda: Agenda, wake: Callable[[], None], virtual: bool, clock: Clock) -> None:
        self.agenda = agenda
        self.virtual = virtual
        self.clock = clock
        self.results = Results(wake)
        self.lanes: dict[str, Lane] = {}
        self.lane_of: dict[int, Lane] = {}
        self.under_way = UnderWay()

    @property
    def in_flight(self) -> int:
        return self.under_way.calls

    @property
    def busy(self) -> bool:
        return bool(self.lanes)

    def lane(self, instance: object, executor: int) -> Lane:
        if self.virtual:
            return self.lane_named("virtual", lambda: VirtualLane(self.results, self.clock))
        if getattr(instance, "blocking", False):
            name = f"executor-{executor}"
            return self.lane_named(name, lambda: ThreadLane(self.results, name))
        return self.lane_named("async", lambda: AsyncLane(self.results))

    def lane_named(self, name: str, make: Callable[[], Lane]) -> Lane:
        lane = self.lanes.get(name)
        if lane is None:
            lane = make()
            self.lanes[name] = lane
        return lane

    def bolt(
        self,
        instance: Bolt,
        emitter: Emitter,
        level: int,
        limit: int,
        clock: Callable[[], float],
        instruments: Instruments | None,
        executor: int,
        batch_size: int,
    ) -> SideBoltTask:
        lane = self.lane(instance, executor)
        manual = isinstance(emitter, ManualEmitter)
        SideEmits(emitter, "anchors" if manual else "").bind(instance, instruments)
        if manual:
            acts = ("ack", "fail", "reset_timeout")
            bind_methods(instance, {name: manual_op(emitter.component, name) for name in acts})
        batch = getattr(instance, "execute_batch", None)
        execute: Callable[[Any], Any] = batch if batch is not None else instance.execute
        if instruments is not None:
            execute = instruments.wrap_execute(emitter.component, emitter.task, execute)
        ahead = BLOCKING_AHEAD if instance.blocking else instance.max_in_flight
        task = SideBoltTask(
            level,
            limit,
            self.agenda,
            clock,
            emitter,
            lane,
            self.under_way,
            execute,
            ahead,
            batch_size if batch is not None else 0,
        )
        self.lane_of[emitter.task] = lane
        return task

    def spout(
        self,
        instance: Spout,
        emitter: SpoutEmitter,
        clock: Callable[[], float],
        wait_s: float,
        instruments: Instruments | None,
        executor: int,
        random: Random,
    ) -> tuple[SideSpoutTask, Reliable | None]:
        lane = self.lane(instance, executor)
        ack: Callable[[Any], Any] = instance.ack
        fail: Callable[[Any], Any] = instance.fail
        if instruments is not None and not isinstance(instance, ReliableSpout):
            ack = told(instruments, emitter.component, emitter.task, ack, True)
            fail = told(instruments, emitter.component, emitter.task, fail, False)
        task = SideSpoutTask(clock, emitter, instance, lane, self.under_way, wait_s, ack, fail)
        if isinstance(instance, ReliableSpout):
            task.reliable = Reliable(instance, emitter, random, instruments)
            task.reliable.task = task
            task.reliable.beside = True
            task.reliable.user_ack = lambda message_id: task.tell("ack", ack, message_id)
            task.reliable.user_fail = lambda message_id: task.tell("fail", fail, message_id)
        SideEmits(emitter, "message_id").bind(instance, instruments)
        bind_methods(instance, {"finish": task.reliable.finish if task.reliable is not None else task.finish})
        self.lane_of[emitter.task] = lane
        return task, task.reliable

    def call(self, made: LocalTask, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a callback of `made` where its callbacks run, and wait for it. Raises what it raises."""
        self.agenda.turn[0] = made.task
        lane = self.lane_of.get(made.task)
        if lane is None:
            check_returned(made.component, name_of(function), function(*arguments))
            return
        call = Call(Waited(), lambda: function(*arguments), made.component, name_of(function))
        call.done = threading.Event()
        lane.submit(call)
        if isinstance(lane, VirtualLane):
            if not lane.wait_for(call):
                raise RuntimeError(f"'{made.component}' waits in {name_of(function)} for what never comes")
        else:
            call.done.wait()
        if call.error is not None:
            raise call.error

    def tell(self, made: LocalTask, function: Callable[[], Any], report: Callable[[BaseException], None]) -> None:
        """Call a callback of `made` where its callbacks run, after what is under way there; `report` what it raises."""
        side = side_of(made)
        if side is not None:
            owner = Told(side, self.under_way, report)
            side.lane.submit(Call(owner, function, made.component, name_of(function)))
            return
        try:
            self.call(made, function)
        except BaseException as error:
            report(error)

    def tick(self, made: LocalTask) -> None:
        """Call `tick` of a bolt task; what it emits is unanchored."""
        bolt = made.bolt
        assert bolt is not None
        lane = self.lane_of.get(made.task)
        if lane is not None:
            assert isinstance(bolt, SideBoltTask)
            if bolt.ticking:
                return
            bolt.ticking = True
            lane.submit(Call(bolt, made.instance.tick, made.component, "tick", []))
            return
        bolt.emitter.active = True
        self.agenda.turn[0] = made.task
        try:
            check_returned(made.component, "tick", made.instance.tick())
        except BaseException as error:
            bolt.error(error, None)
        bolt.emitter.active = False

    def collect(self) -> None:
        """Apply every call that is back, and what others have emitted so far."""
        for lane in self.lanes.values():
            lane.advance()
        for call, back in self.results.taken():
            if back:
                call.owner.back(call)
            else:
                call.owner.apply(call)

    def wait_outside(self, timeout_s: float) -> bool:
        """Under a virtual clock: wait in real time for what calls may be waiting for; true when something came."""
        lane = self.lanes.get("virtual")
        return isinstance(lane, VirtualLane) and lane.wait_outside(timeout_s)

    def deadline(self) -> float:
        return min((lane.deadline() for lane in self.lanes.values()), default=float("inf"))

    def cancel(self) -> None:
        """End the work under way: what comes next are the last calls."""
        for lane in self.lanes.values():
            lane.cancel()

    def close(self) -> None:
        for lane in self.lanes.values():
            lane.close()


def side_of(made: LocalTask) -> SideSpoutTask | SideBoltTask | None:
    """The task if its callbacks run on a lane."""
    if isinstance(made.spout, SideSpoutTask):
        return made.spout
    return made.bolt if isinstance(made.bolt, SideBoltTask) else None


def name_of(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", "callback"))


def manual_op(component: str, name: str) -> Callable[[object], None]:
    def op(tup: object) -> None:
        if not isinstance(tup, Tuple):
            raise no_tuple(component, tup)
        call = CURRENT.get()
        if call is None or call.closed:
            raise EmitRefused(OUTSIDE, OUTSIDE_FIX)
        call.ops.append((name, tup))

    return op
