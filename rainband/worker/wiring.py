"""The tasks of one worker and how they are joined: instances, emitters, edges, gates, choosers; and what moves.

`Wiring` is rebuilt nowhere: a new assignment adds, removes or re-places single tasks; the others keep their object,
inbox and choosers.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from rainband.acker.ledger import Ledger, Pending
from rainband.config import Config
from rainband.groupings.choosers import Chooser, Keyed, LocalOrShuffle, make_chooser
from rainband.groupings.specs import CustomGrouping
from rainband.topology.components import Bolt, ManualBolt, ReliableSpout, Spout
from rainband.topology.context import TopologyContext
from rainband.topology.plan import ACKER, ComponentPlan, Plan
from rainband.topology.secrets import Secrets
from rainband.topology.tuples import Source
from rainband.worker.bind import Instruments, Reliable, bolt_task, spout_task
from rainband.worker.books import Books
from rainband.worker.emit import BoltEmitter, ManualEmitter, Output, Route, SpoutEmitter
from rainband.worker.routes import Agenda, Edge, Gate, Outbox, Runner, Target
from rainband.worker.side import is_side
from rainband.worker.sides import Sides
from rainband.worker.spouts import SpoutTask
from rainband.worker.tasks import BoltTask, OnError
from rainband.worker.tuplelog import TupleLog
from rainband.worker.window import Window

SPREADING = ("shuffle", "none", "local_or_shuffle")


class LocalTask:
    """One task of this worker: the user's instance and what runs it."""

    def __init__(self, task: int, component: str, instance: Any, context: TopologyContext) -> None:
        self.task = task
        self.component = component
        self.instance = instance
        self.context = context
        self.bolt: BoltTask | None = None
        self.spout: SpoutTask | None = None
        self.reliable: Reliable | None = None
        self.outputs: dict[str, Output] = {}
        self.routes: list[tuple[str, LocalOrShuffle]] = []
        self.tick_s: float | None = None
        self.tick_due = 0.0
        self.opened = False

    @property
    def drained(self) -> bool:
        """Nothing more will come out of this task unless something comes in."""
        if self.bolt is not None:
            return self.bolt.idle
        spout = self.spout
        if spout is None:
            return True
        finished = self.reliable.drained if self.reliable is not None else spout.finished
        return finished and not spout.emitter.pending and not spout.done and not spout.undone


class Wiring:
    """Builds local tasks out of the plan; knows every target task of the topology and where it runs."""

    def __init__(
        self,
        plan: Plan,
        config: Config,
        agenda: Agenda,
        books: Books,
        *,
        load: Callable[[str], object],
        custom: Callable[[str], CustomGrouping],
        random: Random,
        clock: Callable[[], float],
        incarnation: int,
        instruments: Instruments | None,
        secrets: Secrets,
        sides: Sides,
        report: OnError,
    ) -> None:
        self.plan = plan
        self.config = config
        self.agenda = agenda
        self.books = books
        self.load = load
        self.custom = custom
        self.random = random
        self.clock = clock
        self.incarnation = incarnation
        self.instruments = instruments
        self.secrets = secrets
        self.sides = sides
        self.report = report
        self.limit: int = config["topology.executor.receive.buffer.size"]
        self.pickle_types = frozenset(config["topology.pickle.types"])
        self.acking = config["topology.acker.executors"] != 0
        self.tasks: dict[int, LocalTask] = {}
        self.windows: dict[int, Window] = {}
        self.runners: dict[int, Runner] = {}
        self.gates: dict[str, Gate] = {}
        self.edges: dict[str, list[tuple[Edge, str]]] = {}
        self.shared: dict[int, Chooser] = {}
        self.executor_of: dict[int, int] = {}
        self.streams: list[tuple[str, str]] = sorted(
            (name, stream) for name, component in plan.components.items() for stream in component.streams
        )
        self.number: dict[tuple[str, str], int] = {pair: number for number, pair in enumerate(self.streams)}
        self.targets: dict[int, Target] = {
            task: Target(task, self.limit, agenda) for ids in plan.tasks.values() for task in ids
        }
        books.targets = self.targets

    def source(self, number: int, task: int) -> Source:
        """Where a tuple that came over the wire was emitted."""
        component, stream = self.streams[number]
        return Source(component, stream, task, self.plan.components[component].streams[stream].fields, number)

    def width(self, number: int) -> int:
        """How many fields stream `number` has; -1 when there is no such stream."""
        if not 0 <= number < len(self.streams):
            return -1
        component, stream = self.streams[number]
        return len(self.plan.components[component].streams[stream].fields)

    def under_way(self) -> int:
        """How many tuples may be between two workers: what credit allows, or two for each tree that may be pending."""
        if not self.acking:
            return self.limit
        spouts = [component for component in self.plan.components.values() if component.kind == "spout"]
        pending: int = sum(self.config_of(spout)["topology.max.spout.pending"] * spout.tasks for spout in spouts)
        return min(self.limit, 2 * pending)

    def config_of(self, component: ComponentPlan) -> Config:
        return Config.layer(self.plan.config, component.config)

    def add(self, task: int, local: frozenset[int]) -> LocalTask | None:
        """Make the local task; None for a system task. The user's instance is loaded, not yet prepared."""
        name = self.plan.component_of[task]
        component = self.plan.components[name]
        if name == ACKER:
            self.books.ledgers[task] = Ledger()
            return None
        context = TopologyContext(
            self.plan,
            task,
            tuple(sorted(local)),
            self.config_of(component),
            report_error=lambda error: self.report(task, error, None),
            secrets=self.secrets,
        )
        made = LocalTask(task, name, self.load(name), context)
        gate = self.gates.setdefault(name, Gate())
        made.outputs = self.outputs(made, component, gate, local)
        instruments = TupleLog(self.instruments) if context.config["topology.debug"] else self.instruments
        if component.kind == "spout":
            self.add_spout(made, component, gate, instruments)
        else:
            self.add_bolt(made, component, gate, instruments)
        tick = context.config["topology.tick.tuple.freq.secs"]
        made.tick_s = None if tick is None else float(tick)
        self.tasks[task] = made
        if instruments is not None:
            instruments.added(made)
        return made

    def add_spout(
        self, made: LocalTask, component: ComponentPlan, gate: Gate, instruments: Instruments | None
    ) -> None:
        config = made.context.config
        ordinal = self.books.spout_tasks.index(made.task)
        pending = Pending(ordinal, self.incarnation, self.random.getrandbits(39))
        emitter = SpoutEmitter(made.component, made.task, made.outputs, gate, self.agenda, self.pickle_types, pending)
        emitter.acking = self.acking
        emitter.home = not self.books.acker_tasks
        wait_s = config["topology.spout.wait.ms"] / 1000.0
        instance = made.instance
        assert isinstance(instance, Spout)
        if is_side(instance):
            made.spout, made.reliable = self.sides.spout(
                instance,
                emitter,
                self.clock,
                wait_s,
                instruments,
                self.executor_of.get(made.task, made.task),
                self.random,
            )
        elif isinstance(instance, ReliableSpout):
            made.reliable = Reliable(instance, emitter, self.random, instruments)
            made.spout = made.reliable.bind(self.clock, wait_s)
        else:
            made.spout = spout_task(instance, emitter, self.clock, wait_s, instruments)
        made.spout.on_error = self.report
        timeout_s = float(config["topology.message.timeout.secs"])
        window = Window(config["topology.max.spout.pending"], timeout_s, self.agenda.now)
        made.spout.window = window.size
        self.windows[made.task] = window
        self.books.spouts[made.task] = made.spout

    def add_bolt(
        self, made: LocalTask, component: ComponentPlan, gate: Gate, instruments: Instruments | None
    ) -> None:
        instance = made.instance
        assert isinstance(instance, (Bolt, ManualBolt))
        emitter: BoltEmitter | ManualEmitter
        if isinstance(instance, ManualBolt):
            emitter = ManualEmitter(made.component, made.task, made.outputs, gate, self.agenda, self.pickle_types)
            emitter.on_reset = self.books.touch
        else:
            emitter = BoltEmitter(made.component, made.task, made.outputs, gate, self.agenda, self.pickle_types)
        size: int = made.context.config["topology.batch.size"]
        patience_s = float(made.context.config["topology.batch.timeout.ms"]) / 1000.0
        if is_side(instance):
            made.bolt = self.sides.bolt(
                instance,
                emitter,
                component.level,
                self.limit,
                self.clock,
                instruments,
                self.executor_of.get(made.task, made.task),
                size,
            )
        else:
            made.bolt = bolt_task(
                instance, emitter, component.level, self.limit, self.agenda, self.clock, size, patience_s,
                instruments,
            )
        made.bolt.on_error = self.report
        self.runners[made.task] = made.bolt

    def outputs(
        self, made: LocalTask, component: ComponentPlan, gate: Gate, local: frozenset[int]
    ) -> dict[str, Output]:
        outputs: dict[str, Output] = {}
        for stream, plan in component.streams.items():
            source = Source(made.component, stream, made.task, plan.fields, self.number[made.component, stream])
            routes = [self.route(made, edge, kind, local) for edge, kind in self.edges_of(made.component, stream, gate)]
            outputs[stream] = Output(source, plan.direct, routes)
        return outputs

    def edges_of(self, component: str, stream: str, gate: Gate) -> list[tuple[Edge, str]]:
        """The subscriptions to one stream; made once for all tasks of the component in this worker."""
        key = f"{component}\n{stream}"
        found = self.edges.get(key)
        if found is None:
            found = []
            for consumer, plan in sorted(self.plan.components.items()):
                for position, source in enumerate(plan.inputs):
                    if (source.component, source.stream) == (component, stream):
                        targets = [self.targets[task] for task in self.plan.tasks[consumer]]
                        edge = Edge(component, stream, consumer, targets, gate, credited=not source.cyclic)
                        found.append((edge, f"{consumer}\n{position}"))
            self.edges[key] = found
        return found

    def route(self, made: LocalTask, edge: Edge, key: str, local: frozenset[int]) -> Route:
        consumer, position = key.split("\n")
        plan = self.plan.components[consumer]
        source = plan.inputs[int(position)]
        fields = self.plan.components[source.component].streams[source.stream].fields
        tasks = self.plan.tasks[consumer]
        shared = self.shared.get(id(edge))
        if shared is not None:
            return Route(edge, shared)
        custom = None
        if source.kind == "custom":
            custom = self.custom(source.custom)
            custom.prepare(made.context, tuple(tasks))
        chooser = make_chooser(
            source.kind,
            tasks=tasks,
            positions=[fields.index(name) for name in source.fields],
            groups=plan.key_groups,
            local=[index for index, task in enumerate(tasks) if task in local],
            seed=self.random.getrandbits(64),
            custom=custom,
            fields=source.fields,
        )
        if isinstance(chooser, Keyed):
            chooser.where = f"'{made.component}' emitted on stream '{source.stream}' to '{consumer}', "
        if source.kind in ("fields", "global", "all"):
            self.shared[id(edge)] = chooser
        if source.kind in SPREADING:
            edge.choosers.append(chooser)
        if isinstance(chooser, LocalOrShuffle):
            made.routes.append((consumer, chooser))
        return Route(edge, chooser)

    def remove(self, task: int) -> LocalTask | None:
        """Take a task out; the caller closes the instance and passes the rest of its inbox on."""
        self.books.ledgers.pop(task, None)
        self.books.spouts.pop(task, None)
        self.windows.pop(task, None)
        runner = self.runners.pop(task, None)
        if runner is not None:
            runner.leave()
        made = self.tasks.pop(task, None)
        for out in made.outputs.values() if made is not None else ():
            for route in out.routes:
                if route.chooser in route.edge.choosers:
                    route.edge.choosers.remove(route.chooser)
        return made

    def place(self, outbox_of: Callable[[int], Outbox | None], moved: frozenset[int], local: frozenset[int]) -> None:
        """Point the targets of `moved` tasks to where they run now, then renew what edges watch."""
        for task in moved:
            target = self.targets[task]
            if target.runner is not None:
                target.runner.target = None
            target.place(self.runners.get(task), outbox_of(task))
        for made in self.tasks.values():
            for consumer, chooser in made.routes:
                chooser.relocate([index for index, task in enumerate(self.plan.tasks[consumer]) if task in local])
        self.watch(local)

    def watch(self, local: frozenset[int]) -> None:
        """Make every edge watch exactly the targets it may choose; gates are counted anew."""
        for target in self.targets.values():
            target.watchers.clear()
        for gate in self.gates.values():
            gate.blocked = 0
        for edges in self.edges.values():
            for edge, key in edges:
                if not edge.credited:
                    continue
                consumer, position = key.split("\n")
                kind = self.plan.components[consumer].inputs[int(position)].kind
                watched = edge.targets
                if kind == "local_or_shuffle":
                    watched = [target for target in edge.targets if target.task in local] or edge.targets
                elif kind == "global":
                    watched = edge.targets[:1]
                edge.full = 0
                edge.threshold = len(watched) if kind in SPREADING else 1
                for chooser in edge.choosers:
                    for index in range(len(edge.targets)):
                        chooser.set_blocked(index, False)
                for target in watched:
                    target.watchers.append(edge)
                    if target.full:
                        edge.update(target, True)
        for gate in self.gates.values():
            if gate.blocked == 0:
                self.agenda.unpark(gate)
