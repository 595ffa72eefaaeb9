from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rainband.cluster.positions import POSITION_BYTES_MAX, MemoryPositions, PositionStore
from rainband.errors import StoreError

Kind = Callable[[Path], PositionStore | MemoryPositions]
KINDS: dict[str, Kind] = {"memory": lambda path: MemoryPositions(), "sqlite": PositionStore}


@pytest.mark.parametrize("kind", KINDS)
def test_the_newest_position_of_each_task_is_kept(kind: str, tmp_path: Path) -> None:
    positions = KINDS[kind](tmp_path / "positions.sqlite")
    assert positions.get("lines", 0) is None
    positions.put_many({("lines", 0): b"a", ("lines", 1): b"b", ("other", 0): b""})
    positions.put_many({("lines", 0): b"c"})
    positions.put_many({})
    assert [positions.get("lines", 0), positions.get("lines", 1), positions.get("other", 0)] == [b"c", b"b", b""]
    positions.close()
    positions.close()


def test_they_outlive_the_worker_and_workers_share_the_file(tmp_path: Path) -> None:
    path = tmp_path / "home" / "positions.sqlite"
    first, second = PositionStore(path), PositionStore(path)
    first.put_many({("lines", 0): b"7"})
    second.put_many({("lines", 1): b"8"})
    first.close()
    second.close()
    third = PositionStore(path)
    assert (third.get("lines", 0), third.get("lines", 1)) == (b"7", b"8")
    assert path.stat().st_mode & 0o777 == 0o600
    third.close()


def test_all_or_none(tmp_path: Path) -> None:
    positions = PositionStore(tmp_path / "positions.sqlite")
    with pytest.raises(StoreError, match=r"the position of lines\[1\] takes .* Return something smaller"):
        positions.put_many({("lines", 0): b"1", ("lines", 1): b"x" * (POSITION_BYTES_MAX + 1)})
    assert positions.get("lines", 0) is None
    positions.close()
