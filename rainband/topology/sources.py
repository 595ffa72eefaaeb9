"""Spouts that emit given rows instead of reading anything: for tests and trials of the bolts behind a spout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rainband.errors import InvalidTopology, did_you_mean
from rainband.topology import snapshot
from rainband.topology.components import ReliableSpout, Spout
from rainband.topology.context import TopologyContext
from rainband.topology.declared import Declared
from rainband.topology.inspection import REPORTS_ONLY
from rainband.topology.streams import DEFAULT, Outputs


class FixedRows(Spout):
    """Emits `(stream, values)` rows, each task every n-th, tracked, with the index of the row as message id."""

    def __init__(self, rows: list[tuple[str, tuple[object, ...]]], outputs: Outputs) -> None:
        self.rows = rows
        self.outputs = outputs

    def open(self, context: TopologyContext) -> None:
        self.step = len(context.tasks())
        self.next = context.task_index

    def next_tuple(self) -> None:
        if self.next >= len(self.rows):
            self.finish()
            return
        stream, values = self.rows[self.next]
        self.emit(values, message_id=self.next, stream=stream)
        self.next += self.step


class FixedReliableRows(FixedRows, ReliableSpout):
    """FixedRows that replays what fails, as the spout it stands for."""


def fixed_rows(spout: Declared, rows: Sequence[Sequence[object]] | Mapping[str, Any]) -> Declared:
    """The declaration of a spout with `rows` in its place. Raises InvalidTopology when rows do not fit its streams."""
    flat = _flat(spout, rows if isinstance(rows, Mapping) else {DEFAULT: rows})
    original = spout.snapshot.original
    outputs = getattr(original, "outputs", ())
    source = FixedRows(flat, outputs)
    if isinstance(original, ReliableSpout):
        source = reliable = FixedReliableRows(flat, outputs)
        reliable.max_retries = original.max_retries
        reliable.retry_delay_s = original.retry_delay_s
        reliable.retry_delay_max_s = original.retry_delay_max_s
    taken, problem = snapshot.take(source)
    if taken is None:
        raise InvalidTopology(f"sources[{spout.id!r}]: {problem}")
    kind = type(source)
    guarantee = spout.guarantee if isinstance(original, ReliableSpout) else REPORTS_ONLY
    return replace(spout, snapshot=taken, type_name=f"{kind.__module__}:{kind.__qualname__}", guarantee=guarantee)


def _flat(spout: Declared, rows: Mapping[str, Any]) -> list[tuple[str, tuple[object, ...]]]:
    problems = []
    known = sorted(name for name, stream in spout.streams.items() if not stream.direct)
    flat: list[tuple[str, tuple[object, ...]]] = []
    for name, given in rows.items():
        stream = spout.streams.get(name)
        if stream is None or stream.direct:
            fix = did_you_mean(name, known) or f"There is {known}"
            problems.append(f"sources[{spout.id!r}]: no stream {name!r:.80} that rows can be given for. {fix}")
            continue
        if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
            problems.append(f"sources[{spout.id!r}] is {given!r:.80}: write a list of rows, as in [[{given!r:.80}]]")
            continue
        for number, row in enumerate(given):
            if isinstance(row, (str, bytes, bytearray, memoryview)) or not isinstance(row, Sequence):
                problems.append(f"sources[{spout.id!r}]: row {number} is {row!r:.80}: write [{row!r:.80}]")
            elif len(row) != len(stream.fields):
                problems.append(f"sources[{spout.id!r}]: row {number} has {len(row)} values for {list(stream.fields)}")
            else:
                flat.append((name, tuple(row)))
    if problems:
        raise InvalidTopology(problems[:10])
    return flat
