"""run_bolt: one bolt, some rows, what it emits."""

from __future__ import annotations

import asyncio

import pytest

from rainband import Bolt, FailTuple, InvalidTopology, ManualBolt, Spout, TopologyContext, Tuple, run_bolt


class Split(Bolt):
    outputs = {"default": ("word",), "empty": ("line",)}

    def __init__(self) -> None:
        self.lines = 0
        self.log: list[str] = []
        self.unpicklable = (n for n in range(3))

    def prepare(self, context: TopologyContext) -> None:
        self.log.append(f"prepare {context.component}")

    def execute(self, tup: Tuple) -> None:
        self.lines += 1
        line = tup["line"]
        assert isinstance(line, str)
        if not line:
            self.emit([line], stream="empty")
        for word in line.split():
            self.emit([word])

    def cleanup(self) -> None:
        self.log.append("cleanup")


class Picky(ManualBolt):
    """Acks even numbers, fails odd ones, counts at each tick."""

    outputs = ("n",)

    def __init__(self) -> None:
        self.n = 0

    def execute(self, tup: Tuple) -> None:
        value = tup[0]
        assert isinstance(value, int)
        self.n += 1
        if value % 2:
            self.fail(tup)
        else:
            self.emit([value], anchors=tup)
            self.ack(tup)

    def tick(self) -> None:
        self.emit([-self.n], anchors=())


class Later(Bolt):
    outputs = ("n",)

    async def execute(self, tup: Tuple) -> None:
        await asyncio.sleep(60)
        if tup[0] == 2:
            raise FailTuple
        self.emit([tup[0]])


class Broken(Bolt):
    def prepare(self, context: TopologyContext) -> None:
        raise OSError("no database")

    def execute(self, tup: Tuple) -> None: ...


class NoBolt(Spout):
    outputs = ("n",)

    def next_tuple(self) -> None: ...


def test_it_runs_the_very_instance() -> None:
    split = Split()
    run = run_bolt(split, [["a b"], [""], ["c"]], fields=["line"])
    assert run == [("a",), ("b",), ("c",)]
    assert run.emitted("empty") == [("",)]
    assert run.acked == [("a b",), ("",), ("c",)]
    assert run.failed == []
    assert split.lines == 3
    assert split.log == ["prepare bolt", "cleanup"]


def test_the_instance_is_left_as_it_was_found() -> None:
    split = Split()
    run_bolt(split, [["a"]], fields=["line"])
    assert "emit" not in vars(split)
    assert run_bolt(split, [["b"]], fields=["line"]) == [("b",)]
    assert split.lines == 2


def test_manual_acks_and_ticks() -> None:
    run = run_bolt(Picky(), [[1], [2], [4]], ticks=2)
    assert run == [(2,), (4,), (-3,), (-3,)]
    assert run.acked == [(2,), (4,)]
    assert run.failed == [(1,)]


def test_an_async_bolt_in_virtual_time() -> None:
    run = run_bolt(Later(), [[1], [2], [3]], config={"topology.message.timeout.secs": 100})
    assert run == [(1,), (3,)]
    assert run.failed == [(2,)]


def test_errors_are_raised() -> None:
    with pytest.raises(OSError, match="no database"):
        run_bolt(Broken(), [["a"]])
    with pytest.raises(KeyError, match=r"no field 'line' in stream 'default' of 'source', which has \['value0'\]"):
        run_bolt(Split(), [["a"]])


def test_rows_may_come_from_a_named_component() -> None:
    class Who(Bolt):
        outputs = ("who", "fields")

        def execute(self, tup: Tuple) -> None:
            self.emit([tup.component, tup.fields])

    assert run_bolt(Who(), [[1, 2]], fields=["a", "b"], component="orders") == [("orders", ("a", "b"))]


@pytest.mark.parametrize(
    ("bolt", "rows", "fields", "problem"),
    [
        (Split, [["a"]], ["line"], "Split is a class, not an instance"),
        (NoBolt(), [["a"]], ["line"], "NoBolt is a spout"),
        (Split(), "a b", ["line"], "rows is 'a b'"),
        (Split(), ["a b"], ["line"], "row 0 is 'a b'"),
        (Split(), [["a", "b"]], ["line"], r"row 0 has 2 values for \['line'\]"),
        (Split(), [["a"]], "line", "fields is 'line'"),
    ],
)
def test_what_makes_no_sense_is_refused(bolt: Bolt, rows: list[list[str]], fields: list[str], problem: str) -> None:
    with pytest.raises(InvalidTopology, match=problem):
        run_bolt(bolt, rows, fields=fields)


class Sorts(Bolt):
    outputs = {"short": ("word",), "long": ("word",)}

    def execute(self, tup: Tuple) -> None:
        self.emit(tup.values, stream="short" if len(tup[0]) < 4 else "long")


def test_a_bolt_without_a_default_stream_emits_nothing_there() -> None:
    run = run_bolt(Sorts(), [["a"], ["abcd"]])
    assert run == []
    assert (run.emitted("short"), run.emitted("long")) == ([("a",)], [("abcd",)])
