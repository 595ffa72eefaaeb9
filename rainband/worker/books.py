"""Who keeps which tree: settles what finished, sends reports to the right acker, gives spouts their verdicts.

The index in a root id is the ordinal of the spout task that emitted it. Its acker is that task's own worker, or, with
`topology.acker.executors` = n > 0, the acker task number ordinal mod n.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from mypy_extensions import i64

from rainband.acker.ledger import COUNTER_BITS, INCARNATION_BITS, Group, Ledger, Tree, Verdict
from rainband.worker.routes import Agenda, Outbox, Target
from rainband.worker.spouts import FAILED, LOST, TIMED_OUT, SpoutTask

INDEX_SHIFT: Final = COUNTER_BITS + INCARNATION_BITS


class Books:
    """The books of this worker: `spouts` by task, `ledgers` by acker task, and where every other acker is.

    `unplaced` is what is to be told to spouts and ackers that run nowhere just now.
    """

    def __init__(self, agenda: Agenda, spout_tasks: list[int], acker_tasks: list[int]) -> None:
        self.agenda = agenda
        self.spout_tasks = spout_tasks
        self.acker_tasks = acker_tasks
        self.targets: dict[int, Target] = {}
        self.spouts: dict[int, SpoutTask] = {}
        self.ledgers: dict[int, Ledger] = {}
        self.late_reports: i64 = 0
        self.clock_now = 0.0
        self.unplaced: list[Callable[[], None]] = []

    def keeper(self, root: i64) -> int:
        """The task whose worker keeps the book of `root`; 0 when the id is of no topology like ours."""
        index = root >> INDEX_SHIFT
        return self.keeper_of(int(index)) if index < len(self.spout_tasks) else 0

    def keeper_of(self, ordinal: int) -> int:
        """The task whose worker keeps the book of the spout task with this ordinal."""
        if self.acker_tasks:
            return self.acker_tasks[ordinal % len(self.acker_tasks)]
        return self.spout_tasks[ordinal]

    def spout_task(self, root: i64) -> int:
        index = root >> INDEX_SHIFT
        return self.spout_tasks[index] if index < len(self.spout_tasks) else 0

    def home_tree(self, root: i64) -> Tree | None:
        """The open tree of `root` if its whole book is kept in this worker."""
        spout = self.spouts.get(self.spout_task(root))
        tree = spout.emitter.pending.get(root) if spout is not None else None
        return tree if tree is not None and tree.home else None

    def outbox_of(self, task: int) -> Outbox | None:
        target = self.targets.get(task)
        return target.outbox if target is not None else None

    def settle(self) -> None:
        """Act on every tree whose count fell to zero or that failed since the last call."""
        agenda = self.agenda
        while agenda.settled or agenda.failed:
            if agenda.failed:
                failed = agenda.failed
                agenda.failed = []
                for tree in failed:
                    self.fail_tree(tree)
            settled = agenda.settled
            if settled:
                position = 0
                while position < len(settled):
                    tree = settled[position]
                    position += 1
                    if tree.count == 0 and not tree.failed:
                        self.settle_tree(tree)
                settled.clear()

    def settle_tree(self, tree: Tree) -> None:
        if tree.home:
            if tree.edges == 0:
                self.finish(tree, True)
        elif isinstance(tree, Group):
            for parent in tree.parents:
                self.agenda.release(parent)
            tree.parents = []
        elif tree.own:
            if not tree.announced:
                if tree.edges == 0:
                    self.finish(tree, True)
                else:
                    tree.announced = True
                    edges = tree.edges
                    tree.edges = 0
                    self.send_init(int(tree.root), int(edges), self.spout_task(tree.root))
        elif tree.edges != 0:
            edges = tree.edges
            tree.edges = 0
            self.report(tree.root, edges)

    def finish(self, tree: Tree, done: bool, reason: int = FAILED) -> None:
        """Verdict for a tree of one of this worker's spouts; the first one counts."""
        spout = self.spouts.get(self.spout_task(tree.root))
        if spout is not None:
            self.close(spout, tree, done, reason)

    def close(self, spout: SpoutTask, tree: Tree, done: bool, reason: int) -> None:
        if spout.emitter.pending.remove(tree.root) is not None:
            spout.settle(tree, done, reason, self.clock_now)

    def fail_tree(self, tree: Tree) -> None:
        if tree.own:
            self.finish(tree, False)
            if not tree.home and tree.announced:
                self.fail_root(tree.root)
        else:
            self.fail_root(tree.root)

    def report(self, root: i64, edges: i64) -> None:
        """Some edges of `root` were consumed and emitted in this worker; `edges` is the XOR of their ids."""
        task = self.keeper(root)
        spout = self.spouts.get(task)
        if spout is not None:
            self.reported(spout, root, edges)
            return
        outbox = self.outbox_of(task)
        if outbox is not None:
            outbox.reports.append(int(root))
            outbox.reports.append(int(edges))
            if not outbox.dirty:
                outbox.mark()
            return
        ledger = self.ledgers.get(task)
        if ledger is not None:
            self.tell(ledger.ack(int(root), int(edges)))
        elif task != 0:
            self.unplaced.append(partial(self.report, int(root), int(edges)))

    def place(self) -> None:
        """Tell what could not be told while the task it is for ran nowhere."""
        unplaced, self.unplaced = self.unplaced, []
        for tell in unplaced:
            tell()

    def reported(self, spout: SpoutTask, root: i64, edges: i64) -> None:
        tree = spout.emitter.pending.get(root)
        if tree is None:
            self.late_reports += 1
            return
        tree.edges ^= edges
        if tree.count == 0 and tree.edges == 0 and not tree.failed:
            self.close(spout, tree, True, FAILED)

    def send_init(self, root: int, edges: int, spout_task: int) -> None:
        task = self.keeper(root)
        ledger = self.ledgers.get(task)
        if ledger is not None:
            self.tell(ledger.init(root, edges, spout_task))
            return
        outbox = self.outbox_of(task)
        if outbox is not None:
            outbox.inits.extend((root, edges, spout_task))
            outbox.mark()
        elif task != 0:
            self.unplaced.append(partial(self.send_init, root, edges, spout_task))

    def fail_root(self, root: int, reason: int = FAILED) -> None:
        """Fail `root` wherever its book is."""
        task = self.keeper(root)
        spout = self.spouts.get(self.spout_task(root))
        if spout is not None:
            tree = spout.emitter.pending.get(root)
            if tree is None:
                self.late_reports += 1
            else:
                tree.failed = True
                self.finish(tree, False, reason)
            if task == spout.task:
                return
        ledger = self.ledgers.get(task)
        if ledger is not None:
            self.tell(ledger.fail(root))
            return
        outbox = self.outbox_of(task)
        if outbox is not None:
            outbox.fails.append(root)
            outbox.mark()
        elif task != 0:
            self.unplaced.append(partial(self.fail_root, root, reason))

    def tell(self, verdict: Verdict | None) -> None:
        """Give a separate acker's verdict to the spout task that emitted the root."""
        if verdict is None:
            return
        self.verdict(verdict.root, verdict.done)

    def verdict(self, root: int, done: bool) -> None:
        """For a spout that is here, or elsewhere by now."""
        task = self.spout_task(root)
        spout = self.spouts.get(task)
        if spout is None:
            outbox = self.outbox_of(task)
            if outbox is not None:
                outbox.verdicts.append(root)
                outbox.verdicts.append(1 if done else 0)
                outbox.mark()
            elif task != 0:
                self.unplaced.append(partial(self.verdict, root, done))
            return
        tree = spout.emitter.pending.get(root)
        if tree is None:
            self.late_reports += 1
            return
        tree.failed = not done
        self.finish(tree, done)

    def touch(self, tree: Tree) -> None:
        """Start the timeout of a tree's root anew, wherever its spout and its ledger are."""
        root = int(tree.root)
        self.touch_root(root)
        for box in dict.fromkeys((self.outbox_of(self.spout_task(root)), self.outbox_of(self.keeper(root)))):
            if box is not None:
                box.touches.append(root)
                box.mark()

    def touch_root(self, root: int) -> None:
        """The same for what is kept here."""
        spout = self.spouts.get(self.spout_task(root))
        if spout is not None:
            spout.emitter.pending.touch(root, self.clock_now)
        ledger = self.ledgers.get(self.keeper(root))
        if ledger is not None:
            ledger.touch(root)

    def receive_reports(self, values: list[int]) -> None:
        position: i64 = 0
        end: i64 = len(values)
        while position < end:
            self.report(values[position], values[position + 1])
            position += 2

    def receive_inits(self, values: list[int]) -> None:
        for position in range(0, len(values), 3):
            self.send_init(values[position], values[position + 1], values[position + 2])

    def receive_verdicts(self, values: list[int]) -> None:
        for position in range(0, len(values), 2):
            self.verdict(values[position], values[position + 1] != 0)

    def expire(self, timeout_s: float) -> int:
        """Fail every root older than `timeout_s`; returns how many."""
        count = 0
        for spout in self.spouts.values():
            for tree in spout.emitter.pending.expired(self.clock_now - timeout_s):
                tree.failed = True
                count += 1
                self.finish(tree, False, TIMED_OUT)
        return count

    def fail_spouts(self, tasks: frozenset[int]) -> int:
        """Fail all that is pending of the given spout tasks, in the books kept here; returns how many."""
        count = 0
        for task, spout in self.spouts.items():
            if task in tasks:
                for tree in spout.emitter.pending.trees():
                    tree.failed = True
                    count += 1
                    self.finish(tree, False, LOST)
        for ledger in self.ledgers.values():
            for verdict in ledger.fail_where(tasks):
                count += 1
                self.tell(verdict)
        return count

    @property
    def pending(self) -> int:
        return sum(len(spout.emitter.pending) for spout in self.spouts.values())
