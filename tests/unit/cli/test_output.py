"""What is printed, to the letter."""

from __future__ import annotations

import json

import pytest

from rainband.cli import output, watch
from rainband.errors import Refused
from rainband.records import ErrorRecord, Status, TopologySummary


def test_table_pads_and_puts_numbers_right() -> None:
    text = output.table([("a", 1, "x"), ("bcd", 12345, "")], ("name", "n", "rest"))
    assert text.splitlines() == ["NAME       N  REST", "a          1  x", "bcd   12,345"]


def test_table_without_rows_is_its_header() -> None:
    assert output.table([], ("name", "n")) == "NAME  N"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0.0s"), (59.94, "59.9s"), (245, "4m05s"), (11220, "3h07m"), (187200, "2d04h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def test_records_become_json(capsys: pytest.CaptureFixture[str]) -> None:
    output.answer({"t": TopologySummary("a", "a-1-1", Status.ACTIVE, 1, 2, 3, 4.5)})
    written = capsys.readouterr().out
    assert written.count("\n") == 1
    assert json.loads(written)["t"]["status"] == "ACTIVE"


def test_numbers_that_json_has_not_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    output.answer({"a": [float("nan"), 1.5], "b": float("-inf")})
    assert capsys.readouterr().out == '{"a": [null, 1.5], "b": null}\n'


def test_an_error_is_one_line_or_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    error = Refused("two\nlines", "Fix it")
    assert output.complain(error, as_json=False) == 3
    assert capsys.readouterr().err == "error: two lines. Fix it\n"
    assert output.complain(error, as_json=True) == 3
    assert json.loads(capsys.readouterr().err) == {"code": "refused", "message": "two\nlines", "fix": "Fix it"}


HOSTILE = "bad \x1b[2J\n\x1b]0;owned\x07\x9b2J\r\u202e\u2028"


def test_nothing_that_is_shown_commands_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    shown = "bad \\x1b[2J\n\\x1b]0;owned\\x07\\x9b2J\\r\\u202e\\u2028"
    output.say(f"é\t{HOSTILE}\udcff")
    output.note(HOSTILE)
    assert capsys.readouterr() == (f"é\t{shown}\\udcff\n", f"{shown}\n")
    output.complain(Refused(HOSTILE), as_json=False)
    assert capsys.readouterr().err == "error: bad \\x1b[2J \\x1b]0;owned\\x07\\x9b2J \\u202e\n"
    output.answer({"a": HOSTILE})
    assert capsys.readouterr().out.isascii()
    assert output.complain(ValueError(HOSTILE), as_json=False, with_traceback=True) == 1
    assert "\x1b" not in capsys.readouterr().err


def test_one_error_is_one_line() -> None:
    record = ErrorRecord(component="bolt", task=2, error=f"ValueError: {HOSTILE}", host="h", port=1, at=0.0)
    assert "\n" not in watch._describe(record)
