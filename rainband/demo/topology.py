"""Lines of files -> words -> counts in SQLite. Nothing is lost when any of its workers is killed."""

from __future__ import annotations

import sqlite3
import sysconfig
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rainband import Bolt, ManualBolt, ReliableSpout, Topology, TopologyBuilder, TopologyContext, Tuple

COMMIT_TUPLES = 8192


class Lines(ReliableSpout):
    """Every line of every file. Its position is the next line to read, so that it survives its own worker."""

    outputs = ("line",)

    def __init__(self, files: Sequence[str]) -> None:
        self.files = tuple(files)

    def open(self, context: TopologyContext) -> None:
        self.mine = self.files[context.task_index :: len(context.tasks())]
        self.file, self.line = 0, 0
        self.lines: list[str] | None = None

    def position(self) -> tuple[int, int]:
        return self.file, self.line

    def seek(self, position: object) -> None:
        assert isinstance(position, tuple)
        self.file, self.line = position

    def next_tuple(self) -> None:
        if self.file == len(self.mine):
            self.finish()
            return
        if self.lines is None:
            with open(self.mine[self.file], encoding="utf-8", errors="replace") as source:
                self.lines = source.readlines()
        if self.line < len(self.lines):
            self.emit([self.lines[self.line]], message_id=(self.file, self.line))
            self.line += 1
        else:
            self.file, self.line, self.lines = self.file + 1, 0, None


class Split(Bolt):
    """A line into its words."""

    outputs = ("word",)

    def execute(self, tup: Tuple) -> None:
        for word in tup["line"].split():
            self.emit([word])


class Count(ManualBolt):
    """Counts words in memory, commits the counts in batches, and acks what was committed."""

    outputs = ()

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def prepare(self, context: TopologyContext) -> None:
        self.database = sqlite3.connect(Path(self.directory) / f"counts-{context.task_index}.db")
        self.database.execute("PRAGMA journal_mode = WAL")
        self.database.execute("PRAGMA synchronous = NORMAL")
        self.database.execute("CREATE TABLE IF NOT EXISTS counts (word TEXT PRIMARY KEY, n INTEGER) WITHOUT ROWID")
        self.counts: Counter[str] = Counter()
        self.uncommitted: list[Tuple] = []

    def execute_batch(self, tups: Sequence[Tuple]) -> None:
        self.counts.update([tup.values[0] for tup in tups])
        self.uncommitted += tups
        if len(self.uncommitted) >= COMMIT_TUPLES:
            self.commit()

    def tick(self) -> None:
        if self.uncommitted:
            self.commit()

    def commit(self) -> None:
        with self.database:
            self.database.executemany(
                "INSERT INTO counts VALUES (?, ?) ON CONFLICT (word) DO UPDATE SET n = n + excluded.n",
                self.counts.items(),
            )
        for tup in self.uncommitted:
            self.ack(tup)
        self.counts.clear()
        self.uncommitted = []

    def cleanup(self) -> None:
        self.database.close()


def library_files() -> list[str]:
    """Every .py file of this Python's standard library, sorted."""
    root = Path(sysconfig.get_path("stdlib"))
    found = (path for path in root.rglob("*.py") if not {"site-packages", "dist-packages"} & set(path.parts))
    return sorted(str(path) for path in found if path.is_file())


def word_count(directory: str, files: Sequence[str] | None = None, workers: int = 3) -> Topology:
    """The demo's topology; `directory` receives one counts-N.db per counting task."""
    builder = TopologyBuilder("word-count", config={"topology.workers": workers})
    builder.set_spout("lines", Lines(library_files() if files is None else files))
    builder.set_bolt("split", Split(), parallelism=2).shuffle_grouping("lines")
    count = builder.set_bolt("count", Count(directory), parallelism=3, config={"topology.tick.tuple.freq.secs": 0.05})
    count.fields_grouping("split", ["word"])
    return builder.create_topology()


def read_counts(directory: Path, limit: int = 0) -> list[tuple[str, int]]:
    """The `limit` most frequent words committed so far (0 = all), most frequent first. Reads beside the writers."""
    order = f"ORDER BY n DESC LIMIT {limit}" if limit else ""
    rows = _ask(directory, f"SELECT word, n FROM counts {order}")
    return sorted(rows, key=lambda row: (-row[1], row[0]))[: limit or None]


def words_counted(directory: Path) -> int:
    """How many words were counted and committed so far."""
    return sum(row[0] for row in _ask(directory, "SELECT COALESCE(SUM(n), 0) FROM counts"))


def _ask(directory: Path, query: str) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for path in sorted(directory.glob("counts-*.db")):
        try:
            database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
            rows += database.execute(query)
            database.close()
        except sqlite3.OperationalError:
            continue  # the task is only just making its table
    return rows
