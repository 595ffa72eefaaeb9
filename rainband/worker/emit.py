"""`emit`: from the user's call to the inboxes and outboxes of the receiving tasks.

One emitter belongs to one task and is bound onto the user's instance when the task is prepared. It checks the values,
asks each edge's chooser, and delivers. It never blocks; what has no room waits in the target's overflow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Union

from mypy_extensions import i64

from rainband.acker.ledger import Group, Pending, Tree
from rainband.errors import ArgumentForgotten, EmitRefused, ValueRefused
from rainband.groupings.choosers import Chooser
from rainband.messaging.values import PLAIN_TYPES, check_value
from rainband.topology.tuples import CLOSED, Source, Tuple
from rainband.worker.routes import Agenda, Edge, Gate, Target

OUTSIDE: Final = "emit belongs inside a callback of the runtime, and this is outside one"
OUTSIDE_FIX: Final = (
    "Emit in next_tuple, execute, tick, ack or fail, before the call returns; not in __init__, open, prepare, close or "
    "cleanup, and not from a thread of your own"
)

FORGOTTEN: Final = object()

Anchors = Union[Iterable[object], Tuple, None]


def forgotten(component: str, name: str) -> ArgumentForgotten:
    """The error for an emit without its `message_id` or `anchors`."""
    if name == "anchors":
        fix = "Write anchors=tup for the tuples it came of, or anchors=() to leave it untracked on purpose"
    else:
        fix = "Write message_id=..., unique among those pending, or message_id=None to leave it untracked on purpose"
    return ArgumentForgotten(f"'{component}' emitted without {name}", fix)


def no_tuple(component: str, given: object) -> EmitRefused:
    told = f"'{component}' called ack, fail or reset_timeout of {given!r:.80}, no tuple"
    return EmitRefused(told, "Pass a received tuple")


class Route:
    """One edge as one emitting task uses it: the edge is shared by the component's tasks, the chooser is its own."""

    def __init__(self, edge: Edge, chooser: Chooser) -> None:
        self.edge = edge
        self.chooser = chooser
        self.targets = edge.targets
        self.many = chooser.many
        self.credited = edge.credited


class Output:
    """One output stream of one task."""

    def __init__(self, source: Source, direct: bool, routes: list[Route]) -> None:
        self.source = source
        self.direct = direct
        self.width: i64 = len(source.fields)
        self.routes = routes
        self.single: Route | None = None
        if len(routes) == 1 and not routes[0].many:
            self.single = routes[0]
        self.emitted: i64 = 0
        self.copies: i64 = 0  # counted only where a row may have more or fewer than one

    @property
    def transferred(self) -> int:
        """Tuples handed on, one for each receiving task."""
        return int(self.emitted if self.single is not None else self.copies)


class Emitter:
    """What bolts and spouts share: output streams, checks, routing. `active` only while a callback of its task runs."""

    def __init__(
        self,
        component: str,
        task: int,
        outputs: dict[str, Output],
        gate: Gate,
        agenda: Agenda,
        pickle_types: frozenset[str],
    ) -> None:
        self.component = component
        self.task = task
        self.outputs = outputs
        self.default: Output | None = outputs.get("default")
        self.gate = gate
        self.agenda = agenda
        self.pickle_types = pickle_types
        self.active = False

    @property
    def emitted(self) -> int:
        return sum([int(output.emitted) for output in self.outputs.values()])

    @property
    def transferred(self) -> int:
        """Tuples handed on, one for each receiving task."""
        return sum([int(output.transferred) for output in self.outputs.values()])

    def output(self, stream: str) -> Output:
        found = self.outputs.get(stream)
        if found is None:
            raise EmitRefused(
                f"'{self.component}' declares no stream '{stream}', only {sorted(self.outputs)}",
                "Add it to the class's outputs, or emit to one of those",
            )
        return found

    def plain_output(self, stream: str) -> Output:
        found = self.default if stream == "default" else None
        if found is None:
            found = self.output(stream)
        if found.direct:
            raise EmitRefused(f"stream '{stream}' of '{self.component}' is direct", "Use emit_direct(task, values)")
        return found

    def row(self, values: Sequence[object], out: Output) -> tuple[object, ...]:
        """The values as a tuple of the right width and of types that travel."""
        if type(values) is list or type(values) is tuple:
            row = tuple(values)
        else:
            row = self.unusual(values, out)
        if len(row) != out.width:
            raise self.wrong_width(row, out)
        for value in row:
            kind = type(value)
            if kind is not str and kind is not int and kind not in PLAIN_TYPES:
                self.check(row, out)
                break
        return row

    def unusual(self, values: object, out: Output) -> tuple[object, ...]:
        if isinstance(values, (str, bytes, bytearray, memoryview)) or not isinstance(values, Sequence):
            shown = repr(values)[:60]
            raise EmitRefused(
                f"'{self.component}' emitted {shown} on stream '{out.source.stream}', which is not a list of values",
                f"For one value, write [{shown}]" if isinstance(values, (str, bytes)) else "Emit a list or a tuple",
            )
        return tuple(values)

    def wrong_width(self, row: tuple[object, ...], out: Output) -> EmitRefused:
        fields = list(out.source.fields)
        return EmitRefused(
            f"'{self.component}' emitted {len(row)} values on stream '{out.source.stream}', whose fields are {fields}",
            f"Emit {len(fields)} value{'s' if len(fields) != 1 else ''}",
        )

    def check(self, row: tuple[object, ...], out: Output) -> None:
        for field, value in zip(out.source.fields, row, strict=False):
            reason = check_value(value, self.pickle_types)
            if reason is not None:
                raise ValueRefused(
                    f"'{self.component}' emitted on stream '{out.source.stream}', field '{field}': {reason}",
                    "Emit plain values, or list the type under topology.pickle.types",
                )

    def route(self, out: Output, row: tuple[object, ...], anchor: Tree | None) -> tuple[int, ...]:
        """Send one checked row everywhere it should go; returns the receiving task ids."""
        single = out.single
        if single is not None:
            target = single.targets[single.chooser.choose(row)]
            target.deliver(row, out.source, anchor, single.credited)
            out.emitted += 1
            return target.ids
        picked = self.pick(out, row)
        self.hand_over(out, row, picked, anchor)
        return tuple([target.task for target, _ in picked])

    def pick(self, out: Output, row: tuple[object, ...]) -> list[tuple[Target, bool]]:
        """The targets of one row, each with whether its edge takes credit. Nothing is sent."""
        picked: list[tuple[Target, bool]] = []
        for route in out.routes:
            if route.many:
                for index in route.chooser.choose_many(row):
                    picked.append((route.targets[index], route.credited))
            else:
                picked.append((route.targets[route.chooser.choose(row)], route.credited))
        return picked

    def pick_direct(self, out: Output, task: object) -> list[tuple[Target, bool]]:
        """`task` as a target of a direct stream. Raises EmitRefused unless its component subscribed to it."""
        if not out.direct:
            raise EmitRefused(
                f"stream '{out.source.stream}' of '{self.component}' is not direct", "Declare it as DirectStream(...)"
            )
        if not isinstance(task, int):
            raise EmitRefused(
                f"'{self.component}' emitted to {task!r:.80}, which is no task id",
                "Choose one of context.tasks(component)",
            )
        for route in out.routes:
            for target in route.targets:
                if target.task == task:
                    return [(target, route.credited)]
        known = sorted(target.task for route in out.routes for target in route.targets)
        raise EmitRefused(
            f"task {task} does not listen to stream '{out.source.stream}' of '{self.component}'; listening: {known}",
            "Choose one of context.tasks(component)",
        )

    def hand_over(
        self, out: Output, row: tuple[object, ...], picked: list[tuple[Target, bool]], anchor: Tree | None
    ) -> None:
        for target, credited in picked:
            target.deliver(row, out.source, anchor, credited)
        out.emitted += 1
        out.copies += len(picked)

    def direct(self, task: object, stream: str, values: Sequence[object], anchor: Tree | None) -> tuple[int, ...]:
        """Send to `task` on a direct stream; nothing happens unless its component subscribes by direct grouping."""
        out = self.output(stream)
        picked = self.pick_direct(out, task)
        row = self.row(values, out)
        self.hand_over(out, row, picked, anchor)
        return picked[0][0].ids


class BoltEmitter(Emitter):
    """For `Bolt`: everything emitted while a tuple is executed is anchored to it."""

    def __init__(
        self,
        component: str,
        task: int,
        outputs: dict[str, Output],
        gate: Gate,
        agenda: Agenda,
        pickle_types: frozenset[str],
    ) -> None:
        Emitter.__init__(self, component, task, outputs, gate, agenda, pickle_types)
        self.anchor: Tree | None = None

    def emit(self, values: Sequence[object], *, stream: str = "default") -> tuple[int, ...]:
        if not self.active:
            raise EmitRefused(OUTSIDE, OUTSIDE_FIX)
        out = self.default
        if out is None or stream != "default" or out.direct:
            out = self.plain_output(stream)
        row = self.row(values, out)
        single = out.single
        if single is None:
            return self.route(out, row, self.anchor)
        target = single.targets[single.chooser.choose(row)]  # as `route` has it: a call less for each tuple
        target.deliver(row, out.source, self.anchor, single.credited)
        out.emitted += 1
        return target.ids

    def emit_many(self, rows: Iterable[Sequence[object]], *, stream: str = "default") -> int:
        """Emit each row, anchored as `emit` does; returns how many."""
        if not self.active:
            raise EmitRefused(OUTSIDE, OUTSIDE_FIX)
        out = self.plain_output(stream)
        checked = [self.row(values, out) for values in rows]
        anchor = self.anchor
        for row in checked:
            self.route(out, row, anchor)
        return len(checked)

    def emit_direct(self, task: object, values: Sequence[object], *, stream: str = "default") -> tuple[int, ...]:
        if not self.active:
            raise EmitRefused(OUTSIDE, OUTSIDE_FIX)
        return self.direct(task, stream, values, self.anchor)


class ManualEmitter(Emitter):
    """For `ManualBolt`: anchors are named, tuples are acked and failed by the bolt itself, each once."""

    def __init__(
        self,
        component: str,
        task: int,
        outputs: dict[str, Output],
        gate: Gate,
        agenda: Agenda,
        pickle_types: frozenset[str],
    ) -> None:
        Emitter.__init__(self, component, task, outputs, gate, agenda, pickle_types)
        self.acked: i64 = 0
        self.failed: i64 = 0
        self.resets: i64 = 0
        self.second_acks: i64 = 0
        self.on_reset: Callable[[Tree], None] | None = None

    def anchor_of(self, anchors: object) -> Tree | None:
        if anchors is None:
            raise forgotten(self.component, "anchors")
        given: Iterable[object] = (anchors,)
        if isinstance(anchors, (list, tuple)) or (not isinstance(anchors, Tuple) and isinstance(anchors, Iterable)):
            given = anchors
        trees: list[Tree] = []
        for tup in given:
            if not isinstance(tup, Tuple):
                raise EmitRefused(
                    f"anchors of '{self.component}' hold {tup!r:.80}, which is no tuple", "Pass received tuples"
                )
            if not tup._open:
                raise EmitRefused(
                    f"'{self.component}' anchored to a tuple it had already acked or failed", "Emit before you ack"
                )
            tree = tup._anchor
            if tree is not None:
                assert isinstance(tree, Tree)
                if tree not in trees:
                    trees.append(tree)
        if not trees:
            return None
        return trees[0] if len(trees) == 1 else Group(trees)

    def emit(
        self, values: Sequence[object], *, anchors: Anchors = None, stream: str = "default"
    ) -> tuple[int, ...]:
        if not self.active:
            raise EmitRefused(OUTSIDE, OUTSIDE_FIX)
        out = self.plain_output(stream)
        row = self.row(values, out)
        anchor = self.anchor_of(anchors)
        return self.sent(self.hold(anchor), out, row)

    def hold(self, anchor: Tree | None) -> Tree | None:
        if anchor is not None:
            anchor.count += 1
        return anchor

    def sent(self, anchor: Tree | None, out: Output, row: tuple[object, ...]) -> tuple[int, ...]:
        try:
            return self.route(out, row, anchor)
        finally:
            if anchor is not None:
                self.agenda.release(anchor)

    def emit_many(
        self, rows: Iterable[Sequence[object]], *, anchors: Anchors = None, stream: str = "default"
    ) -> int:
        if not self.active:
            raise EmitRefused(OUTSIDE, OUTSIDE_FIX)
        out = self.plain_output(stream)
        checked = [self.row(values, out) for values in rows]
        anchor = self.hold(self.anchor_of(anchors))
        for row in checked:
            self.route(out, row, anchor)
        if anchor is not None:
            self.agenda.release(anchor)
        return len(checked)

    def emit_direct(
        self, task: object, values: Sequence[object], *, anchors: Anchors = None, stream: str = "default"
    ) -> tuple[int, ...]:
        if not self.active:
            raise EmitRefused(OUTSIDE, OUTSIDE_FIX)
        anchor = self.hold(self.anchor_of(anchors))
        try:
            return self.direct(task, stream, values, anchor)
        finally:
            if anchor is not None:
                self.agenda.release(anchor)

    def close(self, tup: object) -> object:
        """Take the anchor of a tuple that is acked or failed: CLOSED if it was so before. EmitRefused for no tuple."""
        if not isinstance(tup, Tuple):
            raise no_tuple(self.component, tup)
        anchor = tup._anchor
        if anchor is CLOSED:
            self.second_acks += 1
        tup._anchor = CLOSED
        return anchor

    def ack(self, tup: object) -> None:
        """The tuple is processed. A second ack or fail of it is ignored and counted."""
        tree = self.close(tup)
        if tree is not CLOSED:
            self.acked += 1
            if tree is not None:
                assert isinstance(tree, Tree)
                self.agenda.release(tree)

    def fail(self, tup: object) -> None:
        """Fail every root the tuple belongs to, at once."""
        self.fail_with(tup, f"failed by '{self.component}' task {self.task}")

    def fail_with(self, tup: object, why: str) -> None:
        """As `fail`, and `why` is told to the spouts of its roots."""
        tree = self.close(tup)
        if tree is not CLOSED:
            self.failed += 1
            if tree is not None:
                assert isinstance(tree, Tree)
                self.agenda.fail(tree, why)
                self.agenda.release(tree)

    def reset_timeout(self, tup: object) -> None:
        """Start the message timeout of the tuple's roots anew; nothing once it is acked or failed."""
        if not isinstance(tup, Tuple):
            raise no_tuple(self.component, tup)
        tree = tup._anchor
        if tree is None or tree is CLOSED or self.on_reset is None:
            return
        self.resets += 1
        assert isinstance(tree, Tree)
        leaves: list[Tree] = tree.leaves() if isinstance(tree, Group) else [tree]
        for leaf in leaves:
            self.on_reset(leaf)


class SpoutEmitter(Emitter):
    """For spouts: each tracked emit begins a tree in this task's book."""

    def __init__(
        self,
        component: str,
        task: int,
        outputs: dict[str, Output],
        gate: Gate,
        agenda: Agenda,
        pickle_types: frozenset[str],
        pending: Pending,
    ) -> None:
        Emitter.__init__(self, component, task, outputs, gate, agenda, pickle_types)
        self.pending = pending
        self.acking = True
        self.home = True
        self.begun: i64 = 0
        self.tracked: i64 = 0
        self.acked_at_once: list[object] = []

    def emit(
        self, values: Sequence[object], *, message_id: object = FORGOTTEN, stream: str = "default"
    ) -> tuple[int, ...]:
        if not self.active:
            raise EmitRefused(OUTSIDE, OUTSIDE_FIX)
        if message_id is FORGOTTEN:
            raise forgotten(self.component, "message_id")
        out = self.plain_output(stream)
        row = self.row(values, out)
        tree = self.begin(message_id)
        if tree is None:
            return self.route(out, row, None)
        try:
            ids = self.route(out, row, tree)
        except BaseException:
            self.forget(tree)
            raise
        self.agenda.release(tree)
        return ids

    def emit_many(
        self, rows: Iterable[Sequence[object]], *, message_ids: Iterable[object], stream: str = "default"
    ) -> int:
        """Emit each row under the message id at the same place of `message_ids`; returns how many."""
        if not self.active:
            raise EmitRefused(OUTSIDE, OUTSIDE_FIX)
        out = self.plain_output(stream)
        checked = [self.row(values, out) for values in rows]
        names = list(message_ids)
        if len(names) != len(checked):
            raise EmitRefused(f"{len(checked)} rows but {len(names)} message ids", "Give one message id for each row")
        for position in range(len(checked)):
            tree = self.begin(names[position])
            try:
                self.route(out, checked[position], tree)
            except BaseException:
                if tree is not None:
                    self.forget(tree)
                raise
            if tree is not None:
                self.agenda.release(tree)
        return len(checked)

    def emit_direct(
        self, task: object, values: Sequence[object], *, message_id: object = FORGOTTEN, stream: str = "default"
    ) -> tuple[int, ...]:
        if not self.active:
            raise EmitRefused(OUTSIDE, OUTSIDE_FIX)
        if message_id is FORGOTTEN:
            raise forgotten(self.component, "message_id")
        tree = self.begin(message_id)
        try:
            ids = self.direct(task, stream, values, tree)
        except BaseException:
            if tree is not None:
                self.forget(tree)
            raise
        if tree is not None:
            self.agenda.release(tree)
        return ids

    def forget(self, tree: Tree) -> None:
        """The emit did not happen after all."""
        self.pending.remove(tree.root)
        self.tracked -= 1

    def begin(self, message_id: object) -> Tree | None:
        self.begun += 1
        if message_id is None:
            return None
        self.tracked += 1
        if not self.acking:
            self.acked_at_once.append(message_id)
            return None
        root = self.pending.new_root()
        tree = Tree(root, True, self.home, message_id, self.agenda.now)
        self.pending.add(tree)
        tree.count = 1
        return tree
