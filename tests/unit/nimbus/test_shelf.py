"""When code that no topology names is thrown away."""

from __future__ import annotations

from rainband.nimbus.shelf import Unnamed


def test_what_nobody_names_goes_after_the_expiry_and_not_before() -> None:
    unnamed = Unnamed(10.0)
    assert unnamed.overdue({"a", "b"}, {"a"}, 100.0) == []
    assert unnamed.overdue({"a", "b"}, {"a"}, 110.0) == []
    assert unnamed.overdue({"a", "b"}, {"a"}, 110.1) == ["b"]


def test_who_was_named_or_wanted_meanwhile_has_the_whole_time_again() -> None:
    unnamed = Unnamed(10.0)
    unnamed.overdue({"a", "b", "c"}, set(), 100.0)
    unnamed.overdue({"a", "b", "c"}, {"a"}, 105.0)
    unnamed.touch("b", 106.0)
    unnamed.touch("unknown", 106.0)
    assert unnamed.overdue({"a", "b", "c"}, set(), 111.0) == ["c"]
    assert sorted(unnamed.overdue({"a", "b", "c"}, set(), 116.5)) == ["b", "c"]
