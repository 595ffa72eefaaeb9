"""The codec of rows: what comes out has exactly the types that went in.

Rows of one stream are encoded together, as columns: `[count, column, column, ...]` in MessagePack. None, bool, int of
64 bits, float, str and bytes are MessagePack's own, so a column of them never passes through Python code; so are lists
and dicts with str keys. Every other value is an extension, whose payload is again MessagePack where it has parts.

Limits: values nest at most DEPTH_MAX deep, so a value that contains itself is refused; a str must be valid Unicode.
Bytes from a peer are never trusted: whatever is wrong with them raises WireError and nothing else.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from msgspec.msgpack import Decoder, Encoder, Ext

from rainband.errors import ValueRefused, WireError
from rainband.messaging.columns import columns_of, only
from rainband.messaging.value_types import (
    Known,
    arrow_buffer,
    build_known,
    find_class,
    is_arrow_buffer,
    is_numpy,
    known_class,
    numpy_parts,
    numpy_value,
    type_name,
)

PLAIN_TYPES: frozenset[type] = frozenset((type(None), bool, int, float, str, bytes))
CONTAINER_TYPES: frozenset[type] = frozenset((list, tuple, dict, set, frozenset))
MOMENT_TYPES: frozenset[type] = frozenset((datetime, date, time, timedelta))
TRAVELLING_TYPES: frozenset[type] = PLAIN_TYPES | CONTAINER_TYPES | MOMENT_TYPES | {Decimal, UUID, msgspec.UnsetType}
NO_PICKLES: frozenset[str] = frozenset()

DEPTH_MAX = 64
CONTAINERS_MAX = 1 << 24
BARE_ROWS_MAX = 1 << 20

# Extension codes. They are part of the wire format: never renumber, only add.
BIG_INT = 1
TUPLE = 2
SET = 3
FROZENSET = 4
DICT = 5
DATETIME = 6
DATE = 7
TIME = 8
TIMEDELTA = 9
ZONED_DATETIME = 10
ZONED_TIME = 11
DECIMAL = 12
UUID_BYTES = 13
RECORD = 14
ARRAY = 15
ARROW_BUFFER = 16
PICKLE = 17
UNSET = 18

KEY_TYPES: frozenset[type] = frozenset((str,))
INT_MIN = -(1 << 63)
INT_MAX = (1 << 64) - 1
SPAN = struct.Struct("<iii")
LENGTH = struct.Struct("<I")

_encode = Encoder().encode


def check_row(row: Sequence[object], pickle_types: frozenset[str] = NO_PICKLES) -> int:
    """Index of the first value whose own type does not travel, -1 when all do. What is inside them is not looked at."""
    for index, value in enumerate(row):
        if type(value) not in PLAIN_TYPES and check_value(value, pickle_types) is not None:
            return index
    return -1


def check_value(value: object, pickle_types: frozenset[str] = NO_PICKLES) -> str | None:
    """Why a value of this type does not travel; None when it does, as far as is known without looking inside."""
    kind = type(value)
    if kind in TRAVELLING_TYPES:
        if kind is datetime or kind is time:
            return _zone_problem(getattr(value, "tzinfo", None))
        return None
    known = known_class(kind)
    name = type_name(kind)
    if isinstance(known, Known) or name in pickle_types or is_numpy(value) or is_arrow_buffer(value):
        return None
    if known:
        return known
    shown = kind.__qualname__ if kind.__module__ == "builtins" else name
    for base in (dict, list, tuple, set, frozenset, str, bytes, int, float):
        if issubclass(kind, base):
            return f"a value of type {shown} does not travel; write {base.__name__}(value)"
    return f"a value of type {shown} does not travel"


def encode_rows(rows: Sequence[tuple[object, ...]], pickle_types: frozenset[str] = NO_PICKLES) -> bytes:
    """Bytes of rows of equal width.

    Raises ValueRefused, naming the field's index and the type, when a value cannot travel; ValueError when the rows
    differ in width.
    """
    columns = columns_of(rows) if rows else []
    try:
        return _encode_columns(len(rows), columns, pickle_types, False)
    except (OverflowError, UnicodeEncodeError):  # an int beyond 64 bits, half a surrogate pair: look at each value
        return _encode_columns(len(rows), columns, pickle_types, True)


def _encode_columns(count: int, columns: list[list[object]], pickle_types: frozenset[str], wide: bool) -> bytes:
    packed: list[object] = [count]
    for index, column in enumerate(columns):
        if wide or not only(PLAIN_TYPES, column):
            column = _pack_column(index, column, pickle_types, wide)
        packed.append(column)
    return _encode(packed)


def decode_rows(data: bytes | memoryview, pickle_types: frozenset[str] = NO_PICKLES) -> list[tuple[Any, ...]]:
    """The rows in `data`. Raises WireError when it is not what `encode_rows` makes."""
    pool = _unpackers.get(pickle_types)
    if pool is None:
        pool = _unpackers.setdefault(pickle_types, [])
    try:
        unpacker = pool.pop()
    except IndexError:
        unpacker = Unpacker(pickle_types)
    try:
        columns: Any = unpacker.decode(data)
        count: object = columns.pop(0) if type(columns) is list and columns else None
        if type(count) is not int or count < 0:
            raise WireError("bad rows: not a list of columns")
        for column in columns:
            if type(column) is not list or len(column) != count:
                raise WireError("bad rows: columns differ in length")
        if not columns and count > BARE_ROWS_MAX:
            raise WireError("bad rows: too many without values")
    except WireError:
        raise
    except Exception as error:
        raise WireError(f"bad rows: {type(error).__name__}: {str(error)[:200]}") from None
    if len(pool) < POOL_MAX:
        pool.append(unpacker)
    return list(zip(*columns, strict=True)) if columns else [()] * count


def _pack_column(index: int, column: list[object], pickle_types: frozenset[str], wide: bool) -> list[object]:
    packer = Packer(pickle_types, wide)
    try:
        return [packer.pack(value, 0) for value in column]
    except ValueRefused as error:
        raise ValueRefused(error.message, error.fix, index) from None
    except RecursionError:
        raise ValueRefused("the value is nested too deep", "Emit a flatter value", index) from None


def _zone_problem(zone: tzinfo | None) -> str | None:
    if zone is None or type(zone) is timezone or (type(zone) is ZoneInfo and zone.key is not None):
        return None
    name = type_name(type(zone))
    return f"a time with a tzinfo of type {name} does not travel; use datetime.timezone or zoneinfo.ZoneInfo(key)"


class Packer:
    """Turns values into what MessagePack can hold. `wide`: some int is beyond 64 bits or some str is not Unicode."""

    def __init__(self, pickle_types: frozenset[str], wide: bool) -> None:
        self.pickle_types = pickle_types
        self.wide = wide
        self.containers = 0

    def pack(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in PLAIN_TYPES:
            return self.pack_wide(value) if self.wide else value
        if kind in CONTAINER_TYPES:
            return self.pack_container(value, kind, depth)
        if kind in MOMENT_TYPES:
            return pack_moment(value, kind)
        if kind is Decimal:
            return Ext(DECIMAL, str(value).encode())
        if kind is UUID:
            return Ext(UUID_BYTES, value.bytes)
        if self.pickle_types and type_name(kind) in self.pickle_types:
            return pack_pickle(value)
        known = known_class(kind)
        if isinstance(known, Known):
            return self.pack_known(value, known, depth)
        if is_numpy(value):
            dtype, order, shape, data = numpy_parts(value)
            header = _encode((dtype, order, shape))
            return Ext(ARRAY, b"".join((LENGTH.pack(len(header)), header, data)))
        if is_arrow_buffer(value):
            return Ext(ARROW_BUFFER, value.to_pybytes())
        if value is msgspec.UNSET:
            return Ext(UNSET, b"")
        raise self.refusal(value)

    def pack_wide(self, value: Any) -> Any:
        if type(value) is int:
            if INT_MIN <= value <= INT_MAX:
                return value
            return Ext(BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
        if type(value) is str:
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueRefused(
                    f"the str {value[:40]!r} does not travel: it has half a surrogate pair and is not valid Unicode",
                    'Read the text with errors="replace", or emit bytes',
                ) from None
        return value

    def pack_container(self, value: Any, kind: type, depth: int) -> Any:
        self.containers += 1
        if depth >= DEPTH_MAX or self.containers > CONTAINERS_MAX:
            raise ValueRefused(
                f"a {kind.__name__} nested deeper than {DEPTH_MAX}, or in itself", "Emit a flatter value"
            )
        if kind is dict:
            return self.pack_dict(value, depth + 1)
        items: Any = value
        if self.wide or not PLAIN_TYPES.issuperset(map(type, value)):
            items = [self.pack(item, depth + 1) for item in value]
        if kind is list:
            return items
        code = TUPLE if kind is tuple else SET if kind is set else FROZENSET
        return Ext(code, self.encode(items))

    def pack_dict(self, value: dict[Any, Any], depth: int) -> Any:
        if KEY_TYPES.issuperset(map(type, value)) and not self.wide:
            if PLAIN_TYPES.issuperset(map(type, value.values())):
                return value
            return {key: self.pack(item, depth) for key, item in value.items()}
        return Ext(DICT, self.encode([self.pack(part, depth) for pair in value.items() for part in pair]))

    def pack_known(self, value: object, known: Known, depth: int) -> Ext:
        if depth >= DEPTH_MAX:
            raise ValueRefused(f"a {known.name} nested deeper than {DEPTH_MAX}, or in itself", "Emit a flatter value")
        try:
            parts = known.parts(value)
        except TypeError as error:
            raise ValueRefused(str(error), "Make it a field, or do not set it on what is emitted") from None
        return Ext(RECORD, self.encode([known.name, *[self.pack(part, depth + 1) for part in parts]]))

    def encode(self, packed: object) -> bytes:
        return _encode(packed)

    def refusal(self, value: object) -> ValueRefused:
        kind = type(value)
        reason = check_value(value, self.pickle_types) or f"a value of type {type_name(kind)} does not travel"
        return ValueRefused(reason, f"Emit plain values, or list '{type_name(kind)}' under topology.pickle.types")


def pack_moment(value: Any, kind: type) -> object:
    """A datetime, date, time or timedelta. UTC datetimes stay: MessagePack's own timestamp gives them back exactly."""
    if kind is timedelta:
        return Ext(TIMEDELTA, SPAN.pack(value.days, value.seconds, value.microseconds))
    if kind is date:
        return Ext(DATE, iso_text(value))
    zone = value.tzinfo
    if not value.fold:
        if zone is None:
            return Ext(DATETIME if kind is datetime else TIME, iso_text(value))
        if zone is UTC and kind is datetime:
            return value
    problem = _zone_problem(zone)
    if problem is not None:
        raise ValueRefused(problem, "Write value.astimezone(datetime.timezone.utc), or use zoneinfo")
    where: object = None
    if type(zone) is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        where = [offset.days, offset.seconds, offset.microseconds, *name]
    elif zone is not None:
        where = zone.key
    local = value.replace(tzinfo=None, fold=0).isoformat()
    return Ext(ZONED_DATETIME if kind is datetime else ZONED_TIME, _encode([local, value.fold, where]))


def iso_text(moment: date | time) -> bytes:
    """ISO 8601 of a date, or of a naive datetime or time: what msgspec writes, less the string's one-byte header."""
    return _encode(moment)[1:]


def pack_pickle(value: object) -> Ext:
    """A value of a type that was opted in."""
    name = type_name(type(value))
    try:
        data = pickle.dumps(value, protocol=5)
    except Exception as error:
        raise ValueRefused(f"a {name} cannot be pickled: {error}", "Give it __reduce__ or __getstate__") from None
    return Ext(PICKLE, _encode([name, data]))


class Unpacker:
    """Decodes values; `depth` is how deep in extensions it is. Not shared between threads."""

    def __init__(self, pickle_types: frozenset[str]) -> None:
        self.pickle_types = pickle_types
        self.depth = 0
        self.decode = Decoder(ext_hook=self.extension).decode

    def extension(self, code: int, data: memoryview) -> object:
        self.depth += 1
        if self.depth > DEPTH_MAX + 1:
            raise WireError(f"bad rows: nested deeper than {DEPTH_MAX}")
        value = self.unpack(code, data)
        self.depth -= 1
        return value

    def unpack(self, code: int, data: memoryview) -> object:
        if code == TUPLE:
            return tuple(self.items(data))
        if code == DATETIME:
            return datetime.fromisoformat(str(data, "ascii"))
        if code == DATE:
            return date.fromisoformat(str(data, "ascii"))
        if code == TIME:
            return time.fromisoformat(str(data, "ascii"))
        if code == DECIMAL:
            return Decimal(str(data, "ascii"))
        if code == UUID_BYTES:
            return UUID(bytes=bytes(data))
        if code == SET:
            return set(self.items(data))
        if code == FROZENSET:
            return frozenset(self.items(data))
        if code == DICT:
            parts = self.items(data)
            return dict(zip(parts[::2], parts[1::2], strict=True))
        if code == BIG_INT:
            return int.from_bytes(data, "little", signed=True)
        if code == TIMEDELTA:
            days, seconds, microseconds = SPAN.unpack(data)
            return timedelta(days, seconds, microseconds)
        return self.unpack_rare(code, data)

    def unpack_rare(self, code: int, data: memoryview) -> object:
        if code == RECORD:
            name, *parts = self.items(data)
            return build_known(name, parts)
        if code == ZONED_DATETIME or code == ZONED_TIME:
            text, fold, where = self.items(data)
            local = (datetime if code == ZONED_DATETIME else time).fromisoformat(text)
            return local.replace(tzinfo=unpack_zone(where), fold=fold)
        if code == ARRAY:
            start = LENGTH.size + LENGTH.unpack_from(data)[0]
            dtype, order, shape = self.items(data[LENGTH.size : start])
            return numpy_value(dtype, order, shape, data[start:])
        if code == ARROW_BUFFER:
            return arrow_buffer(data)
        if code == PICKLE:
            return self.unpack_pickle(data)
        if code == UNSET:
            return msgspec.UNSET
        raise WireError(f"bad rows: unknown extension {code}")

    def items(self, data: memoryview) -> list[Any]:
        found = self.decode(data)
        if type(found) is not list:
            raise WireError("bad rows: an extension without parts")
        return found

    def unpack_pickle(self, data: memoryview) -> object:
        name, pickled = self.items(data)
        if name not in self.pickle_types:
            raise WireError(f"bad rows: {name[:80]} is not allowed to travel as a pickle")
        value = pickle.loads(pickled)
        if type(value) is not find_class(name):
            raise WireError(f"bad rows: a pickle is not the {name[:80]} it claims to be")
        return value


def unpack_zone(where: Any) -> tzinfo | None:
    """The zone from its key, or from days, seconds, microseconds and perhaps a name."""
    if where is None:
        return None
    if type(where) is str:
        return ZoneInfo(where)
    days, seconds, microseconds, *name = where
    return timezone(timedelta(days, seconds, microseconds), *name)


POOL_MAX = 8
_unpackers: dict[frozenset[str], list[Unpacker]] = {}
