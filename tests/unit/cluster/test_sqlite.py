"""What the file on the disk adds: locks, modes, damage, a full disk."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

import pytest

from rainband.cluster.sqlite import FILE, SqliteStore, connect
from rainband.cluster.store import Put
from rainband.errors import Refused, StateLocked, StoreError


def test_a_second_one_is_told_who_holds_the_state(tmp_path: Path) -> None:
    first = SqliteStore(tmp_path)
    with pytest.raises(StateLocked, match=rf"state.db is locked by pid {os.getpid()} on host \S+\. Stop that Nimbus"):
        SqliteStore(tmp_path)
    first.write(first.lead(), [Put("counter", b"1")])
    first.close()
    SqliteStore(tmp_path).close()


def test_everything_belongs_to_the_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = SqliteStore(tmp_path / "deep" / "state")
        store.write(store.lead(), [Put("counter", b"1")])
        files = list((tmp_path / "deep" / "state").iterdir())
    finally:
        os.umask(before)
    assert (tmp_path / "deep" / "state").stat().st_mode & 0o777 == 0o700
    assert {path.name for path in files} >= {"state.db", "state.db-wal", "state.lock"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    store.close()


def test_it_syncs_every_commit(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    names = ("synchronous", "journal_mode")
    assert [store._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names] == [2, "wal"]
    store.close()


def test_a_full_disk_refuses_the_write_and_keeps_what_was(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    epoch = store.lead()
    store.write(epoch, [Put("counter", b"1")])
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match=r"full\. Make room in .*: \d+ bytes are free"):
        store.write(epoch, [Put("counter", b"2"), Put("plan/wc-1", b"x" * 100_000)])
    assert store.read_all().values == {"counter": b"1"}
    store._connection.execute("PRAGMA max_page_count = 1000000")
    store.write(epoch, [Put("counter", b"3")])
    assert store.read_all().values == {"counter": b"3"}
    store.close()


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"GIF89a" * 100)
    with pytest.raises(StoreError, match="not a database"):
        SqliteStore(tmp_path)
    assert (tmp_path / FILE).read_bytes() == b"GIF89a" * 100


def test_a_later_format_is_refused_by_both_numbers(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as other:
        other.execute("PRAGMA user_version = 7")
    other.close()
    with pytest.raises(StoreError, match="has format 7, this rainband writes 1"):
        SqliteStore(tmp_path)


@pytest.mark.parametrize("kind", ["file in its place", "file above", "symbolic link as database"])
def test_a_place_that_cannot_hold_state_is_named(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "state"
    if kind == "file in its place":
        target.write_text("")
    elif kind == "file above":
        target.write_text("")
        target = target / "below"
    else:
        target.mkdir()
        (target / FILE).symlink_to("/etc/hostname")
    with pytest.raises(Refused, match="cannot write"):
        SqliteStore(target)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_read_only_directory_is_named_with_the_mode_it_needs(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(Refused, match=f"cannot write to the state directory {tmp_path}: permission denied.*0700"):
        SqliteStore(tmp_path)


def test_several_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    """Two that turn it to WAL together: SQLite does not let the second one wait, it is told that all is locked."""
    refused: list[Exception] = []

    def open_it(path: Path, together: threading.Barrier) -> None:
        together.wait()
        try:
            connect(path).close()
        except StoreError as error:
            refused.append(error)

    for number in range(40):
        together = threading.Barrier(6)
        openers = [threading.Thread(target=open_it, args=(tmp_path / f"{number}.db", together)) for _ in range(6)]
        for opener in openers:
            opener.start()
        for opener in openers:
            opener.join()
    assert not refused
