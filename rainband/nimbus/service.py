"""The Nimbus daemon: sockets, signals and the clock around the core and the election."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from rainband.clock import Clock, SystemClock
from rainband.cluster.election import Standing
from rainband.config import Config
from rainband.errors import (
    ClusterUnavailable,
    InvalidTopology,
    NotCopied,
    RainbandError,
    StoreError,
    SupervisorReplaced,
)
from rainband.messaging.keys import cluster_keys
from rainband.messaging.rpc import RpcServer, failure, record_of
from rainband.nimbus import journal
from rainband.nimbus.copies import PIECE_BYTES, Copied, Copies, Fetched, Named
from rainband.nimbus.core import Nimbus
from rainband.nimbus.shelf import Shelf
from rainband.nimbus.state import Opened, open_state
from rainband.records import (
    Activate,
    Deactivate,
    Download,
    Failure,
    GetTopology,
    Heartbeat,
    Kill,
    Progress,
    Rebalance,
    Request,
    Response,
    Submit,
    Upload,
)
from rainband.topology.plan import Plan

log = logging.getLogger("rainband.nimbus")

STILL_S = 5.0
SLOW_S = 1.0
COPY_S = 3.0
COPY_AGAIN_S = 0.5


@dataclass(frozen=True, slots=True)
class Held:
    """A submit that waits, until monotonic `until`, for its bundle to be on a second Nimbus."""

    peer: bytes
    request_id: int
    request: Submit
    digest: str
    until: float


def run(config: Config) -> None:
    """Be the Nimbus that `config` describes until SIGTERM or SIGINT; the latter raises KeyboardInterrupt afterwards.

    Raises StateLocked, Refused (state directory, port in use, cluster id mismatch) or NotAllowed (exposed
    without keys, wrong credentials).
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
    """One Nimbus: opens state and port when made, answers in `serve`, which `stop` ends from any thread.

    While it leads it has a core, `nimbus`; while another one leads it says so to whoever asks, and keeps copies.
    """

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        keys = cluster_keys(config["keys.dir"])
        opened = open_state(config)
        try:
            server = RpcServer(config["nimbus.host"], config["nimbus.port"], keys)
        except BaseException:
            opened.store.close()
            raise
        given = clock if clock is not None else SystemClock()
        expiry_s = config["nimbus.upload.expiry.secs"]
        make_copies = partial(
            Copies, opened.store, opened.blobs, keys=keys, clock=given, depot=opened.depot, expiry_s=expiry_s
        )
        self._assemble(config, given, opened, server, make_copies)

    def _assemble(
        self, config: Config, clock: Clock, opened: Opened, server: RpcServer, make_copies: Callable[..., Copies]
    ) -> None:
        """Put the parts together and stand for election; `make_copies` gets `others` and `wake` of Copies."""
        self.config = config
        self.clock = clock
        self._opened = opened
        self._server = server
        self.address = server.address
        self._nimbus: Nimbus | None = None
        self._standing = Standing(False)
        self._above = 0
        self._refused: dict[str, int] = {}
        self._shelf = Shelf(opened.blobs, config["nimbus.upload.expiry.secs"], clock.now())
        self._peers: dict[str, bytes] = {}
        self._held: list[Held] = []
        self._copy_at: dict[str, float] = {}
        self._not_taken: dict[str, str] = {}
        self._stopping = threading.Event()
        self._troubles: dict[str, str] = {}
        self._copies: Copies | None = None
        try:
            opened.election.stand(self.address, server.wake)
            if opened.shared:
                self._copies = make_copies(others=self._others, wake=server.wake)
            self._look_who_leads(clock.now())
        except BaseException:
            self.close()
            raise

    @property
    def nimbus(self) -> Nimbus:
        """The core, while this one leads."""
        assert self._nimbus is not None, "this Nimbus does not lead"
        return self._nimbus

    @property
    def leads(self) -> bool:
        return self._nimbus is not None

    def serve(self) -> None:
        """Answer until `stop`. Raises the RainbandError that makes going on pointless."""
        log.info("nimbus listens on %s", self.address)
        last = self.clock.now()
        while not self._stopping.is_set():
            wait_s = self._wait_s(last)
            requests = self._server.poll(wait_s)
            now = self.clock.now()
            self.turn(requests, now, now - last - wait_s)
            last = now

    def turn(self, requests: Sequence[tuple[bytes, int, Request]], now: float, late_s: float) -> None:
        """One round: what was asked, what was copied, what time brings. It comes `late_s` later than it should."""
        if late_s > STILL_S:
            log.warning("stood still for %.1f s; supervisors get that time on top", late_s)
        if late_s > SLOW_S and self._nimbus is not None:
            self._nimbus.paused(late_s)
        self._look_who_leads(now)
        for peer, request_id, request in requests:
            if isinstance(request, Submit) and self._must_wait(peer, request_id, request):
                continue
            self._server.reply(peer, request_id, self._answer(request, peer))
        self._take_copies()
        self._tick(now)

    def _wait_s(self, now: float) -> float:
        wait_s: float = self.config["nimbus.monitor.freq.secs"]
        if self._nimbus is not None and not self._nimbus.troubles:  # what could not be written is not tried in a hurry
            wait_s = min(wait_s, self._nimbus.next_deadline() - now)
        due = [*(held.until for held in self._held), *self._copy_at.values()]
        return max(0.0, min([wait_s, *(at - now for at in due)]))

    def stop(self) -> None:
        """End `serve`; from any thread or signal handler."""
        self._stopping.set()
        self._server.wake()

    def close(self) -> None:
        """Make way for the next leader, and let go of port and state."""
        self._opened.election.close()
        if self._copies is not None:
            self._copies.close()
        self._opened.store.close()
        self._server.close()

    # Who leads.

    def _look_who_leads(self, now: float) -> None:
        before, self._standing = self._standing, self._opened.election.standing(now)
        standing = self._standing
        if standing.leads and self._nimbus is None:
            self._begin(now)
        elif not standing.leads and self._nimbus is not None:
            self._step_down(standing.trouble or "another one was elected")
        elif not standing.leads and standing != before:
            log.info("%s", standing.trouble or f"nimbus {standing.leader} leads")
        if self._nimbus is not None and standing.members:
            self._nimbus.members = standing.members
        if standing.members != before.members and self._copies is not None:
            self._copies.upkeep()

    def _begin(self, now: float) -> None:
        """Take the lead: a new epoch, and what is stored."""
        opened = self._opened
        try:
            settings = self.config.plain()
            self._nimbus = Nimbus(opened.store, opened.blobs, settings, now, address=self.address, above=self._above)
        except ClusterUnavailable as error:
            log.error("elected, but cannot lead: %s", error)
            opened.election.resign()
            return
        log.info("nimbus %s leads, epoch %d", self.address, self._nimbus.epoch)
        for key, reason in self._nimbus.damaged.items():
            log.error("set aside: the stored %s cannot be read: %s", key, reason)
        self._troubles = {}

    def _step_down(self, reason: str) -> None:
        log.warning("stale leader: epoch %d is over: %s", self.nimbus.epoch, reason)
        self._nimbus = None
        self._peers.clear()
        self._copy_at.clear()
        held, self._held = self._held, []
        for one in held:
            self._server.reply(one.peer, one.request_id, self._not_leader())

    def _make_way(self, beat: Heartbeat, now: float) -> None:
        """Lead anew, above the epoch a supervisor has heard of: the state is from a copy, or somebody else leads.

        Not where the store itself is at a later epoch than ours: then this Nimbus is the one that was replaced.
        """
        nimbus, opened = self._nimbus, self._opened
        epoch = nimbus.outdone_by(beat) if nimbus is not None else 0
        if nimbus is not None and epoch and (opened.shared or opened.store.read_all().epoch == nimbus.epoch):
            self._above = max(self._above, epoch)
            opened.election.resign()
            self._step_down(f"supervisor {beat.supervisor[:80]!r} has heard of epoch {epoch}")
            self._look_who_leads(now)

    def _not_leader(self) -> Failure:
        standing = self._standing
        if standing.trouble:
            fix = "What runs goes on; see whether ZooKeeper is up"
            return Failure("not_leader", standing.trouble, fix)
        if not standing.leader:
            return Failure("not_leader", "no Nimbus leads at present", "Wait for the end of the election")
        if standing.leader == self.address:  # on another machine, or this one before it was killed
            fix = "Wait nimbus.zookeeper.session.secs after a kill; else give each Nimbus a nimbus.host of its own"
            return Failure("not_leader", f"a Nimbus that leads calls itself {self.address}, as this one does", fix)
        fix = "Ask that one"
        return Failure("not_leader", f"the Nimbus at {standing.leader} leads, not this one", fix, standing.leader)

    def _others(self) -> list[str]:
        """Addresses of the other Nimbuses; on the thread of the copies."""
        return [address for address in self._standing.members if address != self.address]

    def _elsewhere(self) -> list[str]:
        """Where a second copy of a bundle may be."""
        depot = self._opened.depot
        return [*([depot.url] if depot is not None else []), *self._others()]

    # Requests.

    def _answer(self, request: Request, peer: bytes) -> Response:
        now = self.clock.now()
        try:
            if isinstance(request, (Upload, Download)) and request.here:
                return self._shelf.take(request, now) if isinstance(request, Upload) else self._shelf.give(request, now)
            self._look_who_leads(now)
            if isinstance(request, Heartbeat):
                self._make_way(request, now)
            if self._nimbus is None:
                return self._not_leader()
            response = self._nimbus.handle(request, now, self.clock.wall())
            self._log(request, response, self._nimbus, now)
            self._look_who_leads(self.clock.now())
            if not self.leads and isinstance(response, Failure) and response.code == StoreError.code:
                return self._not_leader()  # refused by its epoch: surely not done
        except RainbandError as error:
            return Failure(error.code, error.message, error.fix)
        except Exception as error:  # a bug must not take the others' Nimbus down; nothing was decided
            log.exception("%s failed", type(request).__name__)
            return Failure("error", f"Nimbus failed on this request: {error!r}", "See its log")
        if isinstance(request, Heartbeat) and not isinstance(response, Failure):
            if request.stopping:
                self._peers.pop(request.supervisor, None)
            else:
                self._peers[request.supervisor] = peer
        return response

    def _log(self, request: Request, response: Response, nimbus: Nimbus, now: float) -> None:
        if isinstance(request, Heartbeat) and isinstance(response, Failure):
            told = self._refused.get(request.supervisor) == request.incarnation
            if response.code == SupervisorReplaced.code and not told:
                self._refused[request.supervisor] = request.incarnation
                log.warning("%s", failure(response))
        if isinstance(request, Submit | Kill | Rebalance | Activate | Deactivate):
            after = nimbus.handle(GetTopology(request.name), now, self.clock.wall())
            if line := journal.line(request, response, after):
                log.info("%s", line)

    def _must_wait(self, peer: bytes, request_id: int, request: Submit) -> bool:
        """Whether the bundle has to get to a second place first. If so the submit is held until it is there."""
        if self._copies is None or self._nimbus is None or not self._elsewhere():
            return False
        try:
            digest = Plan.decode(request.plan).bundle
        except InvalidTopology:
            return False
        if not self._shelf.has(digest):
            return False
        if not any(held.digest == digest for held in self._held):
            self._copies.push(digest)
        self._held.append(Held(peer, request_id, request, digest, self.clock.now() + COPY_S))
        return True

    def _take_copies(self) -> None:
        now = self.clock.now()
        for news in self._copies.take() if self._copies is not None else ():
            match news:
                case Copied(digest=digest, address="", reason=reason):
                    self._copy_at[digest] = now + COPY_AGAIN_S
                    self._not_taken[digest] = reason
                case Copied(digest=digest):
                    self._release([held for held in self._held if held.digest == digest])
                case Fetched(digest=digest, data=data):
                    self._store_fetched(digest, data, now)
                case Named(digests=digests) if self._nimbus is None:
                    self._clean(digests, now)
        self._tend_held(now)

    def _clean(self, named: frozenset[str], now: float) -> None:
        try:
            self._shelf.clean(named, now)
        except RainbandError as error:
            log.error("bundles stay as they are: %s", error)

    def _tend_held(self, now: float) -> None:
        """Try again what nobody took; answer those that waited too long, or need not wait any more."""
        places = self._elsewhere()
        if not places:
            self._release(list(self._held))
        for late in [held for held in self._held if now >= held.until]:
            self._held.remove(late)
            why = self._not_taken.get(late.digest) or ", ".join(places)
            self._server.reply(late.peer, late.request_id, record_of(not_copied(late.digest, why)))
        waiting = {held.digest for held in self._held}
        self._not_taken = {digest: why for digest, why in self._not_taken.items() if digest in waiting}
        for digest in [digest for digest, at in self._copy_at.items() if now >= at or digest not in waiting]:
            del self._copy_at[digest]
            if digest in waiting and self._copies is not None:
                self._copies.push(digest)

    def _release(self, ready: list[Held]) -> None:
        self._held = [held for held in self._held if held not in ready]
        for held in ready:
            self._server.reply(held.peer, held.request_id, self._answer(held.request, held.peer))

    def _store_fetched(self, digest: str, data: bytes, now: float) -> None:
        try:
            for offset in range(0, len(data), PIECE_BYTES):
                end = offset + PIECE_BYTES
                self._shelf.take(Upload(digest, offset, data[offset:end], end >= len(data)), now)
            log.info("fetched bundle %s", digest[:12])
        except RainbandError as error:
            log.error("bundle %s cannot be kept: %s", digest[:12], error)

    def _tick(self, now: float) -> None:
        """At the `now` of the round: whoever was not heard since may be waiting to be read."""
        if self._nimbus is None:
            return
        for supervisor in self._nimbus.tick(now):
            self._push(supervisor, Progress())
        for topology_id, supervisors in self._nimbus.stacks.take().items():
            for supervisor in sorted(supervisors):
                self._push(supervisor, Progress(topology_id, stacks=True))
        for topology_id, reason in self._nimbus.troubles.items():
            if self._troubles.get(topology_id) != reason:
                log.error("%s stays as it is: %s", topology_id, reason)
        self._troubles = dict(self._nimbus.troubles)
        for line in self._nimbus.news.take():
            log.info("%s", line)
        self._look_who_leads(self.clock.now())

    def _push(self, supervisor: str, progress: Progress) -> None:
        peer = self._peers.get(supervisor)
        if peer is not None and not self._server.push(peer, progress):
            del self._peers[supervisor]


def not_copied(digest: str, why: str) -> NotCopied:
    """The refusal of a topology whose code the loss of one machine would lose."""
    return NotCopied(
        f"the bundle {digest[:12]} is on this Nimbus only: no other place takes a copy ({why})",
        "Mend that, or submit again in a moment: a dead Nimbus is forgotten after nimbus.zookeeper.session.secs",
    )


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
