"""Bytes that are not ours raise WireError and nothing else; a peer can name a class, never bring one."""

from __future__ import annotations

import subprocess
import sys
import threading
import tracemalloc
from dataclasses import dataclass
from enum import Enum, Flag
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.msgpack import Ext, encode

from rainband.errors import WireError
from rainband.messaging import value_types, values
from rainband.messaging.values import decode_rows, encode_rows


class Colour(Enum):
    RED = "red"


class Right(Flag):
    READ = 1


@dataclass
class User:
    name: str
    age: object


class Plain:
    pass


class Outer:
    pass


PLAIN = value_types.type_name(Plain)

plain = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(), st.binary())
richer = st.one_of(
    plain, st.integers(), st.decimals(), st.datetimes(), st.uuids(), st.tuples(plain), st.sampled_from(Colour)
)
rows_of_three = st.lists(st.tuples(st.text(), plain, st.one_of(richer, st.builds(User, st.text(), richer))), max_size=5)


# classes are looked up, never brought


def record(name: object, *parts: object) -> bytes:
    return encode([1, [Ext(values.RECORD, encode([name, *parts]))]])


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "builtins:eval",
        "subprocess:Popen",
        "antigravity:x",
        "this:C",
        PLAIN,
        "",
        ":",
        "a" * 600 + ":b",
        7,
        None,
        "datetime:datetime",
        f"{__name__}:Outer",
        f"{__name__}:nothing.at.all",
        f"{__name__}:Colour.RED",
    ],
)
def test_a_peer_cannot_name_anything_but_a_value_class(name: object) -> None:
    with pytest.raises(WireError):
        decode_rows(record(name, "echo"))
    assert "this" not in sys.modules
    assert "antigravity" not in sys.modules


def test_a_record_must_fit_its_class() -> None:
    user, colour, right = (value_types.type_name(kind) for kind in (User, Colour, Right))
    for data in (
        record(user),
        record(user, "a"),
        record(user, 1, 2, 3),
        record(colour, "GREEN"),
        record(right, "x"),
        record(colour),
    ):
        with pytest.raises(WireError):
            decode_rows(data)


BUNDLED = """
import sys
from rainband.messaging.value_types import trust_code
from rainband.messaging.values import decode_rows
sys.path.insert(0, sys.argv[1])
if sys.argv[2] == "trusted":
    trust_code(sys.argv[1])
print(decode_rows(bytes.fromhex(sys.argv[3])))
"""


def test_modules_of_the_bundle_are_imported_when_needed_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "__init__.py").write_text("")
    (tmp_path / "events" / "kinds.py").write_text(
        "from typing import NamedTuple\nclass Seen(NamedTuple):\n    who: str\n"
    )
    root = str(Path(values.__file__).parents[2])
    data = record("events.kinds:Seen", "bob").hex()
    for trust, expected in (("trusted", "[(Seen(who='bob'),)]"), ("not", "WireError")):
        command = [sys.executable, "-c", BUNDLED, str(tmp_path), trust, data]
        done = subprocess.run(
            command, env={"PYTHONPATH": root}, capture_output=True, text=True, check=False, timeout=60
        )
        assert expected in done.stdout + done.stderr


# bytes that are not ours


def decodes_or_wire_error(data: bytes) -> None:
    try:
        rows = decode_rows(data, frozenset(["nothing:Known"]))
    except WireError:
        return
    assert type(rows) is list
    assert all(type(row) is tuple for row in rows)
    assert len({len(row) for row in rows}) <= 1


@given(st.binary(max_size=200))
def test_random_bytes_give_rows_or_a_wire_error(data: bytes) -> None:
    decodes_or_wire_error(data)


@given(rows_of_three, st.data())
def test_damaged_rows_give_rows_or_a_wire_error(rows: list[tuple[Any, ...]], data: st.DataObject) -> None:
    damaged = bytearray(encode_rows(rows))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged)))
        damaged[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    decodes_or_wire_error(bytes(damaged))


@given(st.integers(0, 127), st.binary(max_size=60))
def test_any_extension_gives_rows_or_a_wire_error(code: int, payload: bytes) -> None:
    decodes_or_wire_error(encode([1, [Ext(code, payload)]]))


@given(
    st.integers(1, 18),
    st.lists(st.one_of(plain, st.just([])), max_size=4),
)
def test_any_parts_of_an_extension_give_rows_or_a_wire_error(code: int, parts: list[Any]) -> None:
    decodes_or_wire_error(encode([1, [Ext(code, encode(parts))]]))


def nested(code: int, depth: int) -> bytes:
    payload = b"\x90"
    for _ in range(depth):
        payload = encode([Ext(code, payload)])
    return encode([1, [Ext(code, payload)]])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\xdd\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff" * 50,
        b"\xdf\x0f\xff\xff\xff" * 50,
        b"\x91" * 100_000,
        b"\xc9\xff\xff\xff\xff\x02",
        b"\x91\xce\xff\xff\xff\xff",
        encode([2**40]),
        encode([-1]),
        encode([True, [1]]),
        encode([1.0, [1]]),
        encode([2, [1, 2], [1]]),
        encode([1, {"a": 1}]),
        encode({"a": 1}),
        encode([1, [1]]) + b"\x00",
        nested(values.TUPLE, 70),
        nested(values.FROZENSET, 3000),
        encode([1, [Ext(values.DICT, encode([1]))]]),
        encode([1, [Ext(values.DICT, encode([[], 1]))]]),
        encode([1, [Ext(values.SET, encode([[]]))]]),
        encode([1, [Ext(values.ZONED_DATETIME, encode(["2020-01-01", 7, None]))]]),
        encode([1, [Ext(values.ZONED_DATETIME, encode(["2020-01-01", 0, "../../etc/passwd"]))]]),
        encode([1, [Ext(values.ZONED_DATETIME, encode(["2020-01-01", 0, [99999, 0, 0]]))]]),
        encode([1, [Ext(values.DECIMAL, b"1e99999999999999999999999")]]),
        encode([1, [Ext(values.TIMEDELTA, b"\xff\xff\xff\x7f" * 3)]]),
        encode([1, [Ext(values.ARRAY, b"\xff\xff\xff\xff")]]),
        encode([1, [Ext(99, b"")]]),
    ],
)
def test_hostile_bytes_raise_wire_error_and_take_no_memory(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            decode_rows(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000 + 100 * len(data)


def test_a_refused_frame_leaves_the_decoder_as_it_was() -> None:
    for _ in range(200):
        with pytest.raises(WireError):
            decode_rows(nested(values.TUPLE, 70))
        with pytest.raises(WireError):
            decode_rows(encode([1, [Ext(values.TUPLE, encode([Ext(99, b"")]))]]))
    assert decode_rows(encode_rows([((1, (2,)),)])) == [((1, (2,)),)]


def test_threads_do_not_share_a_decoder() -> None:
    rows = [((1, (2, (3, "x" * 50))),)] * 50
    data = encode_rows(rows)
    wrong: list[object] = []

    def work() -> None:
        for _ in range(60):
            if decode_rows(data) != rows:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
