"""Bring a topology's plan and code to this host, checked, once, whole or not at all.

Runs on a thread of its own: a download may take as long as it takes while the slots of other topologies are served.
Nothing is unpickled or imported here; only workers do that.
"""

from __future__ import annotations

import hashlib
import platform
import queue
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from rainband.errors import InvalidTopology, RainbandError, Refused, StoreError, VersionMismatch
from rainband.records import Download, GetTopology, Piece, Request, Response, TopologySummary
from rainband.topology.bundle import open_bundle
from rainband.topology.home import PLAN, home_of, read_plan, write_file
from rainband.topology.plan import Plan

PIECE_BYTES = 512 * 1024
BUNDLE_BYTES_MAX = 512 * 1024 * 1024

Call = Callable[[Request], Response]


class Localizer:
    """`call` asks Nimbus; `done(topology_id, reason)` is called on the localizer's thread, reason '' on success."""

    def __init__(self, topologies: Path, call: Call, done: Callable[[str, str], None]) -> None:
        self._topologies = topologies
        self._call = call
        self._done = done
        self._todo: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="localizer", daemon=True)
        self._thread.start()

    def want(self, topology_id: str) -> None:
        """Ask for a topology; `done` follows, at once when it is here already."""
        self._todo.put(topology_id)

    def close(self) -> None:
        """Stop after the topology at hand; does not wait."""
        self._todo.put(None)

    def _run(self) -> None:
        while (topology_id := self._todo.get()) is not None:
            try:
                localize(self._topologies, topology_id, self._call)
                reason = ""
            except RainbandError as error:
                reason = str(error)
            except OSError as error:
                reason = f"{error.strerror or error} ({error.filename or self._topologies})"
            self._done(topology_id, reason)


def localized(topologies: Path, topology_id: str) -> bool:
    """Whether the home of a topology is complete."""
    return (home_of(topologies, topology_id) / PLAN).exists()


def localize(topologies: Path, topology_id: str, call: Call) -> None:
    """Make the home of a topology unless it is complete. Raises a RainbandError or OSError; then there is no home."""
    home = home_of(topologies, topology_id)
    if _is_whole(home):
        return
    answer = call(GetTopology(topology_id))
    if not isinstance(answer, TopologySummary) or not answer.plan:
        raise StoreError(f"Nimbus has no plan of {topology_id}")
    plan = Plan.decode(answer.plan)
    _check_python(plan)
    data = fetch(plan.bundle, call)
    shutil.rmtree(home, ignore_errors=True)
    open_bundle(data, home)
    write_file(home / PLAN, answer.plan)


def _is_whole(home: Path) -> bool:
    try:
        return read_plan(home) is not None
    except InvalidTopology:
        return False


def fetch(digest: str, call: Call) -> bytes:
    """A blob, asked for once more when it arrives damaged. Raises StoreError naming it."""
    for _attempt in range(2):
        data = _download(digest, call)
        if hashlib.sha256(data).hexdigest() == digest:
            return data
    raise StoreError(f"blob {digest} is corrupt: its bytes do not have that SHA-256", "Submit the topology again")


def _download(digest: str, call: Call) -> bytes:
    parts: list[bytes] = []
    offset, size = 0, 1
    while offset < size:
        piece = call(Download(digest, offset, PIECE_BYTES))
        if not isinstance(piece, Piece):
            raise StoreError(f"Nimbus did not send blob {digest}")
        if not 0 < piece.size <= BUNDLE_BYTES_MAX or not piece.data:
            raise Refused(f"blob {digest} of {piece.size} bytes cannot be taken; the limit is {BUNDLE_BYTES_MAX}")
        size = piece.size
        parts.append(piece.data)
        offset += len(piece.data)
    return b"".join(parts)


def _check_python(plan: Plan) -> None:
    ours = platform.python_version_tuple()[:2]
    theirs = tuple(plan.python.split(".")[:2])
    if plan.python and theirs != ours:
        raise VersionMismatch(
            f"{plan.name} was built with Python {plan.python}, this host runs {platform.python_version()}",
            "Submit it with the same minor version of Python",
        )
