"""Log files are found by topology and read on across turns."""

from __future__ import annotations

from pathlib import Path

import pytest

from rainband.cli.logs import Tail, find
from rainband.cli.main import run


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text)
    return path


def test_finds_runs_of_one_topology_in_both_layouts(tmp_path: Path) -> None:
    own = write(tmp_path / "logs/wc-1-99/worker-6700.log", "a\n")
    below = write(tmp_path / "supervisor-2/logs/wc-2-99/worker-6701.log", "a\n")
    write(tmp_path / "logs/wc-extra-1-99/worker-6700.log", "a\n")
    write(tmp_path / "logs/wc-1-99/other.log", "a\n")
    assert find(tmp_path, "wc") == sorted([own, below])


def test_tail_reads_complete_lines_only_once(tmp_path: Path) -> None:
    path = write(tmp_path / "t/worker-1.log", "one\ntwo\nthr")
    tail = Tail(path)
    assert tail.last(1) == ["two"]
    write(path, "ee\n")
    assert list(tail.read()) == ["three"]
    assert list(tail.read()) == []


def test_tail_starts_anew_when_the_file_was_turned_over(tmp_path: Path) -> None:
    path = write(tmp_path / "t/worker-1.log", "old line\n")
    tail = Tail(path)
    tail.last(5)
    path.rename(tmp_path / "t/worker-1.log.1")
    write(path, "a new and longer line\n")
    assert list(tail.read()) == ["a new and longer line"]


def test_a_file_that_went_away_is_no_error(tmp_path: Path) -> None:
    assert Tail(tmp_path / "gone.log").last(3) == []


def test_what_is_shown_keeps_lines_and_tabs_but_commands_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "logs/wc-1-99/worker-6700.log", "a\tb\r\n\x1b[2Jc\x07\n")
    assert run(["logs", "wc", "--state", str(tmp_path)]) == 0
    name = "wc-1-99/worker-6700"
    assert capsys.readouterr().out == f"{name}: a\tb\n{name}: \\x1b[2Jc\\x07\n"
