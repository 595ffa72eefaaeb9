"""Between the outboxes of this worker and the frames of its links, both ways. One message per stream and flush.

A DATA message is one run [stream number, credited, targets, sources, roots, state, lengths, many, rows]. Targets are a
list of tasks, or one task for all; sources are [task, how many tuples, task, ...]. Successive tuples of one root are a
stretch with one edge, since they arrive together or not at all: `lengths` says how many tuples each has, empty when all
are 1; `many` maps a stretch to its further roots. The edges are those that EdgeIds draws from `state` on, one for each
root that is not 0. Untracked runs have no roots.
An ACKS message is the five lists reports, fails, inits, verdicts, touches, and why some of the roots failed; CREDIT is
[task, upto, task, ...].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

import msgspec
from mypy_extensions import i32, i64

from rainband.acker.ledger import Group, Tree
from rainband.errors import EmitRefused, ValueRefused, WireError
from rainband.messaging.frames import ACKS, CREDIT, DATA
from rainband.messaging.link import MESSAGE_BYTES_MAX, Link
from rainband.messaging.values import decode_rows, encode_rows
from rainband.topology.tuples import Source, Tuple
from rainband.worker.books import Books
from rainband.worker.routes import CYCLE_MAX, Agenda, CreditLine, Outbox, Run, Runner, Target, overrun

VALUE_FRAMING_BYTES: Final = 8  # what encode_rows puts around one long str or bytes
PROXIES_MASK: Final = 1023
TUPLE_BYTES_MAX: Final = MESSAGE_BYTES_MAX - (1 << 20)

OnRefused = Callable[[Run, int, ValueRefused], None]
OnOverrun = Callable[[int, EmitRefused], None]

Id = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Task = Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)]
Ids = list[Id]
Tasks = list[Task]
Data = tuple[Task, bool, Task | Tasks, Tasks, Ids, Id, Tasks, dict[Task, Ids], bytes]
Acks = tuple[Ids, Ids, Ids, Ids, Ids, dict[Id, str]]

encode: Final = msgspec.msgpack.Encoder().encode
decode_data: Final = msgspec.msgpack.Decoder(Data).decode
decode_acks: Final = msgspec.msgpack.Decoder(Acks).decode
decode_credit: Final = msgspec.msgpack.Decoder(Ids).decode


def pack_tasks(tasks: list[int]) -> object:
    first = tasks[0]
    return first if tasks.count(first) == len(tasks) else tasks


def check_spans(spans: list[int], count: int) -> None:
    total: i64 = 0
    for span in spans:
        if span < 1:
            raise WireError("a stretch without tuples")
        total += span
    if total != count:
        raise WireError(f"stretches that do not make {count} tuples")


def in_groups(ids: list[int], size: int) -> list[int]:
    if len(ids) % size:
        raise WireError(f"ids not in groups of {size}")
    return ids


class Said:
    """What a link keeps of a message about trees, until it is receipted."""

    def __init__(self, columns: Acks) -> None:
        self.columns = columns


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
        on_overrun: OnOverrun,
    ) -> None:
        self.on_overrun = on_overrun
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
        self.proxies: list[Tree] = [Tree(0)] * (PROXIES_MASK + 1)
        self.received: i64 = 0
        self.refused: i64 = 0

    def data(self, sender: str, payload: bytes) -> None:
        """A run of tuples. Raises WireError when the bytes are not what a worker of this version sends."""
        try:
            parts: Data = decode_data(payload)
        except (msgspec.DecodeError, ValueError) as error:
            raise WireError(f"bad tuples: {error}") from None
        self.run(sender, parts)

    def source(self, number: int, task: int) -> Source:
        key = number << 32 | task
        source = self.sources.get(key)
        if source is None:
            source = self.source_of(number, task)
            self.sources[key] = source
        return source

    def run(self, sender: str, parts: Data) -> None:
        """One run of tuples of one stream; refused as a whole when a source task runs elsewhere by now."""
        number, credited, targets, sources, roots, state, lengths, many, data = parts
        rows: list[tuple[object, ...]] = decode_rows(data, self.pickle_types)
        count = len(rows)
        if count == 0 or len(rows[0]) != self.width_of(number):
            raise WireError(f"bad tuples: rows do not fit stream number {number}")
        if isinstance(targets, int):
            targets = [targets] * count
        spans = sources[1::2]
        tasks = in_groups(sources, 2)[::2]
        check_spans(spans, count)
        if lengths:
            check_spans(lengths, count)
        elif roots:
            lengths = [1] * count
        if len(targets) != count or len(lengths) != len(roots):
            raise WireError("bad tuples: columns differ in length")
        for task in tasks:
            if self.address_of.get(task) != sender:
                self.refuse(count, roots, many)
                if credited:
                    for target in targets:
                        self.give_back(sender, target)
                return
        self.received += count
        anchors: list[Tree | None] = [None] * count
        if roots:
            anchors = self.anchors(roots, state, lengths, many)
        froms = [self.source(number, task) for task in tasks]
        self.deliver(sender, credited, rows, targets, froms, spans, anchors)

    def anchors(
        self, roots: list[int], state: int, lengths: list[int], many: dict[int, list[int]]
    ) -> list[Tree | None]:
        """The tree of each tuple: the root's own when its spout is here, else a proxy."""
        ids = self.agenda.ids.again(state)
        anchors: list[Tree | None] = []
        last: Tree | None = None
        last_root: i64 = 0
        for number in range(len(roots)):
            root: i64 = roots[number]
            length: i64 = lengths[number]
            tree: Tree | None = None
            if root != 0:
                tree = last if root == last_root else None
                if tree is None:
                    tree = self.tree(root)
                    last = tree
                    last_root = root
                edge = ids.next()
                tree.edges ^= edge
                if many and number in many:
                    tree = self.group(tree, many[number], edge)
                tree.count += i32(length)
            while length > 0:
                anchors.append(tree)
                length -= 1
        return anchors

    def tree(self, root: i64) -> Tree:
        """The root's own tree, or a proxy: the one in use if it is still known, so that its reports are folded."""
        if self.books.spouts:
            home = self.books.home_tree(root)
            if home is not None:
                return home
        place = root & PROXIES_MASK
        tree = self.proxies[place]
        if tree.root != root or tree.failed:
            tree = Tree(root)
            self.proxies[place] = tree
        return tree

    def group(self, tree: Tree, others: list[int], edge: i64) -> Tree:
        """For tuples of several roots: their edge enters the book of each."""
        trees = [tree]
        for root in others:
            other = self.tree(root)
            other.edges ^= edge
            trees.append(other)
        return Group(trees)

    def deliver(
        self,
        sender: str,
        credited: bool,
        rows: list[tuple[object, ...]],
        targets: list[int],
        sources: list[Source],
        spans: list[int],
        anchors: list[Tree | None],
    ) -> None:
        """Into the inboxes of the tasks that are here; what is for others travels on."""
        lines: dict[int, CreditLine] = self.lines.setdefault(sender, {}) if credited else {}
        last_task = -1
        line: CreditLine | None = None
        runner: Runner | None = None
        position: i64 = 0
        for number in range(len(sources)):
            source = sources[number]
            end: i64 = position + spans[number]
            while position < end:
                task = targets[position]
                if task != last_task:
                    last_task = task
                    line = lines.get(task)
                    if line is None or not line.touched:
                        line = self.door(lines, sender, task, credited)
                    runner = line.runner
                    if runner is not None and not runner.ready:
                        self.agenda.mark(runner)
                if runner is None:
                    self.astray(task, rows[position], source, anchors[position])
                    if credited:
                        self.give_back(sender, task)
                elif not credited and len(runner.inbox) >= CYCLE_MAX:
                    self.too_many(task, source, anchors[position])
                else:
                    runner.inbox.append(Tuple(rows[position], source, anchors[position]))
                    assert line is not None
                    line.delivered += 1
                position += 1

    def too_many(self, task: int, source: Source, tree: Tree | None) -> None:
        """A tuple that the cycle it is on has no room for: its roots fail, and all are told why."""
        error = overrun(source, task)
        self.refused += 1
        if tree is not None:
            self.agenda.fail(tree, str(error))
            self.agenda.release(tree)
        self.on_overrun(source.task, error)

    def door(self, lines: dict[int, CreditLine], sender: str, task: int, credited: bool) -> CreditLine:
        """The way of tuples of `sender` to `task`, about to be used. Without a runner the task is not here."""
        runner = self.runners.get(task)
        line = self.line(lines, sender, task)
        line.runner = runner
        if runner is not None:
            line.touched = True
            if credited:
                runner.touched.append(line)
        return line

    def line(self, lines: dict[int, CreditLine], sender: str, task: int) -> CreditLine:
        """The credit of `sender` towards `task`, which is kept in `lines`."""
        line = lines.get(task)
        if line is None:
            line = CreditLine(sender, task, self.window)
            lines[task] = line
        return line

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

    def refuse(self, count: int, roots: list[int], many: dict[int, list[int]]) -> None:
        """Tuples of a task that runs elsewhere by now: not executed; their roots fail at once."""
        self.refused += count
        for root in all_roots(roots, many):
            self.books.fail_root(root)

    def give_back(self, sender: str, task: int) -> None:
        """A tuple that takes no room here: its sender, which counts it as sent, must not wait for any."""
        line = self.line(self.lines.setdefault(sender, {}), sender, task)
        line.delivered += 1
        line.granted += 1
        if line not in self.agenda.grants:
            self.agenda.grants.append(line)

    def acks(self, payload: bytes) -> None:
        try:
            columns: Acks = decode_acks(payload)
        except (msgspec.DecodeError, ValueError) as error:
            raise WireError(f"bad acks: {error}") from None
        self.tell(columns)

    def tell(self, columns: Acks) -> None:
        """All of this to whom it concerns, here or elsewhere."""
        reports, fails, inits, verdicts, touches, whys = columns
        books = self.books
        for root, why in whys.items():
            self.agenda.explain(root, why)
        books.receive_inits(in_groups(inits, 3))
        books.receive_reports(in_groups(reports, 2))
        for root in fails:
            books.fail_root(root)
        books.receive_verdicts(in_groups(verdicts, 2))
        for root in touches:
            books.touch_root(root)

    def credit(self, payload: bytes, outbox: Outbox | None) -> None:
        """Grants of the worker behind `outbox`: for tasks that are there, or were and may come back."""
        try:
            pairs = in_groups(decode_credit(payload), 2)
        except (msgspec.DecodeError, ValueError) as error:
            raise WireError(f"bad credit: {error}") from None
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
        self.agenda.grants = [line for line in self.agenda.grants if line.sender != sender]
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

    def send_tuples(self, outbox: Outbox, link: Link) -> None:
        """Move the tuples in `outbox` into `link` and let go of their trees, which may settle then."""
        for run in outbox.take():
            self.sent += len(run.rows)
            self.send_part(run, 0, len(run.rows), link)

    def send_reports(self, outbox: Outbox, link: Link) -> None:
        """Move grants and all that concerns trees into `link`."""
        if outbox.grants:
            link.send(CREDIT, encode(outbox.grants), None)
            outbox.grants = []
        if not (outbox.reports or outbox.fails or outbox.inits or outbox.verdicts or outbox.touches):
            return
        agenda = self.books.agenda
        whys = agenda.take_whys([*outbox.fails, *outbox.verdicts[::2]]) if agenda.whys else {}
        columns = (outbox.reports, outbox.fails, outbox.inits, outbox.verdicts, outbox.touches, whys)
        link.send(ACKS, encode(columns), Said(columns))
        outbox.reports = []
        outbox.fails = []
        outbox.inits = []
        outbox.verdicts = []
        outbox.touches = []

    def send_part(self, run: Run, start: int, end: int, link: Link) -> None:
        whole = end - start == len(run.rows)
        rows = run.rows if whole else run.rows[start:end]
        try:
            data = encode_rows(rows, self.pickle_types)
            if len(data) > self.bytes_max:
                self.check_size(rows, len(data))
        except ValueRefused as error:
            self.split_refused(run, start, end, link, error)
            return
        stamps = Stamps()
        if run.tracked:
            stamps.stamp(run.anchors, start, end, self.books.agenda)
        parts = [
            run.number,
            run.credited,
            pack_tasks(run.targets if whole else run.targets[start:end]),
            spans(run, start, end),
            stamps.roots,
            stamps.state,
            stamps.lengths if stamps.stretched else [],
            stamps.many,
            data,
        ]
        link.send(DATA, encode(parts), stamps.kept())

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
            anchor = run.anchors[start]
            if anchor is not None:
                self.books.agenda.fail(anchor, f"{type(error).__name__}: {error.reason}")
                self.books.agenda.release(anchor)
            self.on_refused(run, start, error)
            return
        middle = (start + end) // 2
        self.send_part(run, start, middle, link)
        self.send_part(run, middle, end, link)


class Stamps:
    """The columns that name the trees of a run's tuples, a row for each stretch."""

    def __init__(self) -> None:
        self.roots: list[int] = []
        self.state = 0
        self.lengths: list[int] = []
        self.many: dict[int, list[int]] = {}
        self.stretched = False

    def stamp(self, anchors: list[Tree | None], start: i64, end: i64, agenda: Agenda) -> None:
        """Give each stretch between the positions `start` and `end` an edge, and let go of its anchor."""
        ids = agenda.ids
        self.state = int(ids.state)
        roots = self.roots
        lengths = self.lengths
        while start < end:
            first = start
            anchor = anchors[start]
            start += 1
            while start < end and anchors[start] is anchor:
                start += 1
            length = start - first
            lengths.append(int(length))
            if length > 1:
                self.stretched = True
            if anchor is None:
                roots.append(0)
                continue
            edge = ids.next()
            if isinstance(anchor, Group):
                self.stamp_group(anchor, edge)
            else:
                anchor.edges ^= edge
                roots.append(int(anchor.root))
            anchor.count -= i32(length)
            if anchor.count == 0:
                agenda.settled.append(anchor)

    def stamp_group(self, anchor: Group, edge: i64) -> None:
        leaves = anchor.leaves()
        for leaf in leaves:
            leaf.edges ^= edge
        if len(leaves) > 1:
            self.many[len(self.roots)] = [int(leaf.root) for leaf in leaves[1:]]
        self.roots.append(int(leaves[0].root))

    def kept(self) -> object:
        """What a link keeps with the message, for `roots_of`."""
        return (self.roots, self.many) if self.roots else None


def spans(run: Run, start: int, end: int) -> list[int]:
    """[task, how many tuples, ...] of the emitting tasks between two positions."""
    found: list[int] = []
    for number, task in enumerate(run.sources):
        first = max(start, run.starts[number])
        last = min(end, run.starts[number + 1] if number + 1 < len(run.starts) else len(run.rows))
        if first < last:
            found.append(task)
            found.append(last - first)
    return found


def all_roots(roots: list[int], many: dict[int, list[int]]) -> list[int]:
    found = [root for root in roots if root]
    for others in many.values():
        found.extend(others)
    return found


def roots_of(kept: object) -> list[int]:
    """The roots that a link kept with a message."""
    return all_roots(kept[0], kept[1]) if isinstance(kept, tuple) else []
