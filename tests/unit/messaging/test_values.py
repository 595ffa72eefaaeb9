"""Exact type in, exact type out; everything else refused; bytes that are not ours raise WireError only."""

from __future__ import annotations

import datetime as dt
import pickle
import re
import struct
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.msgpack import Ext, encode

from rainband.errors import ValueRefused, WireError
from rainband.messaging import value_types, values
from rainband.messaging.values import PLAIN_TYPES, TRAVELLING_TYPES, check_row, check_value, decode_rows, encode_rows

T = TypeVar("T")
EST = dt.timezone(dt.timedelta(hours=-5), "EST")


class Colour(Enum):
    RED = "red"


class Right(Flag):
    READ = 1
    WRITE = 2


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    APPLE = "apple"


class Point(NamedTuple):
    x: object
    y: object


@dataclass
class User:
    name: str
    tags: object = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.name == "must not be called again":
            raise AssertionError

    @cached_property
    def shout(self) -> str:
        return self.name.upper()


@dataclass(frozen=True, slots=True)
class Slotted:
    a: object
    b: object = None


@dataclass
class Box(Generic[T]):
    content: T


@dataclass
class Mapping(dict[str, int]):
    name: str = ""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    city: object
    zip: object = msgspec.UNSET


class Outer:
    @dataclass
    class Inner:
        x: int


class Plain:
    def __init__(self, x: object) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return type(other) is Plain and other.x == self.x


class Stubborn(Plain):
    def __reduce__(self) -> Any:
        raise RuntimeError("never")


PLAIN = value_types.type_name(Plain)

zones = st.one_of(
    st.none(),
    st.sampled_from(
        [dt.UTC, EST, dt.timezone(dt.timedelta(hours=5, minutes=30)), ZoneInfo("Europe/London"), ZoneInfo("UTC")]
    ),
    st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)).map(dt.timezone),
)
moments = st.one_of(
    st.builds(
        lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold),
        st.datetimes(),
        zones,
        st.sampled_from([0, 1]),
    ),
    st.builds(
        lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold), st.times(), zones, st.sampled_from([0, 1])
    ),
    st.dates(),
    st.timedeltas(),
)
hashable = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(),
    st.text(),
    st.binary(),
    moments,
    st.decimals().filter(lambda number: not number.is_snan()),
    st.uuids(),
    st.sampled_from([Colour.RED, Right.READ, Right.READ | Right.WRITE, Right(0), Level.LOW, Word.APPLE, msgspec.UNSET]),
)
keys = st.recursive(
    hashable,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple), st.builds(Slotted, inner), st.builds(Point, inner, inner)
    ).filter(lambda key: key == key),
    max_leaves=4,
)
anything = st.recursive(
    st.one_of(hashable, keys, st.decimals()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(), inner, max_size=4),
        st.dictionaries(keys, inner, max_size=3),
        st.sets(keys, max_size=3),
        st.frozensets(keys, max_size=3),
        st.builds(User, st.text(), inner),
        st.builds(Box, inner),
        st.builds(Place, city=inner),
        st.builds(Place, city=inner, zip=inner),
    ),
    max_leaves=8,
)


@st.composite
def tables(draw: st.DrawFn) -> list[tuple[object, ...]]:
    """Rows of one width, some columns plain, some mixed."""
    columns = draw(st.lists(st.sampled_from([st.text(), st.integers(), st.floats(), hashable, anything]), max_size=3))
    return draw(st.lists(st.tuples(*columns), max_size=5))


def same(a: Any, b: Any) -> bool:
    """Equal in exact type, content and (dicts) order, NaN and -0.0 included."""
    kind = type(a)
    if kind is not type(b):
        return False
    if kind is float:
        return struct.pack(">d", a) == struct.pack(">d", b)
    if kind in (list, tuple, Point):
        return len(a) == len(b) and all(map(same, a, b))
    if kind is dict:
        return same(list(a.items()), list(b.items()))
    if kind in (set, frozenset):
        return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
    if kind in (dt.datetime, dt.time):
        return repr(a) == repr(b) and a.fold == b.fold and type(a.tzinfo) is type(b.tzinfo)
    if kind is Decimal:
        return repr(a) == repr(b)
    if isinstance(a, msgspec.Struct):
        return same(msgspec.structs.astuple(a), msgspec.structs.astuple(b))
    if kind is User:
        return same(vars(a), vars(b))
    if kind is Box:
        return same(a.content, b.content)
    if kind is Slotted:
        return same((a.a, a.b), (b.a, b.b))
    return bool(a == b)


def there_and_back(value: object, pickle_types: frozenset[str] = frozenset()) -> Any:
    ((back,),) = decode_rows(encode_rows([(value,)], pickle_types), pickle_types)
    return back


@given(tables())
@example([()])
@example([(), ()])
@example([(2**64 - 1, "a"), (-(2**63), "b"), (2**64, "c")])
def test_what_comes_out_is_what_went_in(rows: list[tuple[object, ...]]) -> None:
    back = decode_rows(encode_rows(rows))
    assert same(back, rows)


@given(anything)
def test_what_travels_passes_the_check(value: object) -> None:
    assert check_value(value) is None
    assert check_row(("a", value, 1)) == -1


def test_the_set_of_built_in_types_is_closed() -> None:
    assert PLAIN_TYPES < TRAVELLING_TYPES
    assert {kind.__name__ for kind in TRAVELLING_TYPES} == {
        *("NoneType", "bool", "int", "float", "str", "bytes", "list", "tuple", "dict", "set", "frozenset"),
        *("datetime", "date", "time", "timedelta", "Decimal", "UUID", "UnsetType"),
    }


def test_rows_may_come_as_a_view_of_a_larger_frame() -> None:
    data = encode_rows([("a", (1,))])
    assert decode_rows(memoryview(b"x" + data + b"x")[1:-1]) == [("a", (1,))]


def test_rows_of_different_width_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="differ in width"):
        encode_rows([("a", 1), ("a",)])


@pytest.mark.parametrize(
    "value",
    [
        User("must not be called", [1]),
        Slotted((1,), [Slotted(None)]),
        Box[int](3),
        Outer.Inner(1),
        Point(1, Point("a", [])),
        Place(city="x"),
        Colour.RED,
        Right.READ | Right.WRITE,
        Level.LOW,
        Word.APPLE,
        dt.datetime(2020, 10, 25, 1, 30, tzinfo=ZoneInfo("Europe/London"), fold=1),
        {1: {(2, 3): {"a": {frozenset([4]): 5}}}},
        [[], (), {}, set(), frozenset(), "", b"", None],
    ],
)
def test_examples_of_each_form(value: object) -> None:
    back = there_and_back(value)
    assert same(back, value)
    assert repr(back) == repr(value)


def test_a_dataclass_is_put_together_without_its_init() -> None:
    user = User("a")
    user.name = "must not be called again"
    assert there_and_back(user).name == user.name


def test_a_cached_property_is_not_part_of_a_value() -> None:
    user = User("a")
    assert user.shout == "A"
    assert vars(there_and_back(user)) == {"name": "a", "tags": []}


def refused(value: object, pickle_types: frozenset[str] = frozenset()) -> str:
    with pytest.raises(ValueRefused) as caught:
        encode_rows([("fine", 1, "fine"), ("fine", value, "fine")], pickle_types)
    assert caught.value.message.startswith("field 1: ")
    assert caught.value.fix
    return caught.value.message


class Naughty(dt.tzinfo):
    def utcoffset(self, moment: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(0)

    dst = utcoffset

    def tzname(self, moment: dt.datetime | None) -> str:
        return "naughty"


@dataclass
class Local:
    """Replaced below by a namesake, so it cannot be found by name."""


Lost = Local


class Local:  # type: ignore[no-redef]
    pass


def local_dataclass() -> object:
    @dataclass
    class Hidden:
        x: int = 1

    return Hidden()


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (object(), "object does not travel"),
        (bytearray(b"a"), "bytearray does not travel"),
        (iter(()), "tuple_iterator does not travel"),
        (lambda: 1, "function does not travel"),
        (1j, "complex does not travel"),
        (Plain(1), "Plain does not travel"),
        (Plain, "type does not travel"),
        (defaultdict(int), r"write dict\(value\)"),
        (OrderedDict(), r"write dict\(value\)"),
        (type("Name", (str,), {})("a"), r"write str\(value\)"),
        (Mapping(), "derived from a built-in type"),
        (local_dataclass(), "inside a function"),
        (Lost(), "cannot be found again"),
        (dt.datetime(2020, 1, 1, tzinfo=Naughty()), "Naughty does not travel"),
        (dt.time(1, tzinfo=Naughty()), "Naughty does not travel"),
    ],
)
def test_types_outside_the_set_are_refused_at_once_and_inside_others(value: object, why: str) -> None:
    assert check_row(("a", value)) == 1
    assert re.search(why, check_value(value) or "")
    for nested in (value, [value], (1, value), {"a": value}, {1: value}, {"a": [({1: User("a", value)},)]}):
        assert re.search(why, refused(nested))


def endless() -> Iterator[object]:
    a: list[object] = []
    a.append(a)
    yield a
    b: dict[str, object] = {}
    b["x"] = [b]
    yield b
    c = User("c")
    c.tags = (c, c)
    yield c


def test_a_value_that_contains_itself_is_refused() -> None:
    for value in endless():
        assert "in itself" in refused(value)


def test_values_nest_64_deep_and_no_deeper() -> None:
    for wrap in (lambda x: [x], lambda x: (x,), lambda x: {"a": x}, lambda x: {1: x}, Slotted):
        value: Any = 1
        for _ in range(64):
            value = wrap(value)
        assert same(there_and_back(value), value)
        assert "deeper than 64" in refused(wrap(value))


def test_text_that_is_not_unicode_is_refused() -> None:
    for value in ("\ud800", ["a\udcff"], {"\udcff": 1}, (User("\ud800"),), {("\ud800",)}):
        assert "surrogate" in refused(value)
        assert check_value(value) is None, "seen only when it is encoded"


def test_what_is_not_a_field_is_refused_rather_than_lost() -> None:
    user = User("a")
    user.extra = 1  # type: ignore[attr-defined]
    assert "'extra', which is not one of its fields" in refused(user)
    unset = Slotted.__new__(Slotted)
    assert "a field without a value" in refused([unset])


# pickle by opt-in


def test_a_type_that_was_opted_in_travels_as_a_pickle() -> None:
    allowed = frozenset([PLAIN])
    assert check_value(Plain(1)) is not None
    assert check_value(Plain(1), allowed) is None
    value = Plain([Plain(1), "a"])
    assert same(there_and_back(value, allowed), value)
    assert same(there_and_back([value, (1,)], allowed), [value, (1,)])


def test_pickles_are_refused_by_a_receiver_that_did_not_opt_in() -> None:
    data = encode_rows([(Plain(1),)], frozenset([PLAIN]))
    with pytest.raises(WireError, match="not allowed to travel as a pickle"):
        decode_rows(data)
    with pytest.raises(WireError, match="not allowed"):
        decode_rows(data, frozenset(["other:Class"]))


def test_a_pickle_must_be_what_it_claims() -> None:
    data = encode([1, [Ext(values.PICKLE, encode([PLAIN, pickle.dumps(1)]))]])
    with pytest.raises(WireError, match="claims to be"):
        decode_rows(data, frozenset([PLAIN]))


def test_what_does_not_pickle_is_refused() -> None:
    assert "cannot be pickled" in refused(Stubborn(1), frozenset([value_types.type_name(Stubborn)]))


def test_uuid_and_bytes_do_not_alias_the_frame() -> None:
    frame = bytearray(encode_rows([(b"abc", UUID(int=5), (b"def",))]))
    rows = decode_rows(memoryview(frame))
    frame[:] = bytes(len(frame))
    assert rows == [(b"abc", UUID(int=5), (b"def",))]
