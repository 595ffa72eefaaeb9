"""Rows into columns, and what is in a column: the part of the codec that looks at each value. Compiled."""

from __future__ import annotations

from collections.abc import Sequence

from mypy_extensions import i64


def columns_of(rows: Sequence[tuple[object, ...]]) -> list[list[object]]:
    """The columns of at least one row. Raises ValueError when the rows differ in width."""
    width: i64 = len(rows[0])
    for row in rows:
        if len(row) != width:
            raise ValueError("rows differ in width")
    columns: list[list[object]] = []
    at: i64 = 0
    while at < width:
        columns.append([row[at] for row in rows])
        at += 1
    return columns


def only(types: frozenset[type], column: list[object]) -> bool:
    """Whether the exact type of every value is among `types`."""
    last: object = None
    for value in column:
        kind = type(value)
        if kind is not last:
            if kind not in types:
                return False
            last = kind
    return True
