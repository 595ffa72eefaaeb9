"""Every emitted value passes through the codec, and must not be changed afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from rainband.errors import EmitRefused, ValueRefused
from rainband.testing import complete_topology, run_bolt
from rainband.topology.builder import TopologyBuilder
from rainband.topology.components import Bolt, Spout
from rainband.topology.context import TopologyContext
from rainband.topology.tuples import Tuple


class Collects(Bolt):
    """Emits its own list and goes on filling it."""

    outputs = ("n", "items")

    def prepare(self, context: TopologyContext) -> None:
        self.items: list[object] = []

    def execute(self, tup: Tuple) -> None:
        self.items.append(tup[0])
        self.emit([len(self.items), self.items])


class Copies(Collects):
    """The same, done right."""

    def execute(self, tup: Tuple) -> None:
        self.items.append(tup[0])
        self.emit([len(self.items), list(self.items)])


class Emits(Bolt):
    """Emits one value."""

    outputs = ("word", "value")

    def __init__(self, value: object) -> None:
        self.value = value

    def execute(self, tup: Tuple) -> None:
        self.emit(["a", self.value])


class Keeps(Bolt):
    """Changes what it receives."""

    def prepare(self, context: TopologyContext) -> None:
        self.seen: list[Any] = []

    def execute(self, tup: Tuple) -> None:
        tup["items"].append("mine")
        self.seen.append(tup["items"])


class Rows(Spout):
    """Emits one list, again and again."""

    outputs = ("items",)

    def open(self, context: TopologyContext) -> None:
        self.rows = [["a"], ["b"]]

    def next_tuple(self) -> None:
        if self.rows:
            self.emit([self.rows.pop()], message_id=len(self.rows))
        else:
            self.finish()


def test_a_value_changed_after_it_was_emitted_is_an_error() -> None:
    with pytest.raises(ValueRefused, match="'bolt' changed what it had emitted on stream 'default': 'items'") as caught:
        run_bolt(Collects(), [["a"], ["b"]])
    assert "emit a copy" in str(caught.value)
    assert run_bolt(Copies(), [["a"], ["b"]]) == [(1, ["a"]), (2, ["a", "b"])]


def test_it_is_reported_for_the_one_who_changed_it() -> None:
    run = run_bolt(Collects(), [["a"], ["b"]], raise_errors=False)
    assert [error.component for error in run.errors] == ["bolt"]
    assert run_bolt(Collects(), [["a"], ["b"]], check_values=False) == [(1, ["a", "b"]), (2, ["a", "b"])]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([object()], r"field 'value': a value of type object does not travel"),
        ({"k": {1: [print]}}, r"field 'value': a value of type builtin_function_or_method does not travel"),
        ("\ud800", r"field 'value': the str '\\ud800' does not travel"),
    ],
)
def test_a_value_that_cannot_travel_is_refused_in_the_emit(value: object, reason: str) -> None:
    with pytest.raises(ValueRefused, match="'bolt' emitted on stream 'default', " + reason) as caught:
        run_bolt(Emits(value), [["x"]])
    assert ("execute", __file__) in [(entry.name, str(entry.path)) for entry in caught.traceback]


def test_what_the_emit_itself_refuses_keeps_its_own_words() -> None:
    with pytest.raises(ValueRefused, match="'bolt' emitted on stream 'default', field 'value': a value of type object"):
        run_bolt(Emits(object()), [["x"]])

    class Wide(Bolt):
        outputs = ("word",)

        def execute(self, tup: Tuple) -> None:
            self.emit(["a", "b"])

    with pytest.raises(EmitRefused, match=r"emitted 2 values on stream 'default', whose fields are \['word'\]"):
        run_bolt(Wide(), [["x"]])


def test_consumers_get_values_of_their_own() -> None:
    builder = TopologyBuilder("own")
    builder.set_spout("rows", Rows())
    for name in ("first", "second"):
        builder.set_bolt(name, Keeps()).shuffle_grouping("rows")
    result = complete_topology(builder.create_topology())
    assert result.instances("first")[0].seen == [["b", "mine"], ["a", "mine"]]
    assert result.instances("second")[0].seen == [["b", "mine"], ["a", "mine"]]
    assert result.emitted("rows") == [(["b"],), (["a"],)]
