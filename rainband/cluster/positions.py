"""How far the spouts of this host have come: the lowest unfinished position by component and task index.

A position may be stored late, never early: an old one only means that more is replayed. So a commit need not reach
the disk at once (synchronous=NORMAL): a killed process loses nothing, a power cut at most the newest positions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from rainband.cluster.sqlite import connect, explain, make_private
from rainband.errors import StoreError

POSITION_BYTES_MAX = 1 << 20


class PositionStore:
    """Positions as bytes, in the SQLite file `path`. Workers of one host may share it."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        make_private(self.path.parent)
        self._connection = connect(self.path, synchronous="NORMAL")
        self._run(
            "CREATE TABLE IF NOT EXISTS positions (component TEXT, task_index INTEGER, position BLOB NOT NULL, "
            "PRIMARY KEY (component, task_index)) WITHOUT ROWID"
        )

    def get(self, component: str, task_index: int) -> bytes | None:
        """The stored position, None when there is none."""
        rows = self._run(
            "SELECT position FROM positions WHERE component = ? AND task_index = ?", (component, task_index)
        )
        return bytes(rows[0][0]) if rows else None

    def put_many(self, positions: Mapping[tuple[str, int], bytes]) -> None:
        """Store {(component, task index): position}, all or none. Raises StoreError (disk full, too large)."""
        for (component, index), position in positions.items():
            if len(position) > POSITION_BYTES_MAX:
                raise StoreError(
                    f"the position of {component}[{index}] takes {len(position)} bytes, more than {POSITION_BYTES_MAX}",
                    "Return something smaller from position()",
                )
        rows = [(component, index, position) for (component, index), position in positions.items()]
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", rows)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}", explain(error, self.path.parent)) from error
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Let go of the file; a second call does nothing."""
        self._connection.close()

    def _run(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[bytes]]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}", explain(error, self.path.parent)) from error


class MemoryPositions:
    """The same in this process only: positions outlive a worker object, not the process."""

    def __init__(self) -> None:
        self._positions: dict[tuple[str, int], bytes] = {}

    def get(self, component: str, task_index: int) -> bytes | None:
        return self._positions.get((component, task_index))

    def put_many(self, positions: Mapping[tuple[str, int], bytes]) -> None:
        self._positions.update(positions)

    def close(self) -> None:
        """Nothing to let go of."""
