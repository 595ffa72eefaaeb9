"""The Nimbus daemon: sockets, signals and the clock around the core."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rainband.clock import Clock, SystemClock
from rainband.cluster.blobs import Blobs, DirectoryBlobs, MemoryBlobs
from rainband.cluster.memory import MemoryStore
from rainband.cluster.sqlite import SqliteStore
from rainband.cluster.store import Store
from rainband.config import Config
from rainband.errors import UsageError
from rainband.messaging.keys import Keys
from rainband.messaging.rpc import RpcServer
from rainband.nimbus.core import Nimbus
from rainband.records import Failure, Heartbeat, Progress, Request, Response

log = logging.getLogger("rainband.nimbus")

KEY_FILE = "cluster.key"
STILL_S = 5.0


def run(config: Config) -> None:
    """Be the Nimbus that `config` describes until SIGTERM or SIGINT; the latter raises KeyboardInterrupt afterwards.

    Raises StateLocked, UsageError (state directory), Refused (port in use) or NotAllowed (exposed without keys).
    """
    service = Service(config)
    try:
        with stop_on_signals(service) as received:
            service.serve()
    finally:
        service.close()
    if signal.SIGINT in received:
        raise KeyboardInterrupt


class Service:
    """One Nimbus: opens state and port when made, answers in `serve`, which `stop` ends from any thread."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        self.config = config
        self.clock: Clock = clock if clock is not None else SystemClock()
        self._store, blobs = open_state(config)
        try:
            self._server = RpcServer(config["nimbus.host"], config["nimbus.port"], load_keys(config))
        except BaseException:
            self._store.close()
            raise
        self.address = self._server.address
        try:
            self.nimbus = Nimbus(self._store, blobs, config.plain(), self.clock.now(), address=self.address)
        except BaseException:
            self.close()
            raise
        self._peers: dict[str, bytes] = {}
        self._stopping = threading.Event()
        self._troubles: dict[str, str] = {}
        for key, reason in self.nimbus.damaged.items():
            log.error("set aside: the stored %s cannot be read: %s", key, reason)

    def serve(self) -> None:
        """Answer until `stop`."""
        log.info("nimbus listens on %s, epoch %d", self.address, self.nimbus.epoch)
        last = self.clock.now()
        while not self._stopping.is_set():
            wait_s: float = self.config["nimbus.monitor.freq.secs"]
            if not self.nimbus.troubles:  # what could not be written is not tried again in a hurry
                wait_s = max(0.0, min(wait_s, self.nimbus.next_deadline() - last))
            requests = self._server.poll(wait_s)
            now = self.clock.now()
            if now - last > wait_s + STILL_S:
                log.warning("stood still for %.1f s; supervisors get that time on top", now - last)
                self.nimbus.paused(now - last)
            last = now
            for peer, request_id, request in requests:
                self._server.reply(peer, request_id, self._answer(request, peer))
            self._tick()

    def stop(self) -> None:
        """End `serve`; from any thread or signal handler."""
        self._stopping.set()
        self._server.wake()

    def close(self) -> None:
        """Let go of port and state."""
        self._server.close()
        self._store.close()

    def _answer(self, request: Request, peer: bytes) -> Response:
        try:
            response = self.nimbus.handle(request, self.clock.now(), self.clock.wall())
        except Exception as error:  # a bug must not take the others' Nimbus down; nothing was decided
            log.exception("%s failed", type(request).__name__)
            return Failure("error", f"Nimbus failed on this request: {error!r}", "See its log")
        if isinstance(request, Heartbeat) and not isinstance(response, Failure):
            if request.stopping:
                self._peers.pop(request.supervisor, None)
            else:
                self._peers[request.supervisor] = peer
        return response

    def _tick(self) -> None:
        for supervisor in self.nimbus.tick(self.clock.now()):
            self._push(supervisor, Progress())
        for topology_id, supervisors in self.nimbus.take_stack_requests().items():
            for supervisor in sorted(supervisors):
                self._push(supervisor, Progress(topology_id, stacks=True))
        for topology_id, reason in self.nimbus.troubles.items():
            if self._troubles.get(topology_id) != reason:
                log.error("%s stays as it is: %s", topology_id, reason)
        self._troubles = dict(self.nimbus.troubles)

    def _push(self, supervisor: str, progress: Progress) -> None:
        peer = self._peers.get(supervisor)
        if peer is not None and not self._server.push(peer, progress):
            del self._peers[supervisor]


def open_state(config: Config) -> tuple[Store, Blobs]:
    """Store and blobs as `nimbus.state` and `state.dir` say; everything lies in the directory `nimbus` there."""
    kind = config["nimbus.state"]
    if kind == "memory":
        return MemoryStore(), MemoryBlobs()
    if kind != "sqlite":
        raise UsageError(f"nimbus.state {kind} is not there yet", "Use sqlite or memory")
    directory = Path(config["state.dir"]).expanduser() / "nimbus"
    store = SqliteStore(directory)
    try:
        return store, DirectoryBlobs(directory / "blobs")
    except BaseException:
        store.close()
        raise


def load_keys(config: Config) -> Keys | None:
    """The cluster's key pair, when `keys.dir` names a directory."""
    directory = config["keys.dir"]
    return Keys.load(Path(directory).expanduser() / KEY_FILE) if directory else None


@contextmanager
def stop_on_signals(service: Service) -> Iterator[list[int]]:
    """SIGTERM and SIGINT stop the service; yields the list of those that came. Does nothing off the main thread."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def stop(number: int, frame: object) -> None:
        received.append(number)
        service.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
