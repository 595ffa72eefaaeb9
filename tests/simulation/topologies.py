"""Topologies drawn from a seed: a DAG of components that say what they do to a `Desk`, and what must come of each row.

Every tuple is (source, uid, key): `source` numbers the row for the whole run, `uid` is new with each emit (the desk
puts it in), `key` groups. What happens to a row depends on its number only, so the sinks it must reach are known.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec

from rainband.groupings.specs import CustomGrouping
from rainband.topology.builder import TopologyBuilder
from rainband.topology.components import Bolt, DirectStream, ManualBolt, ReliableSpout, Spout
from rainband.topology.context import TopologyContext
from rainband.topology.graph import Topology
from rainband.topology.tuples import Tuple
from simulation.options import Options

FIELDS = ("source", "uid", "key")
KEYS = 7
SPOUT_ROWS = 1_000_000
GROUPINGS = ("shuffle", "fields", "partial_key", "all", "global", "none", "local_or_shuffle", "custom")


class Trouble(Exception):
    """Raised by components on purpose."""


class ByKey(CustomGrouping):
    """One task by key, as a rule of the user's own."""

    def prepare(self, context: Any, tasks: Sequence[int]) -> None:
        self.tasks = tasks

    def choose_tasks(self, values: tuple[Any, ...]) -> Sequence[int]:
        return [self.tasks[values[2] % len(self.tasks)]]


class Rows:
    """The rows of one spout component, shared by its tasks. `desk` is put in by the simulation."""

    desk: Any = None

    def __init__(self, first: int, total: int, every_s: float) -> None:
        self.first = first
        self.total = total
        self.every_s = every_s

    def share(self, context: TopologyContext) -> list[int]:
        self.desk.opened(context)
        tasks = len(context.tasks())
        self.next_at = self.desk.now()
        self.pace_s = self.every_s * tasks
        return list(range(self.first + context.task_index, self.first + self.total, tasks))

    def turn(self) -> bool:
        """Whether a row is due."""
        now = self.desk.now()
        if now < self.next_at:
            return False
        self.next_at = max(self.next_at + self.pace_s, now - 5 * self.pace_s)
        return True


class OwnReplay(Rows, Spout):
    """Reads from a queue outside that forgets what was acked only; replays by itself."""

    outputs = FIELDS

    def open(self, context: TopologyContext) -> None:
        self.todo = deque(row for row in self.share(context) if not self.desk.is_acked(row))
        self.again: deque[int] = deque()
        self.open_rows = 0

    def next_tuple(self) -> None:
        if self.again:
            row = self.again.popleft()
        elif self.todo:
            if not self.turn():
                return
            row = self.todo.popleft()
        else:
            if not self.open_rows:
                self.finish()
            return
        self.open_rows += 1
        self.emit((row, 0, row % KEYS), message_id=row)

    def ack(self, message_id: Any) -> None:
        self.open_rows -= 1

    def fail(self, message_id: Any) -> None:
        self.open_rows -= 1
        self.again.append(message_id)


class Replayed(Rows, ReliableSpout):
    """Replayed by the runtime; begins anew when its process is lost."""

    outputs = FIELDS
    max_retries = 3
    retry_delay_s = 0.1
    retry_delay_max_s = 1.0

    def open(self, context: TopologyContext) -> None:
        self.rows = self.share(context)
        self.at = 0

    def next_tuple(self) -> None:
        if self.at >= len(self.rows):
            self.finish()
        elif self.turn():
            row = self.rows[self.at]
            self.at += 1
            self.emit((row, 0, row % KEYS), message_id=row)


class Sought(Replayed):
    """The same with a position that survives the process."""

    def position(self) -> int:
        return self.at

    def seek(self, position: int) -> None:
        self.at = position


class Worked:
    """What bolts have in common: `desk` says where they are broken just now."""

    desk: Any = None

    def prepare(self, context: TopologyContext) -> None:
        self.desk.opened(context)


class Pass(Worked, Bolt):
    outputs = FIELDS

    def execute(self, tup: Tuple) -> None:
        self.emit((tup[0], 0, tup[2]))


class Split(Worked, Bolt):
    """Two for one, with other keys."""

    outputs = FIELDS

    def execute(self, tup: Tuple) -> None:
        self.emit((tup[0], 0, tup[2]))
        self.emit((tup[0], 0, (tup[2] + 3) % KEYS))


class Filter(Worked, Bolt):
    """Drops every third row."""

    outputs = FIELDS

    def execute(self, tup: Tuple) -> None:
        if tup[0] % 3:
            self.emit((tup[0], 0, tup[2]))


class Flaky(Worked, Bolt):
    """Fails some rows the first time each task sees them, half of them after it has emitted."""

    outputs = FIELDS

    def prepare(self, context: TopologyContext) -> None:
        super().prepare(context)
        self.seen: set[int] = set()

    def execute(self, tup: Tuple) -> None:
        bad = tup[0] % 5 == 2 and tup[0] not in self.seen
        self.seen.add(tup[0])
        if bad and tup[0] % 2:
            raise Trouble("before")
        self.emit((tup[0], 0, tup[2]))
        if bad:
            raise Trouble("after")


class Poison(Worked, Bolt):
    """Never takes every 11th row: they must end as dead letters."""

    outputs = FIELDS

    def execute(self, tup: Tuple) -> None:
        if tup[0] % 11 == 4:
            raise Trouble("never")
        self.emit((tup[0], 0, tup[2]))


class Hold(Worked, ManualBolt):
    """Holds three, then emits each anchored to all of them; a tick lets go of what is left."""

    outputs = FIELDS

    def prepare(self, context: TopologyContext) -> None:
        super().prepare(context)
        self.held: list[Tuple] = []

    def execute(self, tup: Tuple) -> None:
        self.held.append(tup)
        if len(self.held) == 3:
            self.release()

    def tick(self) -> None:
        self.release()

    def release(self) -> None:
        held, self.held = self.held, []
        for tup in held:
            self.emit((tup[0], 0, tup[2]), anchors=held)
        for tup in held:
            self.ack(tup)


class Late(Worked, ManualBolt):
    """Emits at once, acks at the tick; fails one in 13 of its first executions; keeps trees alive."""

    outputs = FIELDS

    def prepare(self, context: TopologyContext) -> None:
        super().prepare(context)
        self.held: list[Tuple] = []
        self.seen: set[int] = set()

    def execute(self, tup: Tuple) -> None:
        self.emit((tup[0], 0, tup[2]), anchors=tup)
        self.held.append(tup)

    def tick(self) -> None:
        held, self.held = self.held, []
        for tup in held:
            if tup[0] % 13 == 5 and tup[0] not in self.seen:
                self.seen.add(tup[0])
                self.fail(tup)
            elif tup[0] % 7 == 1 and tup[0] not in self.seen:
                self.seen.add(tup[0])
                self.reset_timeout(tup)
                self.held.append(tup)
            else:
                self.ack(tup)


class Batch(Worked, Bolt):
    outputs = FIELDS

    def execute_batch(self, tups: Sequence[Tuple]) -> None:
        for tup in tups:
            self.emit((tup[0], 0, tup[2]))


class Direct(Worked, Bolt):
    """Names the task of `consumer` by key."""

    outputs = {"to": DirectStream(*FIELDS), "default": FIELDS}

    def __init__(self, consumer: str) -> None:
        self.consumer = consumer

    def prepare(self, context: TopologyContext) -> None:
        super().prepare(context)
        self.tasks = context.tasks(self.consumer)

    def execute(self, tup: Tuple) -> None:
        self.emit_direct(self.tasks[tup[2] % len(self.tasks)], (tup[0], 0, tup[2]), stream="to")
        self.emit((tup[0], 0, tup[2]))


class Sink(Worked, Bolt):
    def execute(self, tup: Tuple) -> None:
        pass


class ManualSink(Worked, ManualBolt):
    def execute(self, tup: Tuple) -> None:
        self.ack(tup)


class Letters(Worked, Bolt):
    """Where dead letters go."""

    def execute(self, tup: Tuple) -> None:
        self.desk.letter_arrived(tup["message_id"])


def emits(component: object) -> int:
    """How many tuples it emits on a stream for each that it executes, or each row, at most."""
    return 2 if isinstance(component, Split) else 1


class Load:
    """A topology and what must come of it. `rows` by spout component; `ticks` by component."""

    def __init__(self, name: str, options: Options, number: int) -> None:
        self.name = name
        self.rng = Random(f"topology {options.seed} {number}")
        self.options = options
        self.rows: dict[str, range] = {}
        self.reliable: set[str] = set()
        self.made: dict[str, object] = {}
        self.inputs: dict[str, list[tuple[str, str, str]]] = {}
        self.letters = ""
        self.bundle = f"the code of {name} in the world of seed {options.seed}".encode()
        self.topology = self._build(number)
        self.plan = msgspec.structs.replace(self.topology.plan, bundle=hashlib.sha256(self.bundle).hexdigest())
        self.tasks = self.topology.plan.tasks

    def _build(self, number: int) -> Topology:
        options, rng = self.options, self.rng
        config: dict[str, object] = {
            "topology.workers": options.workers,
            "topology.message.timeout.secs": options.timeout_s,
            "topology.executor.receive.buffer.size": options.credit,
            "topology.max.spout.pending": options.pending,
            "topology.spout.wait.ms": options.wait_ms,
        }
        if options.exclusive:
            config["topology.exclusive"] = True
        if options.ackers >= 0:
            config["topology.acker.executors"] = options.ackers
        builder = TopologyBuilder(self.name, config)
        for index in range(options.spouts):
            self._add_spout(builder, index, number)
        before = list(self.rows)
        for index in range(options.bolts):
            before.append(self._add_bolt(builder, f"b{index}", before, last=index == options.bolts - 1))
        if options.edition >= 2 and Random(f"direct {options.seed} {number}").random() < 0.25:
            self._add_direct(builder, before[-2 % len(before)])
        if self.reliable and rng.random() < 0.6:
            self.letters = "letters"
            declarer = builder.set_bolt("letters", Letters())
            for spout in sorted(self.reliable):
                declarer.shuffle_grouping(spout, stream="dead_letters")
        return builder.create_topology()

    def _add_spout(self, builder: TopologyBuilder, index: int, number: int) -> None:
        options, rng = self.options, self.rng
        name = f"s{index}"
        total = max(1, options.roots // (options.spouts * options.topologies))
        first = (number * 10 + index) * SPOUT_ROWS
        kind: type[Rows] = rng.choice((OwnReplay, Replayed, Sought, Sought))
        spout = kind(first, total, 1.0 / (options.rate / options.spouts))
        assert isinstance(spout, Spout)
        parallelism = rng.choice((1, 1, 2, 3))
        builder.set_spout(name, spout, parallelism, tasks=parallelism * rng.choice((1, 1, 2)))
        self.rows[name] = range(first, first + total)
        self.made[name] = spout
        if isinstance(spout, ReliableSpout):
            self.reliable.add(name)

    def _add_bolt(self, builder: TopologyBuilder, name: str, before: list[str], *, last: bool) -> str:
        rng = self.rng
        kinds: list[type] = [Pass, Pass, Split, Filter, Flaky, Hold, Late, Batch]
        if len(self.reliable) == len(self.rows):
            kinds.append(Poison)
        kind = rng.choice((Sink, Sink, ManualSink)) if last else rng.choice(kinds)
        sources = sorted(rng.sample(before, min(len(before), rng.choice((1, 1, 2)))))
        if last and before[-1] not in sources:
            sources.append(before[-1])
        bolt = kind()
        ticks = kind in (Hold, Late)
        parallelism = rng.choice((1, 2, 2, 3, 4))
        declarer = builder.set_bolt(
            name,
            bolt,
            parallelism,
            tasks=parallelism * rng.choice((1, 1, 2)),
            config={"topology.tick.tuple.freq.secs": rng.choice((0.05, 0.15))} if ticks else None,
        )
        self.made[name] = bolt
        self.inputs[name] = []
        for source in sources:
            grouping = rng.choice(GROUPINGS)
            self.inputs[name].append((source, "default", grouping))
            if grouping in ("fields", "partial_key"):
                getattr(declarer, f"{grouping}_grouping")(source, ["key"])
            elif grouping == "custom":
                declarer.custom_grouping(source, ByKey())
            else:
                getattr(declarer, f"{grouping}_grouping")(source)
        return name

    def _add_direct(self, builder: TopologyBuilder, source: str) -> None:
        """Two more: one that names the tasks of the other, which also gets a stream of the plain kind from it."""
        sender, receiver = Direct("named"), Sink()
        builder.set_bolt("naming", sender, 2).shuffle_grouping(source)
        builder.set_bolt("named", receiver, 3).direct_grouping("naming", stream="to").shuffle_grouping("naming")
        self.made |= {"naming": sender, "named": receiver}
        self.inputs["naming"] = [(source, "default", "shuffle")]
        self.inputs["named"] = [("naming", "to", "direct"), ("naming", "default", "shuffle")]

    def all_rows(self) -> list[int]:
        return [row for rows in self.rows.values() for row in rows]

    def spout_of(self, row: int) -> str:
        return next(name for name, rows in self.rows.items() if row in rows)

    def must_reach(self, row: int) -> set[str]:
        """The components that have to execute this row, if it is ever acked."""
        reached = {self.spout_of(row)}
        grown = True
        while grown:
            grown = False
            for name, inputs in self.inputs.items():
                fed = any(source in reached and self._passes(source, row) for source, *_ in inputs)
                if name not in reached and fed:
                    reached.add(name)
                    grown = True
        return reached - set(self.rows)

    def most(self, name: str) -> int:
        """How often this component executes a row for one emit of it at most."""
        if name in self.rows:
            return 1
        return sum(
            self.most(source) * emits(self.made[source]) * (len(self.tasks[name]) if grouping == "all" else 1)
            for source, _, grouping in self.inputs[name]
        )

    def _passes(self, name: str, row: int) -> bool:
        made = self.made[name]
        if isinstance(made, (Sink, ManualSink)):
            return False
        return not (isinstance(made, Filter) and row % 3 == 0)
