"""Rows into columns, and what is in them."""

from __future__ import annotations

import pytest

from rainband.messaging.columns import columns_of, only


def test_columns_of_rows() -> None:
    assert columns_of([(1, "a"), (2, "b"), (3, "c")]) == [[1, 2, 3], ["a", "b", "c"]]
    assert columns_of([(), ()]) == []


def test_rows_must_have_one_width() -> None:
    with pytest.raises(ValueError, match="differ in width"):
        columns_of([(1,), (1, 2)])


def test_exact_types_count() -> None:
    plain: frozenset[type] = frozenset((int, str))
    assert only(plain, [])
    assert only(plain, [1, "a", 2, 3, "b"])
    assert not only(plain, [1, True])
    assert not only(plain, [1.0, 1])
