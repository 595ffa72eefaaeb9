"""Rows in place of a spout."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainband.errors import InvalidTopology
from rainband.topology.builder import TopologyBuilder
from rainband.topology.components import Bolt, DirectStream, ReliableSpout, Spout
from rainband.topology.context import TopologyContext
from rainband.topology.graph import Topology
from rainband.topology.tuples import Tuple


class Lines(Spout):
    outputs = {"default": ("line",), "bad": ("line", "why"), "to": DirectStream("a")}

    def next_tuple(self) -> None:
        raise AssertionError("replaced")


class Queue(ReliableSpout):
    outputs = ("line",)
    max_retries = 9

    def __init__(self, delay_s: float = 1.0) -> None:
        self.retry_delay_s = delay_s

    def next_tuple(self) -> None:
        raise AssertionError("replaced")


class Sink(Bolt):
    def execute(self, tup: Tuple) -> None: ...


def topology(tasks: int = 1) -> Topology:
    builder = TopologyBuilder("t")
    builder.set_spout("lines", Lines(), tasks=tasks)
    builder.set_spout("queue", Queue(0.25))
    builder.set_bolt("sink", Sink()).shuffle_grouping("lines").shuffle_grouping("lines", stream="bad")
    return builder.create_topology()


def drain(made: Topology, component: str) -> dict[int, list[tuple[str, Any, int]]]:
    """What each task of a spout emits until it is finished."""
    emitted: dict[int, list[tuple[str, Any, int]]] = {}
    for task in made.plan.tasks[component]:
        spout = made.load(component)
        rows: list[tuple[str, Any, int]] = []
        done: list[bool] = []
        spout.emit = lambda values, *, message_id, stream="default", to=rows: to.append((stream, values, message_id))
        spout.finish = lambda to=done: to.append(True)
        spout.open(TopologyContext(made.plan, task))
        while not done:
            spout.next_tuple()
        emitted[task] = rows
    return emitted


@given(st.lists(st.integers(), max_size=30), st.integers(1, 5))
def test_every_row_is_emitted_once_with_its_index(values: list[int], tasks: int) -> None:
    emitted = drain(topology(tasks).with_sources({"lines": [[value] for value in values]}), "lines")
    everything = sorted((number, row) for rows in emitted.values() for _, row, number in rows)
    assert everything == [(number, (value,)) for number, value in enumerate(values)]
    sizes = [len(rows) for rows in emitted.values()]
    assert max(sizes) - min(sizes) <= 1


def test_rows_of_named_streams() -> None:
    made = topology().with_sources({"lines": {"bad": [["a", "b"]], "default": [("c",)]}})
    assert list(drain(made, "lines").values()) == [[("bad", ("a", "b"), 0), ("default", ("c",), 1)]]


def test_the_plan_keeps_everything_but_the_component() -> None:
    before, after = topology(3), topology(3).with_sources({"lines": [["a"]], "queue": []})
    assert after.plan.components["lines"].streams == before.plan.components["lines"].streams
    assert after.plan.tasks == before.plan.tasks
    assert after.plan.components["queue"].guarantee == "replays"
    queue = after.load("queue")
    assert isinstance(queue, ReliableSpout)
    assert (queue.max_retries, queue.retry_delay_s) == (9, 0.25)
    assert before.digest() != after.digest()


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"line": [["a"]]}, "no spout 'line'. Did you mean 'lines'?"),
        ({"sink": [["a"]]}, "no spout 'sink'. There is ['lines', 'queue']"),
        ({"LINES": [["a"]]}, "no spout 'LINES'. There is ['lines', 'queue']"),
        ([["a"]], "sources is [['a']]. Write rows by spout, as in {'lines': [...]}"),
        ({"lines": 5}, "sources['lines'] is 5: write a list of rows, as in [[5]]"),
        ({"lines": {"bad": None}}, "sources['lines'] is None: write a list of rows, as in [[None]]"),
        ({"lines": "ab"}, "write a list of rows"),
        ({"lines": ["ab"]}, "row 0 is 'ab': write ['ab']"),
        ({"lines": [["a"], ["a", "b"]]}, "row 1 has 2 values for ['line']"),
        ({"lines": [5]}, "row 0 is 5"),
        ({"lines": {"nope": [["a"]]}}, "no stream 'nope' that rows can be given for. There is ['bad', 'default']"),
        ({"lines": {"bat": [["a"]]}}, "no stream 'bat' that rows can be given for. Did you mean 'bad'?"),
        ({"lines": {"to": [["a"]]}}, "no stream 'to' that rows can be given for"),
        ({"lines": [[(n for n in "ab")]]}, "does not pickle"),
    ],
)
def test_rows_that_do_not_fit(sources: Any, message: str) -> None:
    with pytest.raises(InvalidTopology) as caught:
        topology().with_sources(sources)
    assert message in str(caught.value)
