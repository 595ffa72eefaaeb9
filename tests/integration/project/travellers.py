"""Every kind of value that travels, and some that do not, from one worker to another.

`Sends` emits each of VALUES by its name, `Checks` compares what comes with its own copy of VALUES and writes down what
differs. `Spoils` emits each of SPOILT, anchored to a row of its spout. Numbers that are no name are passed on.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from rainband import Bolt, Spout, TopologyBuilder, TopologyContext, Tuple
from rainband.topology.graph import Topology


@dataclasses.dataclass(frozen=True)
class Person:
    name: str
    born: date
    likes: tuple[object, ...] = ()


@dataclasses.dataclass(slots=True)
class Spot:
    x: float
    y: object = None


class Reading(msgspec.Struct):
    at: datetime
    values: list[object]


class Pair(NamedTuple):
    left: object
    right: object


class Colour(enum.Enum):
    RED = "red"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


def deep(levels: int) -> object:
    value: object = 1
    for level in range(levels):
        value = [value] if level % 2 else (value,)
    return value


BERLIN = ZoneInfo("Europe/Berlin")
VALUES: dict[str, object] = {
    "none": None,
    "true": True,
    "false": False,
    "one": 1,
    "zero": 0,
    "int64 low": -(2**63),
    "uint64 high": 2**64 - 1,
    "beyond 64 bits": 2**64,
    "2**70": 2**70,
    "-2**1000": -(2**1000),
    "one as float": 1.0,
    "minus zero": -0.0,
    "nan": math.nan,
    "infinity": math.inf,
    "smallest": 5e-324,
    "empty str": "",
    "nul": "\0",
    "emoji": "\N{GRINNING FACE} naïve ßtraße \U0010ffff",
    "bytes": bytes(range(256)),
    "list": [1, True, 1.0, "1", b"1", None],
    "tuple": (1, True, 1.0, "1", b"1", None),
    "empty tuple": (),
    "tuple in list": [(), [()], ([],)],
    "dict": {"a": 1, "b": [1, (2,)]},
    "dict of any key": {1: "a", (1, "x"): {2.5: None}, None: True, b"k": frozenset([1])},
    "set": {1, "a", (1, 2)},
    "frozenset": frozenset([frozenset([1]), "b"]),
    "datetime": datetime(2024, 2, 29, 23, 59, 59, 999_999),
    "datetime utc": datetime(2024, 2, 29, tzinfo=UTC),
    "datetime offset": datetime(1950, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=45), "NPT")),
    "datetime fold": datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1),
    "datetime first": datetime.min,
    "date": date.max,
    "time": time(1, 2, 3, 4),
    "timedelta": timedelta(days=-1, microseconds=1),
    "decimal": Decimal("1.10"),
    "decimal tiny": Decimal("-1E-999"),
    "decimal snan": Decimal("sNaN"),
    "uuid": uuid.UUID(int=2**127 + 5),
    "dataclass": Person("Ada", date(1815, 12, 10), (Spot(1.5), {"n": 2**80})),
    "slotted": Spot(-0.0, [Spot(1.0, None)]),
    "struct": Reading(datetime(2024, 1, 1, tzinfo=UTC), [1, (2,), Pair(1, (2,))]),
    "named tuple": Pair(Colour.RED, [Colour.RED]),
    "enum": Colour.RED,
    "flag": Rights.READ | Rights.WRITE,
    "63 deep": deep(63),
}


class Own:
    """A class whose instances do not travel."""


class Text(str):
    """Not quite a str."""


def in_itself() -> list[object]:
    value: list[object] = []
    value.append(value)
    return value


# name -> how to make it; what the error says of it
SPOILT: dict[str, tuple[Callable[[], object], str]] = {
    "object": (object, "a value of type object does not travel"),
    "own class": (Own, "a value of type travellers:Own does not travel"),
    "class": (lambda: Own, "type does not travel"),
    "function": (lambda: deep, "function does not travel"),
    "generator": (lambda: (letter for letter in "ab"), "generator does not travel"),
    "lock": (threading.Lock, "lock does not travel"),
    "subclass": (lambda: Text("a"), "a value of type travellers:Text does not travel; write str(value)"),
    "ordered dict": (OrderedDict, "write dict(value)"),
    "bytearray": (lambda: bytearray(b"a"), "bytearray does not travel"),
    "complex": (lambda: 1j, "complex does not travel"),
    "object in a list": (lambda: [1, {"a": (object(),)}], "a value of type object does not travel"),
    "own class as key": (lambda: {Own(): 1}, "a value of type travellers:Own does not travel"),
    "half a surrogate pair": (lambda: "a\ud800", "half a surrogate pair"),
    "surrogate inside": (lambda: [{"k": "\udfff"}], "half a surrogate pair"),
    "in itself": (in_itself, "nested deeper than 64, or in itself"),
    "65 deep": (lambda: deep(65), "nested deeper than 64, or in itself"),
}


def same(a: Any, b: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(a) is not type(b):
        return False
    if type(a) in (list, tuple) or isinstance(a, Pair):
        return len(a) == len(b) and all(map(same, a, b))
    if type(a) is dict:
        return same(list(a), list(b)) and same(list(a.values()), list(b.values()))
    if type(a) in (set, frozenset):
        return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, msgspec.Struct):
        return same(msgspec.structs.astuple(a), msgspec.structs.astuple(b))
    if isinstance(a, datetime | time):
        return repr(a) == repr(b) and a.fold == b.fold
    if isinstance(a, float | Decimal):
        return repr(a) == repr(b)
    return bool(a == b)


class Names(Spout):
    """Emits each name, then `rest` numbers; writes down what was acked and what failed."""

    outputs = ("name",)

    def __init__(self, directory: str, names: list[str], rest: int) -> None:
        self.directory = directory
        self.names = names
        self.rest = rest

    def open(self, context: TopologyContext) -> None:
        self.rows = [*self.names, *(str(number) for number in range(self.rest))]
        self.told = (Path(self.directory) / "told").open("a", buffering=1)

    def next_tuple(self) -> None:
        if self.rows:
            name = self.rows.pop(0)
            self.emit([name], message_id=name)
        else:
            self.finish()

    def ack(self, message_id: str) -> None:
        self.told.write(f"ack {message_id}\n")

    def fail(self, message_id: str) -> None:
        self.told.write(f"fail {message_id}\n")

    def close(self) -> None:
        self.told.close()


class Sends(Bolt):
    """The value of that name, twice: alone, and among others of its kind."""

    outputs = ("name", "value")

    def execute(self, tup: Tuple) -> None:
        name = tup["name"]
        for value in (VALUES[name], [VALUES[name]]) if name in VALUES else (int(name),):
            self.emit([name, value])


class Spoils(Bolt):
    """A value that does not travel, between two that do; what is no name is passed on."""

    outputs = {"default": ("name", "value"), "other": ("name", "value")}

    def execute(self, tup: Tuple) -> None:
        name = tup["name"]
        if name in SPOILT:
            self.emit([name, "before"])
            self.emit([name, SPOILT[name][0]()], stream="other")
            self.emit([name, "after"])
        else:
            self.emit([name, int(name)])


class Large(Bolt):
    """As many bytes as the name says."""

    outputs = ("name", "value")

    def execute(self, tup: Tuple) -> None:
        size = int(tup["name"])
        self.emit([tup["name"], b"\xa5" * size if size > 1000 else size])


class Checks(Bolt):
    """Writes down each name, and `same` or what came instead."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def prepare(self, context: TopologyContext) -> None:
        self.file = (Path(self.directory) / "checked").open("a", buffering=1)
        self.times: dict[str, int] = {}

    def execute(self, tup: Tuple) -> None:
        name, value = tup
        if isinstance(value, bytes) and name not in VALUES:
            self.file.write(f"{name}: {len(value)} {value.count(0xA5)}\n")
            return
        expected = VALUES.get(name, int(name) if name.isdigit() else value)
        self.times[name] = self.times.get(name, 0) + 1
        if self.times[name] == 2:
            expected = [expected]
        verdict = "same" if same(value, expected) else f"{type(value).__name__} {value!r}"
        self.file.write(f"{name}: {verdict}\n")

    def cleanup(self) -> None:
        self.file.close()


def travelling(
    directory: str, names: list[str], rest: int, bolt: Bolt, config: dict[str, object] | None = None
) -> Topology:
    """names -> bolt -> checks."""
    builder = TopologyBuilder("travelling", config={"topology.workers": 2, **(config or {})})
    builder.set_spout("names", Names(directory, names, rest))
    builder.set_bolt("bolt", bolt).shuffle_grouping("names")
    checks = builder.set_bolt("checks", Checks(directory)).shuffle_grouping("bolt")
    if isinstance(bolt, Spoils):
        checks.shuffle_grouping("bolt", stream="other")
    return builder.create_topology()
