"""The connection between two workers on two hosts is cut for a while: nothing is lost or repeated, tracked or not.

RAINBAND_LONG cuts it for 20 seconds (`make exact`), otherwise for 3.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from kit.compare import WRONGS, compare, read_told
from kit.placed import LONG, PlacedWorkers, project_module
from kit.twohosts import TwoHosts

counted = project_module("counted")
CUT_S = 20.0 if LONG else 3.0
AROUND_S = 1.0
RATE = 2_000.0
KINDS = ("shuffle", "fields")
BACK_S = 10.0
CASES = [("silent", True), ("unplugged", False)]
LONG_CASES = [*CASES, ("silent", False), ("unplugged", True)]


def lines(rows: Path) -> int:
    """Numbers at the sinks so far."""
    return sum(path.read_bytes().count(b"\n") for path in rows.glob("sunk-*"))


@pytest.mark.parametrize(("way", "tracked"), LONG_CASES if LONG else CASES)
def test_a_cut_loses_and_repeats_nothing(way: str, tracked: bool, tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()
    total = int(2 * RATE * (AROUND_S + CUT_S))
    topology = counted.counted(str(rows), KINDS, total, {"topology.workers": 2}, tracked, RATE)
    places = {"numbers": 0, "relay": 1, "sink": 0, "__acker": 1}
    wanted = [places[executor.component.partition("-")[0]] for executor in topology.plan.executors()]
    with (
        TwoHosts() as two,
        PlacedWorkers(tmp_path / "cluster", topology, wanted, hosts=two.hosts, prefixes=two.prefixes) as placed,
    ):
        placed.wait(lambda: lines(rows) > RATE, 20.0)
        two.cut(way)
        cut_at = time.monotonic()
        placed.wait(lambda: time.monotonic() > cut_at + 1.0, 2.0)
        before = lines(rows)
        placed.wait(lambda: time.monotonic() > cut_at + CUT_S, CUT_S + 1.0)
        during = lines(rows) - before
        left = lines(rows)
        two.mend(way)
        mended_at = time.monotonic()
        placed.wait(lambda: lines(rows) > left, 30.0)
        back_s = time.monotonic() - mended_at
        placed.wait(lambda: lines(rows) >= len(KINDS) * total, 60.0)
        done_s = time.monotonic() - mended_at
        placed.wait(lambda: time.monotonic() > mended_at + done_s + 1.0, 2.0)
        placed.stop()
    verdicts = {kind: compare(rows, kind, total) for kind in KINDS}
    told = {kind: read_told(rows, kind) for kind in KINDS}
    print(f"\n{way} tracked={tracked}: {during} arrived during the cut, back after {back_s:.2f} s, done {done_s:.1f} s")
    print(verdicts, told)
    assert during == 0
    assert all(not any(verdict[wrong] for wrong in WRONGS) for verdict in verdicts.values()), verdicts
    assert told == {kind: {"acked": total if tracked else 0, "failed": 0} for kind in KINDS}
    assert back_s < BACK_S
