"""The law of the stable hash: equal keys, equal hashes, in every process; what cannot keep it is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainband.errors import ValueRefused
from rainband.groupings.hashing import HASH_VERSION, key_group, stable_hash, task_of_group

ROOT = Path(__file__).resolve().parents[3]
LONDON = ZoneInfo("Europe/London")


class Colour(Enum):
    RED = 1
    ROT = 1  # noqa: PIE796 - an alias is meant
    BLUE = 2


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


@dataclass(frozen=True)
class User:
    name: str
    age: object = 0
    seen: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Other:
    name: str
    age: object = 0


class Place(msgspec.Struct, frozen=True):
    city: str
    zip: object


class Odd(str):
    """A str with an equality of its own."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1


@dataclass(frozen=True)
class Loose:
    name: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loose) and self.name.lower() == other.name.lower()


class Anything:
    """Hashable, by identity."""


numbers = st.one_of(
    st.integers(),
    st.integers(-3, 3),
    st.booleans(),
    st.floats(allow_nan=False),
    st.decimals(allow_nan=False, min_value=-1000, max_value=1000, places=2),
    st.fractions(),
    st.complex_numbers(allow_nan=False),
)
scalars = st.one_of(
    numbers,
    st.none(),
    st.text(),
    st.binary(),
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.sampled_from([Colour.RED, Right.READ | Right.WRITE, Level.LOW, Word.APPLE]),
)
keys = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.frozensets(inner, max_size=3),
        st.builds(User, st.text(), inner),
        st.builds(Place, st.text(), inner),
    ),
    max_leaves=5,
)


def disguised(key: Any) -> list[Any]:
    """Keys equal to `key` by `==`, of as many other types as there are."""
    kind = type(key)
    if kind in (int, bool):
        same: list[Any] = [Decimal(key), Fraction(key), int(key)]
        same += [float(key), complex(key)] if abs(key) < 2**53 else []
        return same + ([bool(key)] if key in (0, 1) else [])
    if kind is float:
        infinite = key in (float("inf"), float("-inf"))
        return [Decimal(key), complex(key), *([] if infinite else [Fraction(key)])]
    if kind is str:
        return [type("Name", (str,), {})(key)]
    if kind is tuple:
        same = [tuple(disguised(item)[0] for item in key)]
        return same + ([Point(*key)] if len(key) == 2 else [])
    if kind is frozenset:
        return [frozenset(reversed([disguised(item)[0] for item in key]))]
    if kind is datetime and key.tzinfo is UTC and key.year not in (1, 9999):
        return [key.astimezone(timezone(timedelta(hours=5, minutes=30), "IST"))]
    if kind is User:
        return [User(key.name, disguised(key.age)[0], seen=key.seen + 1)]
    return [key]


@given(keys)
def test_keys_equal_by_python_have_one_hash(key: object) -> None:
    for same in disguised(key):
        assert same == key
        assert stable_hash(same) == stable_hash(key)


@given(keys)
def test_the_hash_has_63_bits(key: object) -> None:
    assert 0 <= stable_hash(key) <= 2**63 - 1


@given(st.lists(st.one_of(st.text(max_size=3), st.binary(max_size=3), st.integers(-9, 9), st.none()), unique=True))
def test_small_different_keys_hash_differently(different: list[object]) -> None:
    assert len({stable_hash(key) for key in different}) == len(different)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("a", b"a"),
        ("1", 1),
        ((), frozenset()),
        (("a", "b"), ("ab",)),
        (("a", ("b",)), ("a", "b")),
        ((1,), 1),
        (None, 0),
        (date(2020, 1, 1), datetime(2020, 1, 1)),
        (datetime(2020, 1, 1), datetime(2020, 1, 1, tzinfo=UTC)),
        (time(1), timedelta(hours=1)),
        (UUID(int=7), 7),
        (Colour.RED, Colour.BLUE),
        (User("a"), Other("a")),
        (float("inf"), float("-inf")),
    ],
)
def test_unequal_keys_of_like_content_differ(a: object, b: object) -> None:
    assert a != b
    assert stable_hash(a) != stable_hash(b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (0.0, -0.0),
        (1, True),
        (Decimal("1.50"), 1.5),
        (Decimal("1E+2"), 100),
        (Level.LOW, 1.0),
        (Word.APPLE, "apple"),
        (Colour.RED, Colour.ROT),
        (Right.READ | Right.WRITE, Right(3)),
        (timedelta(days=1), timedelta(hours=24)),
        (datetime(2020, 7, 1, 13, tzinfo=LONDON), datetime(2020, 7, 1, 12, tzinfo=UTC)),
        (datetime(2020, 10, 25, 1, 30, tzinfo=LONDON), datetime(2020, 10, 25, 1, 30, tzinfo=LONDON, fold=1)),
        (datetime(2020, 1, 1, fold=1), datetime(2020, 1, 1)),
        (time(1, tzinfo=timezone(timedelta(hours=1))), time(0, tzinfo=UTC)),
        (Point(1, "a"), (True, "a")),
        (frozenset([1, "a", None]), frozenset([None, "a", 1.0])),
        ("\ud800", "\ud800"),
    ],
)
def test_pairs_that_python_calls_equal(a: object, b: object) -> None:
    assert a == b
    assert stable_hash(a) == stable_hash(b)


NAN = float("nan")


@pytest.mark.parametrize(
    "key",
    [
        NAN,
        Decimal("nan"),
        Decimal("snan"),
        complex(0, NAN),
        ("a", (NAN,)),
        frozenset([NAN]),
        User("a", NAN),
        Place("a", NAN),
    ],
)
def test_nan_is_refused_wherever_it_is(key: object) -> None:
    with pytest.raises(ValueRefused, match="NaN"):
        stable_hash(key)


@pytest.mark.parametrize("key", [[], {}, set(), bytearray(), ([],), ("a", {})])
def test_unhashable_keys_are_refused_with_the_fix(key: object) -> None:
    with pytest.raises(ValueRefused, match="not hashable") as caught:
        stable_hash(key)
    assert "tuple for list" in caught.value.fix


@pytest.mark.parametrize("key", [Anything(), (Anything(),), Odd("a"), Loose("a"), range(3), len, int, memoryview(b"a")])
def test_keys_without_a_canonical_form_are_refused_with_the_fix(key: object) -> None:
    with pytest.raises(ValueRefused, match="not the same in every process") as caught:
        stable_hash(key)
    assert caught.value.fix


def test_a_key_may_not_nest_without_end() -> None:
    key: object = ()
    for _ in range(100):
        key = (key,)
    with pytest.raises(ValueRefused, match="nested deeper"):
        stable_hash(key)


def test_numpy_scalars_hash_as_the_values_they_equal() -> None:
    np = pytest.importorskip("numpy")
    for scalar, plain in [
        (np.int8(3), 3),
        (np.uint64(3), 3.0),
        (np.float64(1.5), 1.5),
        (np.True_, 1),
        (np.str_("a"), "a"),
    ]:
        assert scalar == plain
        assert stable_hash(scalar) == stable_hash(plain)
        assert stable_hash((scalar,)) == stable_hash((plain,))
    assert stable_hash(np.bytes_(b"a")) == stable_hash(b"a")
    for refused in [np.float32(0.1), np.float64("nan"), np.datetime64("2020-01-01"), np.array([1])]:
        with pytest.raises(ValueRefused):
            stable_hash(refused)


FIXED = {
    "word": 1293227230305030076,
    "": 1889538256310115415,
    "naïve ☂": 3757419196090383426,
    7: 2717414944254666788,
    -1: 8127769198490768436,
    2**200: 2414502347546404764,
    1.5: 644054169298183024,
    None: 2015415361647317204,
    b"word": 5174254076490870969,
    ("word", 7): 2597654983461929548,
    frozenset(["a", "b", "c"]): 2651193950028555248,
    date(2020, 2, 29): 6324550139521049422,
    datetime(2020, 2, 29, 1, 2, 3, tzinfo=UTC): 4283389928154893674,
    UUID(int=5): 4806413676020308002,
}


def test_version_1_gives_these_hashes_for_ever() -> None:
    """Stored state will depend on them: another answer needs another HASH_VERSION."""
    assert HASH_VERSION == 1
    assert {key: stable_hash(key) for key in FIXED} == FIXED


SCRIPT = """
from datetime import date, datetime, timezone
from uuid import UUID
from rainband.groupings import stable_hash
FIXED = {keys!r}
print([stable_hash(key) for key in FIXED])
"""


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_hashes_agree_across_processes(seed: str) -> None:
    script = SCRIPT.replace(
        "{keys!r}", repr(list(FIXED)).replace("datetime.date", "date").replace("datetime.datetime", "datetime")
    )
    script = script.replace("datetime.timezone", "timezone")
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == str(list(FIXED.values()))


@pytest.mark.parametrize("tasks", [1, 2, 3, 7, 64, 65, 100])
@pytest.mark.parametrize("extra", [0, 1, 2])
def test_groups_are_spread_over_all_tasks_in_even_contiguous_ranges(tasks: int, extra: int) -> None:
    groups = 64
    while groups < 64 * tasks:
        groups *= 2
    groups <<= extra
    owners = [task_of_group(group, tasks, groups) for group in range(groups)]
    assert owners == sorted(owners)
    sizes = Counter(owners)
    assert sizes.keys() == set(range(tasks))
    assert max(sizes.values()) - min(sizes.values()) <= 1


def test_keys_spread_evenly_over_groups() -> None:
    counts = [0] * 64
    for number in range(6400):
        counts[key_group(f"key-{number}", 64)] += 1
    assert 60 <= min(counts) <= max(counts) <= 145
    counts = [0] * 64
    for number in range(6400):
        counts[key_group(number * 64, 64)] += 1
    assert 60 <= min(counts) <= max(counts) <= 145
