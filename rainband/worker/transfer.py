"""Between the outboxes of this worker and the frames of its links, both ways. One message per stream and flush.

A DATA message is a list of runs [stream number, credited, target tasks, source tasks, roots, edges, many, rows]; task
columns are packed int32, or one int when all are the same; roots and edges are packed int64, b'' when untracked.
An ACKS message is the five packed int64 columns reports, fails, inits, verdicts, touches; CREDIT is (task, upto) pairs.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import msgspec
from mypy_extensions import i64

from rainband.acker.ledger import Group, Tree
from rainband.errors import ValueRefused, WireError
from rainband.messaging.frames import ACKS, CREDIT, DATA
from rainband.messaging.link import MESSAGE_BYTES_MAX, Link
from rainband.messaging.values import decode_rows, encode_rows
from rainband.topology.tuples import Source, Tuple
from rainband.worker.books import Books
from rainband.worker.routes import Agenda, CreditLine, Outbox, Run, Runner, Target

ROWS_MAX = 4096
VALUE_FRAMING_BYTES = 8  # what encode_rows puts around one long str or bytes
TUPLE_BYTES_MAX = MESSAGE_BYTES_MAX - (1 << 20)

OnRefused = Callable[[Run, int, ValueRefused], None]

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder().decode


def pack_tasks(tasks: list[int]) -> object:
    first = tasks[0]
    if tasks.count(first) == len(tasks):
        return first
    return array("i", tasks).tobytes()


def unpack_tasks(packed: object, count: int) -> list[int]:
    if isinstance(packed, int):
        return [packed] * count
    return unpack(packed, "i", count)


def unpack(packed: object, code: str, count: int) -> list[int]:
    if not isinstance(packed, bytes):
        raise WireError("a column is not bytes")
    column = array(code)
    if len(packed) != count * column.itemsize:
        raise WireError(f"a column of {len(packed)} bytes does not hold {count} ids")
    column.frombytes(packed)
    return column.tolist()


def unpack_ids(packed: object, multiple: int) -> list[int]:
    if not isinstance(packed, bytes) or len(packed) % (8 * multiple):
        raise WireError("a column of ids has the wrong length")
    return unpack(packed, "q", len(packed) // 8)


class Inbound:
    """Decodes messages of other workers into the inboxes of this one."""

    def __init__(
        self,
        agenda: Agenda,
        books: Books,
        runners: dict[int, Runner],
        targets: dict[int, Target],
        window: int,
        source_of: Callable[[int, int], Source],
        width_of: Callable[[int], int],
        pickle_types: frozenset[str],
    ) -> None:
        self.agenda = agenda
        self.books = books
        self.runners = runners
        self.targets = targets
        self.window = window
        self.source_of = source_of
        self.width_of = width_of
        self.pickle_types = pickle_types
        self.sources: dict[int, Source] = {}
        self.lines: dict[str, dict[int, CreditLine]] = {}
        self.address_of: dict[int, str] = {}
        self.received: i64 = 0
        self.refused: i64 = 0

    def data(self, sender: str, payload: bytes) -> None:
        """Runs of tuples. Raises WireError when the bytes are not what a worker of this version sends."""
        try:
            runs: Any = decode(payload)
        except (msgspec.DecodeError, ValueError) as error:
            raise WireError(f"bad tuples: {error}") from None
        if not isinstance(runs, list):
            raise WireError("bad tuples: not a list of runs")
        for run in runs:
            if not isinstance(run, list) or len(run) != 8:
                raise WireError("bad tuples: a run has eight parts")
            self.run(sender, run)

    def source(self, number: int, task: int) -> Source:
        key = number << 32 | task
        source = self.sources.get(key)
        if source is None:
            source = self.source_of(number, task)
            self.sources[key] = source
        return source

    def run(self, sender: str, parts: list[Any]) -> None:
        """One run of tuples of one stream; refused as a whole when a source task runs elsewhere by now."""
        number: int = parts[0]
        rows: list[tuple[object, ...]] = decode_rows(parts[7], self.pickle_types)
        count = len(rows)
        if count == 0 or len(rows[0]) != self.width_of(number):
            raise WireError(f"bad tuples: rows do not fit stream number {number}")
        targets = unpack_tasks(parts[2], count)
        sources = unpack_tasks(parts[3], count)
        roots: list[int] = []
        edges: list[int] = []
        if parts[4]:
            roots = unpack(parts[4], "q", count)
            edges = unpack(parts[5], "q", count)
        many: dict[int, list[int]] = parts[6] or {}
        for task in set(sources):
            if self.address_of.get(task) != sender:
                self.refuse(roots, many)
                if parts[1]:
                    for target in targets:
                        self.give_back(sender, target)
                return
        self.received += count
        anchors = self.anchors(roots, edges, many) if roots else None
        self.deliver(sender, number, bool(parts[1]), rows, targets, sources, anchors)

    def anchors(self, roots: list[int], edges: list[int], many: dict[int, list[int]]) -> list[Tree | None]:
        """One proxy tree per root of the run; each edge enters the book of its root as it arrives."""
        anchors: list[Tree | None] = []
        seen: dict[int, Tree] = {}
        last_root = 0
        tree: Tree | None = None
        for position in range(len(roots)):
            root = roots[position]
            if root != last_root:
                last_root = root
                tree = None
                if root != 0:
                    tree = seen.get(root)
                    if tree is None:
                        tree = Tree(root, 0, False, None, 0.0)
                        seen[root] = tree
            anchor = tree
            if anchor is not None:
                anchor.count += 1
                anchor.edges ^= edges[position]
                if many and position in many:
                    anchor = self.group(anchor, many[position], edges[position], seen)
            anchors.append(anchor)
        return anchors

    def deliver(
        self,
        sender: str,
        number: int,
        credited: bool,
        rows: list[tuple[object, ...]],
        targets: list[int],
        sources: list[int],
        anchors: list[Tree | None] | None,
    ) -> None:
        """Into the inboxes of the tasks that are here; what is for others travels on."""
        lines = self.lines.setdefault(sender, {})
        last_task = -1
        runner: Runner | None = None
        line: CreditLine | None = None
        last_source = -1
        source: Source | None = None
        for position in range(len(rows)):
            if sources[position] != last_source:
                last_source = sources[position]
                source = self.source(number, last_source)
            assert source is not None
            anchor = anchors[position] if anchors is not None else None
            task = targets[position]
            if task != last_task:
                last_task = task
                runner = self.runners.get(task)
                if runner is not None:
                    line = self.line(sender, task, lines)
                    if credited and not line.touched:
                        line.touched = True
                        runner.touched.append(line)
                    if not runner.ready:
                        self.agenda.mark(runner)
            if runner is None:
                self.astray(task, rows[position], source, anchor)
                if credited:
                    self.give_back(sender, task)
                continue
            runner.inbox.append(Tuple(rows[position], source, anchor))
            if credited and line is not None:
                line.delivered += 1

    def line(self, sender: str, task: int, lines: dict[int, CreditLine]) -> CreditLine:
        line = lines.get(task)
        if line is None:
            line = CreditLine(sender, task, self.window)
            lines[task] = line
        return line

    def group(self, tree: Tree, others: list[int], edge: int, seen: dict[int, Tree]) -> Tree:
        """A tuple of several roots: its edge enters the book of each of them."""
        trees = [tree]
        for root in others:
            other = seen.get(root)
            if other is None:
                other = Tree(root, 0, False, None, 0.0)
                seen[root] = other
            other.edges ^= edge
            trees.append(other)
        group = Group(trees)
        group.count += 1
        tree.count -= 1
        return group

    def astray(self, task: int, row: tuple[object, ...], source: Source, tree: Tree | None) -> None:
        """A tuple for a task that is not here (it moved): pass it on; it waits there for room."""
        target = self.targets.get(task)
        if target is None:
            self.refused += 1
            if tree is not None:
                self.agenda.fail(tree)
            return
        target.deliver(row, source, tree, True)
        if tree is not None:
            self.agenda.release(tree)

    def refuse(self, roots: list[int], many: dict[int, list[int]]) -> None:
        """Tuples of a task that runs elsewhere by now: not executed; their roots fail at once."""
        self.refused += max(1, len(roots))
        for root in roots:
            if root:
                self.books.fail_root(root)
        for others in many.values():
            for root in others:
                self.books.fail_root(root)

    def give_back(self, sender: str, task: int) -> None:
        """A tuple that takes no room here: its sender, which counts it as sent, must not wait for any."""
        line = self.line(sender, task, self.lines.setdefault(sender, {}))
        line.delivered += 1
        line.granted += 1
        if line not in self.agenda.grants:
            self.agenda.grants.append(line)

    def acks(self, payload: bytes) -> None:
        try:
            columns: Any = decode(payload)
        except (msgspec.DecodeError, ValueError) as error:
            raise WireError(f"bad acks: {error}") from None
        if not isinstance(columns, list) or len(columns) != 5:
            raise WireError("bad acks: five columns")
        books = self.books
        if columns[2]:
            books.receive_inits(unpack_ids(columns[2], 3))
        if columns[0]:
            books.receive_reports(unpack_ids(columns[0], 2))
        for root in unpack_ids(columns[1], 1):
            books.fail_root(root)
        if columns[3]:
            books.receive_verdicts(unpack_ids(columns[3], 2))
        for root in unpack_ids(columns[4], 1):
            books.touch_root(root)

    def credit(self, payload: bytes, outbox: Outbox | None) -> None:
        """Grants of the worker behind `outbox`: for tasks that are there, or were and may come back."""
        pairs = unpack_ids(payload, 2)
        for position in range(0, len(pairs), 2):
            task, upto = pairs[position], pairs[position + 1]
            target = self.targets.get(task)
            if target is None or outbox is None:
                continue
            if target.outbox is outbox:
                target.grant(upto)
            elif task in outbox.counts:
                sent, granted = outbox.counts[task]
                outbox.counts[task] = (sent, max(granted, upto))

    def forget(self, sender: str) -> None:
        """The worker at `sender` was replaced: its credit begins anew."""
        self.lines.pop(sender, None)
        for runner in self.runners.values():
            runner.touched = [line for line in runner.touched if line.sender != sender]


class Outbound:
    """Encodes the outboxes into messages of the links."""

    def __init__(self, books: Books, pickle_types: frozenset[str], bytes_max: int, on_refused: OnRefused) -> None:
        self.books = books
        self.pickle_types = pickle_types
        self.bytes_max = bytes_max
        self.on_refused = on_refused
        self.sent: i64 = 0

    def flush(self, outbox: Outbox, link: Link) -> None:
        """Move everything in `outbox` into `link`."""
        outbox.dirty = False
        if outbox.grants:
            link.send(CREDIT, array("q", outbox.grants).tobytes(), None)
            outbox.grants = []
        if outbox.reports or outbox.fails or outbox.inits or outbox.verdicts or outbox.touches:
            self.flush_acks(outbox, link)
        if outbox.touched:
            touched = outbox.touched
            outbox.touched = []
            for run in touched:
                self.flush_run(run, link)
                run.clear()

    def flush_acks(self, outbox: Outbox, link: Link) -> None:
        columns = [
            array("q", outbox.reports).tobytes(),
            array("q", outbox.fails).tobytes(),
            array("q", outbox.inits).tobytes(),
            array("q", outbox.verdicts).tobytes(),
            array("q", outbox.touches).tobytes(),
        ]
        link.send(ACKS, encode(columns), None)
        outbox.reports = []
        outbox.fails = []
        outbox.inits = []
        outbox.verdicts = []
        outbox.touches = []

    def flush_run(self, run: Run, link: Link) -> None:
        total = len(run.rows)
        self.sent += total
        if total <= ROWS_MAX:
            self.send_part(run, 0, total, link)
            return
        for start in range(0, total, ROWS_MAX):
            self.send_part(run, start, min(start + ROWS_MAX, total), link)

    def send_part(self, run: Run, start: int, end: int, link: Link) -> None:
        rows = run.rows[start:end]
        try:
            data = encode_rows(rows, self.pickle_types)
            if len(data) > self.bytes_max:
                self.check_size(rows, len(data))
        except ValueRefused as error:
            self.split_refused(run, start, end, link, error)
            return
        roots = b""
        edges = b""
        if run.tracked:
            roots = array("q", run.roots[start:end]).tobytes()
            edges = array("q", run.edges[start:end]).tobytes()
        many: dict[int, list[int]] | None = None
        if run.many:
            many = {key - start: value for key, value in run.many.items() if start <= key < end}
        parts = [
            run.number,
            run.credited,
            pack_tasks(run.targets[start:end]),
            pack_tasks(run.sources[start:end]),
            roots,
            edges,
            many,
            data,
        ]
        link.send(DATA, encode([parts]), (roots, many) if roots else None)

    def check_size(self, rows: list[tuple[object, ...]], size: int) -> None:
        """Rows that encode to `size` bytes, more than one value may. Raises ValueRefused, also to have them split."""
        if len(rows) > 1:
            raise ValueRefused("too much for one message")
        for index, value in enumerate(rows[0]):
            length = len(encode_rows([(value,)], self.pickle_types)) - VALUE_FRAMING_BYTES
            if length > self.bytes_max:
                raise ValueRefused(
                    f"a value of {length} bytes is over topology.max.value.bytes = {self.bytes_max}",
                    "Send it in pieces, or raise the limit",
                    index,
                )
        if size > TUPLE_BYTES_MAX:
            raise ValueRefused(f"a tuple of {size} bytes is over {TUPLE_BYTES_MAX}", "Send it in pieces")

    def split_refused(self, run: Run, start: int, end: int, link: Link, error: ValueRefused) -> None:
        """A value that cannot travel was only seen now: fail that tuple's roots, send the others."""
        if end - start == 1:
            self.on_refused(run, start, error)
            return
        middle = (start + end) // 2
        self.send_part(run, start, middle, link)
        self.send_part(run, middle, end, link)


def roots_of(kept: object) -> list[int]:
    """The roots that `flush_run` gave a link to keep with a message."""
    if not isinstance(kept, tuple):
        return []
    roots = [root for root in unpack_ids(kept[0], 1) if root]
    if kept[1]:
        for others in kept[1].values():
            roots.extend(others)
    return roots
