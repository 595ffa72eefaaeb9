"""Bring a topology's plan and code to this host, checked, once, whole or not at all; and back, to a Nimbus without it.

Runs on a thread of its own: a download may take as long as it takes while the slots of other topologies are served.
Nothing is unpickled or imported here; only workers do that.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import platform
import queue
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rainband.errors import InvalidTopology, RainbandError, Refused, StoreError, VersionMismatch
from rainband.records import Download, GetTopology, Piece, Request, Response, TopologySummary, Upload
from rainband.topology.bundle import is_opened, open_again, open_bundle
from rainband.topology.home import BUNDLE, PLAN, home_of, read_plan, write_file
from rainband.topology.plan import Plan

PIECE_BYTES = 512 * 1024
BUNDLE_BYTES_MAX = 512 * 1024 * 1024
IDLE_S = 10.0

Call = Callable[[Request], Response]

log = logging.getLogger("rainband.supervisor")


@dataclass(frozen=True, slots=True)
class Want:
    """A topology is to come here."""

    topology_id: str


@dataclass(frozen=True, slots=True)
class Offer:
    """A bundle is to go to Nimbus."""

    digest: str


class Localizer:
    """`call` asks Nimbus; `done(topology_id, reason)` is called on the localizer's thread, reason '' on success.

    So is `idle`, each `idle_s` without anything to do: a connection has to be looked at now and then.
    """

    def __init__(
        self,
        topologies: Path,
        call: Call,
        done: Callable[[str, str], None],
        idle: Callable[[], object] = lambda: None,
        idle_s: float = IDLE_S,
    ) -> None:
        self._topologies = topologies
        self._call = call
        self._done = done
        self._idle = idle
        self._idle_s = idle_s
        self._todo: queue.SimpleQueue[Want | Offer | None] = queue.SimpleQueue()
        self._offered: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="localizer", daemon=True)
        self._thread.start()

    def want(self, topology_id: str) -> None:
        """Ask for a topology; `done` follows, at once when it is here already."""
        self._todo.put(Want(topology_id))

    def offer(self, digest: str) -> None:
        """Send a bundle to Nimbus, if it is here. Nothing follows; Nimbus asks again for what did not arrive."""
        if digest not in self._offered:
            self._offered.add(digest)
            self._todo.put(Offer(digest))

    def close(self) -> None:
        """Stop after the topology at hand; does not wait."""
        self._todo.put(None)

    def _next(self) -> Want | Offer | None:
        while True:
            with contextlib.suppress(queue.Empty):
                return self._todo.get(timeout=self._idle_s)
            self._idle()

    def _run(self) -> None:
        while (todo := self._next()) is not None:
            reason = ""
            try:
                if isinstance(todo, Want):
                    localize(self._topologies, todo.topology_id, self._call)
                else:
                    give(self._topologies, todo.digest, self._call)
            except RainbandError as error:
                reason = str(error)
            except OSError as error:
                reason = f"{error.strerror or error} ({error.filename or self._topologies})"
            if isinstance(todo, Want):
                self._done(todo.topology_id, reason)
            else:
                self._offered.discard(todo.digest)
                if reason:
                    log.warning("bundle %s could not be sent to Nimbus: %s", todo.digest[:12], reason)


def localized(topologies: Path, topology_id: str) -> bool:
    """Whether the home of a topology is complete."""
    return (home_of(topologies, topology_id) / PLAN).exists()


def localize(topologies: Path, topology_id: str, call: Call) -> None:
    """Make the home of a topology unless it is complete. Raises a RainbandError or OSError; then there is no home.

    In one that was complete before a power cut, what was not on the disk yet is put back.
    """
    home = home_of(topologies, topology_id)
    known = _plan_in(home)
    if known is not None:
        opened_ns = (home / PLAN).stat().st_mtime_ns
        if not is_opened(home / BUNDLE, home, opened_ns):
            _put_back(home, known, opened_ns, call)
        return
    answer = call(GetTopology(topology_id))
    if not isinstance(answer, TopologySummary) or not answer.plan:
        raise StoreError(f"Nimbus has no plan of {topology_id}")
    plan = Plan.decode(answer.plan)
    _check_python(plan)
    data = fetch(plan.bundle, call)
    shutil.rmtree(home, ignore_errors=True)
    open_bundle(data, home)
    write_file(home / BUNDLE, data)
    write_file(home / PLAN, answer.plan)


def give(topologies: Path, digest: str, call: Call) -> None:
    """Send Nimbus a bundle that it asked for; one that is not here, or not whole, is not sent.

    Raises a RainbandError or OSError.
    """
    for home in sorted(topologies.iterdir()):
        if not _is_of(home, digest):
            continue
        data = (home / BUNDLE).read_bytes()
        if hashlib.sha256(data).hexdigest() == digest:
            for offset in range(0, len(data), PIECE_BYTES):
                end = offset + PIECE_BYTES
                call(Upload(digest, offset, data[offset:end], end >= len(data)))
            log.info("sent bundle %s to Nimbus, which had lost it", digest[:12])
            return


def _put_back(home: Path, plan: Plan, opened_ns: int, call: Call) -> None:
    """Open the bundle once more where files are missing or too short; Nimbus is asked only for want of the bundle."""
    log.warning("files of %s are missing or cut short, as after a power cut: they are put back", home.name)
    data = b""
    with contextlib.suppress(OSError):
        data = (home / BUNDLE).read_bytes()
    if hashlib.sha256(data).hexdigest() != plan.bundle:
        data = fetch(plan.bundle, call)
        write_file(home / BUNDLE, data)
    open_again(data, home, opened_ns)


def _is_of(home: Path, digest: str) -> bool:
    """Whether this is the complete home of a topology with that bundle."""
    plan = _plan_in(home)
    return plan is not None and plan.bundle == digest and (home / BUNDLE).is_file()


def _plan_in(home: Path) -> Plan | None:
    """The plan of a complete home; None when it is not complete, or its plan damaged."""
    try:
        return read_plan(home)
    except InvalidTopology:
        return None


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
