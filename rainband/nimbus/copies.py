"""Bundles in more than one place: a thread that copies what was uploaded here, and fetches what is missing.

It talks to the depot, if there is one, and to the other Nimbuses; what it finds out is taken by `take` on the daemon's
own thread, which alone touches the shelf for writing.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rainband.clock import Clock
from rainband.cluster.blobs import BLOB_BYTES_MAX, Blobs
from rainband.cluster.depot import Depot
from rainband.cluster.store import Store
from rainband.errors import RainbandError, StoreError
from rainband.messaging.keys import Keys
from rainband.messaging.rpc import RpcClient
from rainband.nimbus.rows import read_entries
from rainband.nimbus.shelf import Unnamed
from rainband.records import Download, Piece, Upload

log = logging.getLogger("rainband.nimbus")

PIECE_BYTES = 1 << 20
PEER_S = 2.0
UPKEEP_S = 15.0
REASON_MAX = 500


@dataclass(frozen=True, slots=True)
class Copied:
    """`address` (or the depot's URL) has the bundle too; '' when nobody takes it, for that `reason`."""

    digest: str
    address: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A bundle that was missing here."""

    digest: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Named:
    """The bundles of all stored topologies."""

    digests: frozenset[str]


News = Copied | Fetched | Named


class Copies:
    """`others` names the other Nimbuses, `wake` is called on this thread when there is something to `take`.

    What no topology has named for `expiry_s` goes from the depot, by whichever Nimbus sees it first.
    """

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        others: Callable[[], Sequence[str]],
        wake: Callable[[], None],
        keys: Keys | None,
        clock: Clock,
        depot: Depot | None = None,
        expiry_s: float = 600.0,
    ) -> None:
        self._store = store
        self._depot = depot
        self._unnamed = Unnamed(expiry_s)
        self._blobs = blobs
        self._others = others
        self._wake = wake
        self._keys = keys
        self._clock = clock
        self._todo: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="copies", daemon=True)
        self._thread.start()

    def push(self, digest: str) -> None:
        """Have one of the others take a copy; Copied follows."""
        self._todo.put(digest)

    def upkeep(self) -> None:
        """Look now for what is missing here."""
        self._todo.put("")

    def take(self) -> list[News]:
        """What came of it since the last call."""
        found: list[News] = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._news.get_nowait())
        return found

    def close(self) -> None:
        """End soon; does not wait for a peer that is slow."""
        self._closing = True
        self._todo.put(None)
        self._thread.join(0.2)

    def _run(self) -> None:
        look_at = self._clock.now()
        while not self._closing:
            digest: str | None = ""
            with contextlib.suppress(queue.Empty):
                digest = self._todo.get(timeout=max(0.0, look_at - self._clock.now()))
            if digest is None:
                return
            try:
                if digest:
                    self._tell(self._push(digest))
                else:
                    self._look()
            except RainbandError as error:
                log.debug("bundles: %s", error)
            if not digest:
                look_at = self._clock.now() + UPKEEP_S

    def _tell(self, news: News) -> None:
        self._news.put(news)
        self._wake()

    def _push(self, digest: str) -> Copied:
        reasons: list[str] = []
        if self._depot is not None:
            try:
                self._depot.put(digest, whole(self._blobs, digest))
                return Copied(digest, self._depot.url)
            except RainbandError as error:
                log.warning("%s", error)
                reasons.append(error.message)
        for address in self._others():
            try:
                with self._connected(address) as peer:
                    give(peer, digest, self._blobs)
                return Copied(digest, address)
            except RainbandError as error:
                log.warning("nimbus %s takes no copy of bundle %s: %s", address, digest[:12], error)
                reasons.append(f"{address}: {error.message}")
        return Copied(digest, "", "; ".join(reasons)[:REASON_MAX])

    def _look(self) -> None:
        """Find out which bundles are needed, and fetch those that are not here."""
        state = self._store.read_all()
        entries, _ = read_entries(state.values, state.unreadable)
        named = frozenset(entry.plan.bundle for entry in entries.values() if entry.plan.bundle)
        if self._depot is not None:
            self._tend_depot(self._depot, named)
        for digest in sorted(digest for digest in named if not self._blobs.has(digest)):
            self._fetch(digest)
        self._tell(Named(named))

    def _fetch(self, digest: str) -> None:
        if self._depot is not None:
            try:
                self._tell(Fetched(digest, self._depot.get(digest)))
                return
            except RainbandError as error:
                log.info("%s", error)
        for address in self._others():
            try:
                with self._connected(address) as peer:
                    self._tell(Fetched(digest, fetch(peer, digest)))
                return
            except RainbandError as error:
                log.info("bundle %s is not at nimbus %s: %s", digest[:12], address, error)

    def _tend_depot(self, depot: Depot, named: frozenset[str]) -> None:
        """Bring what is needed and not there, and delete what nobody has named for long."""
        try:
            there = depot.digests()
            for digest in named - there:
                if self._blobs.has(digest):
                    depot.put(digest, whole(self._blobs, digest))
            for digest in self._unnamed.overdue(there, named, self._clock.now()):
                depot.delete(digest)
        except RainbandError as error:
            log.warning("%s", error)

    @contextlib.contextmanager
    def _connected(self, address: str) -> Iterator[RpcClient]:
        client = RpcClient([address], PEER_S, self._keys)
        try:
            yield client
        finally:
            client.close()


def give(peer: RpcClient, digest: str, blobs: Blobs) -> None:
    """Upload a bundle unless it is there. Raises a RainbandError."""
    with contextlib.suppress(StoreError):
        peer.call(Download(digest, 0, 0, here=True))
        return
    for offset, data, last in pieces(blobs, digest):
        peer.call(Upload(digest, offset, data, last, here=True))


def pieces(blobs: Blobs, digest: str) -> Iterator[tuple[int, bytes, bool]]:
    """A blob that is here: where each piece begins, the piece, whether it is the last. Raises StoreError."""
    offset, size = 0, 1
    while offset < size:
        data, size = blobs.read(digest, offset, PIECE_BYTES)
        yield offset, data, offset + len(data) >= size
        offset += len(data)


def whole(blobs: Blobs, digest: str) -> bytes:
    """All of a blob that is here. Raises StoreError."""
    return b"".join(data for _, data, _ in pieces(blobs, digest))


def fetch(peer: RpcClient, digest: str) -> bytes:
    """A whole bundle, checked. Raises a RainbandError."""
    parts: list[bytes] = []
    offset, size = 0, 1
    while offset < size:
        piece = peer.call(Download(digest, offset, PIECE_BYTES, here=True))
        if not isinstance(piece, Piece) or not piece.data or not 0 < piece.size <= BLOB_BYTES_MAX:
            raise StoreError(f"it did not send blob {digest[:12]}")
        size = piece.size
        parts.append(piece.data)
        offset += len(piece.data)
    data = b"".join(parts)
    if hashlib.sha256(data).hexdigest() != digest:
        raise StoreError(f"its blob {digest[:12]} is corrupt")
    return data
