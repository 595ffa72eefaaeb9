"""The truth in one SQLite file: one Nimbus, nothing to install, safe against kill -9 and power cuts.

WAL with synchronous=FULL: a commit is on the disk when it returns. A lock file beside it, held with flock for the
life of the process, keeps a second Nimbus out and names the first one; the kernel releases it however we die.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rainband.cluster.store import Change, Put, State, check_changes, stale
from rainband.errors import Refused, StateLocked, StoreError, unwritable

FORMAT = 1
FILE = "state.db"
LOCK = "state.lock"


class SqliteStore:
    """A `Store` in `directory`, made (mode 0700) when it is not there.

    Raises StateLocked when another process holds it, Refused when the directory cannot be written,
    StoreError when the file is not a state of this format.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        make_private(self.directory)
        self._lock = take_lock(self.directory)
        try:
            self._connection = connect(self.directory / FILE)
            with self._guarded():
                self.cluster_id = self._prepare()
        except BaseException:
            os.close(self._lock)
            raise
        self._open = True

    def lead(self, above: int = 0) -> int:
        with self._transaction():
            self._connection.execute("UPDATE facts SET epoch = max(epoch, ?) + 1", (above,))
            return self._facts()[0]

    def read_all(self) -> State:
        with self._guarded():
            epoch, version = self._facts()
            rows = self._connection.execute("SELECT key, value FROM entries").fetchall()
        return State(self.cluster_id, epoch, version, {key: bytes(value) for key, value in rows})

    def write(self, epoch: int, changes: Sequence[Change]) -> None:
        checked = check_changes(changes)
        with self._transaction():
            newest, _ = self._facts()
            if epoch == 0 or epoch != newest:
                raise stale(epoch, newest)
            for change in checked:
                if isinstance(change, Put):
                    self._connection.execute("INSERT OR REPLACE INTO entries VALUES (?, ?)", (change.key, change.value))
                else:
                    self._connection.execute("DELETE FROM entries WHERE key = ?", (change.key,))
            self._connection.execute("UPDATE facts SET version = version + 1")

    def close(self) -> None:
        if self._open:
            self._open = False
            self._connection.close()
            os.close(self._lock)

    def _facts(self) -> tuple[int, int]:
        epoch, version = self._connection.execute("SELECT epoch, version FROM facts").fetchone()
        return int(epoch), int(version)

    def _prepare(self) -> str:
        """Make the tables on the first start; the cluster id."""
        found = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
        if found not in (0, FORMAT):
            raise StoreError(
                f"{self.directory / FILE} has format {found}, this rainband writes {FORMAT}",
                "Start the rainband that wrote it, or choose another state directory",
            )
        if found == 0:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
            self._connection.execute("CREATE TABLE facts (cluster_id TEXT, epoch INTEGER, version INTEGER)")
            self._connection.execute("INSERT INTO facts VALUES (?, 0, 0)", (secrets.token_hex(16),))
            self._connection.execute(f"PRAGMA user_version = {FORMAT}")
            self._connection.execute("COMMIT")
            sync_directory(self.directory)
        return str(self._connection.execute("SELECT cluster_id FROM facts").fetchone()[0])

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """SQLite's errors as StoreError, with the transaction undone."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self.directory / FILE}: {error}", explain(error, self.directory)) from error
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._guarded():
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")


def connect(path: Path, *, synchronous: str = "FULL") -> sqlite3.Connection:
    """Open or make an SQLite file (mode 0600) in WAL mode, statements committing on their own unless told otherwise.

    Raises StoreError when it is not one, Refused when it cannot be opened.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        raise Refused(f"cannot write {path}: {error.strerror}", "Its directory must be yours, mode 0700") from None
    connection = sqlite3.connect(path, isolation_level=None, timeout=5.0, check_same_thread=False)
    try:
        with _alone_in(path.parent):
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA trusted_schema = OFF")
    except sqlite3.Error as error:
        connection.close()
        raise StoreError(f"{path}: {error}", explain(error, path.parent)) from error
    return connection


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """One process at a time: SQLite does not wait when two turn a new file to WAL, one of them fails.

    The directory is locked and not the file, whose locks are SQLite's own.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def take_lock(directory: Path) -> int:
    """The descriptor of the lock file, held; it says pid and host for whoever comes second."""
    path = directory / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise unwritable(directory, error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(descriptor, 400).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        raise StateLocked(
            f"{directory / FILE} is locked by {holder}", "Stop that Nimbus, or choose another state directory"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"pid {os.getpid()} on host {socket.gethostname()}\n".encode(), 0)
    return descriptor


def make_private(directory: Path) -> None:
    """Make `directory`, and those above it that are not there, with mode 0700 whatever the umask.

    Refused when that, or writing into it, is impossible.
    """
    try:
        for missing in [path for path in reversed((directory, *directory.parents)) if not path.exists()]:
            missing.mkdir(mode=0o700, exist_ok=True)
        directory.mkdir(exist_ok=True)
    except OSError as error:
        raise unwritable(directory, error) from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise unwritable(directory, PermissionError("permission denied"))


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def explain(error: Exception, directory: Path) -> str:
    """What to do about an error of the disk, '' when we do not know."""
    text = str(error).lower()
    if "full" in text or "no space" in text:
        room = os.statvfs(directory)
        return f"Make room in {directory}: {room.f_bavail * room.f_frsize} bytes are free"
    if "malformed" in text or "not a database" in text:
        return "Restore the file from a copy, or move the state directory away to begin anew"
    if "readonly" in text or "read-only" in text or "unable to open" in text:
        return f"{directory} must be a directory of yours, mode 0700, on a disk that can be written"
    return ""
