"""What a cluster must not leave behind: processes, ports, rows, blobs, uploads, nodes in ZooKeeper. Only looks."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

from rainband.cluster.keeper import parse

LISTENS = "0A"
ALWAYS_THERE = {"counter"}  # of the submits: it never goes back


def processes_of(directory: Path) -> list[int]:
    """Processes whose command line names the directory."""
    mine = str(directory)
    lines = [(process.pid, process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [pid for pid, line in lines if any(mine in part for part in line)]


def listening(prefix: Sequence[str] = ()) -> set[int]:
    """TCP ports somebody listens on; with `prefix` (`ip netns exec ...`) those of that host."""
    argv = [*prefix, "cat", "/proc/net/tcp", "/proc/net/tcp6"]  # the second one may be missing
    table = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20).stdout
    fields = [line.split() for line in table.splitlines()]
    assert any(field[:2] == ["sl", "local_address"] for field in fields), argv
    return {int(field[1].rpartition(":")[2], 16) for field in fields if len(field) > 3 and field[3] == LISTENS}


def rows(state: Path) -> set[str]:
    """Keys of topologies in the state of a Nimbus that has ended."""
    path = state / "nimbus" / "state.db"
    if not path.exists():
        return set()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {key for (key,) in connection.execute("SELECT key FROM entries")} - ALWAYS_THERE


def blobs(state: Path) -> list[str]:
    """Bundles and uploads at a Nimbus."""
    directory = state / "nimbus" / "blobs"
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def holding(top: Path, spellings: Sequence[bytes]) -> list[Path]:
    """Files below `top` that hold one of the texts. What goes away meanwhile does not count."""
    found = []
    for path in sorted(top.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and any(spelling in path.read_bytes() for spelling in spellings):
                found.append(path)
    return found


class Nodes:
    """What is below the root of a cluster in ZooKeeper. A context manager."""

    def __init__(self, url: str, credentials: str) -> None:
        place = parse(url)
        self._root = place.root
        self._client = KazooClient(place.servers, auth_data=[("digest", credentials)])

    def __enter__(self) -> Nodes:
        self._client.start(timeout=15)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.stop()
        self._client.close()

    def left(self) -> list[str]:
        """Of topologies, of large values, and of candidates."""
        found = []
        for name in ("entries", "large", "election"):
            with contextlib.suppress(NoNodeError):
                found += [f"{name}/{node}" for node in self._client.get_children(f"{self._root}/{name}")]
        return sorted(set(found) - {f"entries/{name}" for name in ALWAYS_THERE})


    def contents(self) -> dict[str, bytes]:
        """Every node below the root, and what is in it."""
        found: dict[str, bytes] = {}
        todo = [self._root]
        while todo:
            path = todo.pop()
            with contextlib.suppress(NoNodeError):
                found[path] = self._client.get(path)[0]
                todo += [f"{path}/{name}" for name in self._client.get_children(path)]
        return found


def wait_none(look: object, timeout_s: float, what: str) -> None:
    """Wait until `look` finds nothing."""
    assert callable(look)
    until = time.monotonic() + timeout_s
    while left := look():
        assert time.monotonic() < until, f"{what} left after {timeout_s:g} s: {left}"
        time.sleep(0.02)
