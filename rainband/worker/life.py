"""Calls the callbacks that frame a task's life: open, seek, prepare, activate, deactivate, close, cleanup.

A raise in `open` or `prepare` ends the worker; in all others it is recorded and life goes on. Positions of
ReliableSpouts are read from and written to the store from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from rainband.errors import ValueRefused
from rainband.messaging.portions import Turns
from rainband.messaging.values import decode_rows, encode_rows
from rainband.worker.side import SideSpoutTask
from rainband.worker.sides import Sides, side_of
from rainband.worker.tasks import OnError
from rainband.worker.wiring import LocalTask


class Positions(Protocol):
    """Where ReliableSpouts' positions are kept: see rainband.cluster.positions."""

    def get(self, component: str, task_index: int) -> bytes | None: ...

    def put_many(self, positions: dict[tuple[str, int], bytes]) -> None: ...


class Life:
    """`active` says whether the spouts run; `report` records what user code raises.

    `placed` is the placement number of each local task and `handed` the positions that came with the assignment;
    `reached` is where each ReliableSpout stands, for the next heartbeat in which it has a turn.
    """

    def __init__(
        self, sides: Sides, positions: Positions | None, pickle_types: frozenset[str], report: OnError
    ) -> None:
        self.sides = sides
        self.positions = positions
        self.pickle_types = pickle_types
        self.report = report
        self.active = False
        self.known: list[LocalTask] = []
        self.left: list[LocalTask] = []
        self.saved: dict[tuple[str, int], bytes] = {}
        self.placed: dict[int, int] = {}
        self.handed: dict[int, bytes] = {}
        self.reached: dict[int, bytes] = {}
        self.turns: Turns[int] = Turns()

    def start(self, tasks: Iterable[LocalTask]) -> bool:
        """Prepare the bolts, then open the spouts; false at the first raise."""
        return all(self.open(made) for made in sorted(tasks, key=lambda made: (made.spout is not None, made.task)))

    def open(self, made: LocalTask) -> bool:
        try:
            if made.spout is not None:
                self.sides.call(made, made.instance.open, made.context)
                self.seek(made)
                self.look(made)
            else:
                self.sides.call(made, made.instance.prepare, made.context)
        except BaseException as error:
            self.report(made.task, error, None)
            return False
        made.opened = True
        self.known.append(made)
        if made.tick_s is not None:
            made.tick_due = self.sides.agenda.now + made.tick_s
        if made.spout is not None and self.active:
            made.spout.active = True
        return True

    def look(self, made: LocalTask) -> None:
        """Learn where a spout beside the loop stands before it reads on."""
        if made.reliable is None or not made.reliable.beside or self.positions is None:
            return
        try:
            self.sides.call(made, made.reliable.look)
        except BaseException as error:
            self.report(made.task, error, None)

    def seek(self, made: LocalTask) -> None:
        """Go on where this placement of the task had come to; else where its last one had, as the assignment says."""
        seek = getattr(made.instance, "seek", None)
        if seek is None or made.reliable is None or self.positions is None:
            return
        stored = self.positions.get(made.component, made.context.task_index)
        handed = self.handed.get(made.task)
        if stored is not None:
            number, position = decode_rows(stored, self.pickle_types)[0]
            if number == self.placed.get(made.task) or handed is None:
                self.sides.call(made, seek, position)
                return
        if handed is not None:
            self.sides.call(made, seek, decode_rows(handed, self.pickle_types)[0][0])

    def set_active(self, active: bool) -> None:
        """Let the spouts run or pause them; their callbacks are told of the change."""
        for made in self.known:
            if made.spout is not None and made.opened and made.spout.active is not active:
                made.spout.active = active
                made.spout.idle_until = 0.0
                if active is not self.active:
                    self.tell(made, made.instance.activate if active else made.instance.deactivate)
        self.active = active

    def tell(self, made: LocalTask, function: Callable[[], object]) -> None:
        """Not waited for: a call of next_tuple that waits for its source may be under way."""
        self.sides.tell(made, function, lambda error: self.report(made.task, error, None))

    def close(self, made: LocalTask) -> None:
        """The last call of its instance, waited for."""
        if self.leave(made):
            try:
                self.sides.call(made, last_call(made))
            except BaseException as error:
                self.report(made.task, error, None)

    def move(self, made: LocalTask) -> None:
        """The same where the worker works on."""
        if self.leave(made):
            if isinstance(made.spout, SideSpoutTask):
                made.spout.leave()
            self.tell(made, last_call(made))
            self.left.append(made)

    def count_leaving(self) -> int:
        """Of the tasks that moved away, how many have a call under way: their last one may wait for the source."""
        self.left = [made for made in self.left if (side := side_of(made)) is not None and side.busy]
        return len(self.left)

    def leave(self, made: LocalTask) -> bool:
        """Whether it had begun."""
        opened, made.opened = made.opened, False
        if opened:
            self.known.remove(made)
            self.reached.pop(made.task, None)
            if made.spout is not None:
                made.spout.active = False
        return opened

    def save_positions(self, tasks: list[LocalTask]) -> None:
        """Store the lowest unfinished position of each ReliableSpout that has one, if it changed."""
        if self.positions is None:
            return
        changed: dict[tuple[str, int], bytes] = {}
        for made in tasks:
            reliable = made.reliable
            if reliable is None or reliable.position is None or not made.opened:
                continue
            if reliable.beside and not reliable.looked:
                continue
            try:
                unfinished, position = reliable.book.lowest()
                if not unfinished:
                    position = reliable.stands()
                data = encode_rows([(self.placed.get(made.task, 0), position)], self.pickle_types)
                self.reached[made.task] = encode_rows([(position,)], self.pickle_types)
            except BaseException as error:
                self.report(made.task, of_position(made.component, error), None)
                continue
            key = (made.component, made.context.task_index)
            if self.saved.get(key) != data:
                changed[key] = data
        if changed:
            self.positions.put_many(changed)
            self.saved.update(changed)


def last_call(made: LocalTask) -> Callable[[], object]:
    last: Callable[[], object] = made.instance.close if made.spout is not None else made.instance.cleanup
    return last


def of_position(component: str, error: BaseException) -> BaseException:
    """The error, naming what gave a value that does not travel."""
    if isinstance(error, ValueRefused):
        return ValueRefused(f"position() of '{component}': {error.reason}", error.fix)
    return error
