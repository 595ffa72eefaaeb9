"""Numbered rows by each grouping between real worker processes: as multisets, what arrives is what was sent.

Placements are random; the seed is printed, and RAINBAND_SEED repeats it. With RAINBAND_LONG (`make exact`) there are a
million rows per grouping on two and on three workers.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kit.compare import WRONGS, compare, read_told
from kit.placed import LONG, PlacedWorkers, draw_places, project_module

counted = project_module("counted")
SEED = int(os.environ.get("RAINBAND_SEED", "0")) or int.from_bytes(os.urandom(4), "little")
TIMEOUT_S = 1800.0 if LONG else 60.0
SHORT_CASES = [
    (counted.KINDS, 20_000, 2, None, True),
    (counted.KINDS, 20_000, 3, None, True),
    (counted.KINDS, 20_000, 3, None, False),
    (counted.KINDS, 2_500, 2, 1, True),
    (counted.KINDS, 1_000, 3, 1, True),
    (counted.KINDS, 1_000, 3, 1, False),
]
MILLIONS = [((kind,), 1_000_000, workers, None, True) for kind in counted.KINDS for workers in (2, 3)]
LONG_CASES = [
    *MILLIONS,
    (counted.KINDS, 1_000_000, 2, None, False),
    (counted.KINDS, 1_000_000, 3, None, False),
    (counted.KINDS, 1_000_000, 2, 1, True),
    (counted.KINDS, 1_000_000, 3, 1, True),
]


def name_of(kinds: tuple[str, ...], total: int, workers: int, credit: int | None, tracked: bool) -> str:
    what = kinds[0] if len(kinds) == 1 else "each"
    return f"{what}-{total}-{workers}workers-{'credit1' if credit else 'default'}-{'acked' if tracked else 'untracked'}"


@pytest.mark.parametrize(
    ("kinds", "total", "workers", "credit", "tracked"),
    [pytest.param(*case, id=name_of(*case)) for case in (LONG_CASES if LONG else SHORT_CASES)],
)
def test_every_number_arrives_exactly_once(
    kinds: tuple[str, ...], total: int, workers: int, credit: int | None, tracked: bool, tmp_path: Path
) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()
    config: dict[str, Any] = {"topology.workers": workers}
    if credit is not None:
        config["topology.executor.receive.buffer.size"] = credit
    topology = counted.counted(str(rows), kinds, total, config, tracked)
    name = name_of(kinds, total, workers, credit, tracked)
    places = draw_places(topology, workers, Random(f"{SEED} {name}"))
    print(f"\nRAINBAND_SEED={SEED} {name} places={places}")
    with PlacedWorkers(tmp_path / "cluster", topology, places) as placed:
        placed.wait_running()
        began = time.monotonic()
        placed.wait_drained(TIMEOUT_S)
        took_s = time.monotonic() - began
        placed.stop()
        assert not placed.errors
        assert placed.total("numbers", "replayed") == placed.total("numbers", "timed_out") == 0
    verdicts = {kind: compare(rows, kind, total) for kind in kinds}
    told = {kind: read_told(rows, kind) for kind in kinds}
    for kind in kinds:
        print(f"{took_s:6.1f} s {kind:16} {verdicts[kind]} {told[kind]}")
    assert all(not any(verdict[wrong] for wrong in WRONGS) for verdict in verdicts.values()), verdicts
    assert told == {kind: {"acked": total if tracked else 0, "failed": 0} for kind in kinds}
    shutil.rmtree(tmp_path)
