"""The judge is judged: each kind of misdeed, planted by hand, is found; what is in order is not."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from faults.oracle import judge

from kit import leftovers

GOOD = {
    "emitted": [(0, 1.0), (1, 2.0), (2, 3.0)],
    "sunk-a": [(0, 1.2), (1, 2.2), (2, 3.2)],
    "sunk-b": [(0, 1.3), (1, 2.3), (2, 3.3)],
    "acked": [(0, 1.4), (1, 2.4), (2, 3.4)],
}


def found(directory: Path, journals: dict[str, list[tuple[int, float]]], **fields: object) -> dict[str, Any]:
    case = {"end": 3, "sinks": ["a", "b"], "faults": [], **fields}
    (directory / "case.json").write_text(json.dumps(case))
    for name, lines in (GOOD | journals).items():
        (directory / name).write_text("".join(f"{number} {at:.6f}\n" for number, at in lines))
    return judge(directory)


def test_nothing_is_found_where_all_is_in_order(tmp_path: Path) -> None:
    verdict = found(tmp_path, {})
    names = ("lost", "unacked", "false_acks", "strange", "again", "unexcused")
    assert {name: verdict[name] for name in names} == dict.fromkeys(names, 0)


@pytest.mark.parametrize(
    ("journals", "wrong"),
    [
        ({"sunk-b": [(0, 1.3), (2, 3.3)]}, {"lost": 1, "false_acks": 1}),
        ({"sunk-b": [(0, 1.3), (1, 2.5), (2, 3.3)]}, {"lost": 0, "false_acks": 1}),
        ({"acked": [(0, 1.4), (2, 3.4)]}, {"unacked": 1, "false_acks": 0}),
        ({"sunk-a": [*GOOD["sunk-a"], (7, 4.0)]}, {"strange": 1}),
        ({"sunk-a": [*GOOD["sunk-a"], (1, 4.0)]}, {"again": 1, "unexcused": 1, "false_acks": 0}),
    ],
    ids=["lost", "acked too early", "never acked", "from nowhere", "executed again"],
)
def test_planted_misdeeds_are_found(
    tmp_path: Path, journals: dict[str, list[tuple[int, float]]], wrong: dict[str, int]
) -> None:
    verdict = found(tmp_path, journals)
    assert {name: verdict[name] for name in wrong} == wrong


def test_an_old_tree_does_not_count_for_the_ack_of_its_successor(tmp_path: Path) -> None:
    """Emitted anew at 5: sink a executed it again, sink b did not, and yet it was acked."""
    journals = {
        "emitted": [*GOOD["emitted"], (1, 5.0)],
        "sunk-a": [*GOOD["sunk-a"], (1, 5.1)],
        "acked": [(0, 1.4), (1, 5.2), (2, 3.4)],
    }
    verdict = found(tmp_path, journals, faults=[{"at": 4.0, "until": 5.0, "spout": True}])
    assert (verdict["lost"], verdict["false_acks"], verdict["false_acks_first"]) == (0, 1, [1])
    again = {**journals, "sunk-b": [*GOOD["sunk-b"], (1, 5.15)]}
    assert found(tmp_path, again, faults=[{"at": 4.0, "until": 5.0, "spout": True}])["false_acks"] == 0


def test_acks_of_what_nobody_tracks_say_nothing(tmp_path: Path) -> None:
    assert found(tmp_path, {"acked": [(0, 1.0), (1, 2.0), (2, 3.0)]}, tracked=False)["false_acks"] == 0


def test_what_is_left_behind_is_seen(tmp_path: Path) -> None:
    blobs = tmp_path / "nimbus" / "blobs"
    (blobs / "incoming").mkdir(parents=True)
    look = (leftovers.processes_of, leftovers.blobs, leftovers.rows)
    assert [sees(tmp_path) for sees in look] == [[], [], set()]
    with contextlib.closing(sqlite3.connect(tmp_path / "nimbus" / "state.db")) as state, state:
        state.execute("CREATE TABLE entries (key TEXT, value BLOB)")
        state.execute("INSERT INTO entries VALUES ('counter', '1'), ('plan/wc-1-1', '')")
    (blobs / "incoming" / "half").touch()
    with subprocess.Popen([sys.executable, "-c", "input()", str(tmp_path)], stdin=subprocess.PIPE) as child:
        assert [sees(tmp_path) for sees in look] == [[child.pid], ["incoming/half"], {"plan/wc-1-1"}]
        child.kill()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert port in leftovers.listening()
    assert port not in leftovers.listening()
