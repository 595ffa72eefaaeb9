"""The demo's topology under the virtual clock, judged by its own truth script."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rainband.demo import truth
from rainband.demo.topology import Lines, library_files, read_counts, word_count
from rainband.testing import complete_topology

TEXTS = ("a b  a\n\n", "", "no newline at the end", "b\x0cb\x85c\r\nd\re\n", "\xff broken \xfe bytes\n", "a\n" * 50)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    for number, text in enumerate(TEXTS):
        (tmp_path / f"{number}.py").write_bytes(text.encode("latin-1"))
    return [str(path) for path in sorted(tmp_path.glob("*.py"))]


def judged(directory: Path, files: list[str]) -> dict[str, Any]:
    argv = [sys.executable, "-I", str(truth.__file__), str(directory), *files]
    result: dict[str, Any] = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    return result


def test_counts_equal_the_truth(tmp_path: Path, files: list[str]) -> None:
    result = complete_topology(word_count(str(tmp_path), files))
    verdict = judged(tmp_path, files)
    assert verdict["files"] == len(TEXTS)
    assert verdict["equal"] is True
    assert (verdict["lost"], verdict["surplus"]) == (0, 0)
    assert len(result.acked("lines")) == verdict["lines"]
    assert len(result.emitted("split")) == verdict["words"]
    assert read_counts(tmp_path, 1) == [("a", 52)]
    assert sum(count for _, count in read_counts(tmp_path)) == verdict["words"]


def test_the_truth_tells_what_is_missing_and_what_is_too_much(tmp_path: Path, files: list[str]) -> None:
    complete_topology(word_count(str(tmp_path), files[1:]))
    verdict = judged(tmp_path, files)
    assert (verdict["equal"], verdict["lost"], verdict["surplus"]) == (False, 3, 0)
    complete_topology(word_count(str(tmp_path), files))
    verdict = judged(tmp_path, files)
    assert (verdict["equal"], verdict["lost"]) == (False, 0)
    assert verdict["surplus"] == verdict["words"] - 3


def test_truth_and_spout_find_the_same_library() -> None:
    assert sorted(truth.library()) == library_files()


def test_a_spout_that_seeks_goes_on_with_the_next_line(files: list[str]) -> None:
    rows: list[tuple[object, object]] = []

    def spout() -> Lines:
        lines = Lines(files)
        lines.mine, lines.file, lines.line, lines.lines = tuple(files), 0, 0, None
        lines.emit = lambda values, message_id: rows.append((message_id, values[0]))  # type: ignore[assignment, misc]
        lines.finish = lambda: rows.append((None, None))  # type: ignore[method-assign]
        return lines

    first = spout()
    while (None, None) not in rows:
        first.next_tuple()
    whole = rows[:-1]
    rows.clear()
    second = spout()
    second.seek(whole[3][0])
    while (None, None) not in rows:
        second.next_tuple()
    assert rows[:-1] == whole[3:]
