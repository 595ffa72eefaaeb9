"""A Nimbus's place in the queue of candidates that ZooKeeper keeps, held by a thread of its own."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Sequence

from kazoo import exceptions as zk

from rainband.cluster.election import Lease, Standing, places_of, queue_of
from rainband.cluster.keeper import CLOSE_S, LOST, Keeper, unavailable
from rainband.errors import ClusterUnavailable, RainbandError

NODE = "election"
CALL_S = 2.5
RENEWALS = 5
LOOK_S = 2.0
RETRY_S = 0.2


class Campaign:
    """The thread may wait for ZooKeeper; `standing` only looks at what it found.

    `prepare(until)` makes the root on the first start and checks that it is ours.
    """

    def __init__(self, keeper: Keeper, prepare: Callable[[float], object]) -> None:
        self._keeper = keeper
        self._prepare = prepare
        self._prepared = False
        self._clock = keeper.clock
        self._bell = threading.Event()
        self._identity = secrets.token_hex(16)
        self._left: set[str] = set()
        self._address = ""
        self._wake: Callable[[], None] = lambda: None
        self._addresses: dict[str, str] = {}
        self._lock = threading.Lock()
        self._lease = Lease()
        self._shown = Standing(False, trouble=unavailable("not connected yet").message)
        self._fatal: RainbandError | None = None
        self._resigned = False
        self._closing = False
        self._thread: threading.Thread | None = None

    def begin(self, address: str, wake: Callable[[], None]) -> None:
        self._address, self._wake = address, wake
        self._thread = threading.Thread(target=self._run, name="election", daemon=True)
        self._thread.start()

    def standing(self, now: float) -> Standing:
        if self._fatal is not None:
            raise self._fatal
        with self._lock:
            shown = self._shown
            if not shown.leads or (self._lease.held(now) and not self._resigned):
                return shown
        return Standing(False, trouble=unavailable("the lease of this leader ran out").message)

    def lost(self) -> None:
        """The session has ended. On a thread that must not wait."""
        self._lease.end()
        self._bell.set()

    def resign(self) -> None:
        with self._lock:
            self._resigned = True
            self._lease.end()
        self._bell.set()

    def close(self) -> None:
        with self._lock:
            self._closing = True
            self._lease.end()
        self._bell.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while not self._closing:
            self._bell.clear()
            rest_s = self.turn()
            if rest_s is None:
                return
            self._bell.wait(rest_s)
        self._leave()

    def turn(self) -> float | None:
        """One look; the seconds to rest after it unless something changes, None when standing has become pointless."""
        shown = self._round()
        if shown is None:
            return None
        self._show(shown)
        return RETRY_S if shown.trouble else min(LOOK_S, (self._keeper.session_s or 1.0) / RENEWALS)

    def _round(self) -> Standing | None:
        """One look; None when standing has become pointless."""
        until = self._clock.now() + CALL_S
        try:
            with self._keeper.guarded():
                try:
                    return self._look(until)
                except zk.NoNodeError:
                    self._prepare(until)
                    return self._look(until)
        except ClusterUnavailable as error:
            return Standing(False, trouble=error.message)
        except RainbandError as error:
            self._fatal = error
            self._wake()
            return None

    def _show(self, shown: Standing) -> None:
        with self._lock:
            if shown.trouble and self._shown.leads and self._lease.held(self._clock.now()):
                return  # a leader leads until its lease ends, whatever the connection does
            changed = shown != self._shown
            self._shown = shown
        if changed:
            self._wake()

    def _look(self, until: float) -> Standing:
        """Keep one place in the queue, see who is first, renew the lease when that is us."""
        if not self._prepared:
            self._prepare(until)
            self._prepared = True
        with self._lock:
            resigned, self._resigned = self._resigned, False
            if resigned:
                self._shown = Standing(False)
                self._left.add(self._identity)
                self._identity = secrets.token_hex(16)
        if self._left:  # until it is sure that nothing of ours stands in the way of the others
            self._delete([c.node for c in queue_of(self._nodes(until)) if c.identity in self._left], until)
            self._left.clear()
        nodes = self._nodes(until)
        own, more = places_of(self._identity, queue_of(nodes))
        self._delete([candidate.node for candidate in more], until)
        if own is None:
            self._keeper.create(NODE, f"{self._identity}-", data=self._address.encode(), until=until, candidate=True)
            nodes = self._nodes(until)
        return self._judge(nodes, until)

    def _nodes(self, until: float) -> list[str]:
        return self._keeper.children(NODE, until=until, watch=self._rung)

    def _rung(self, event: object) -> None:
        self._bell.set()

    def _delete(self, nodes: Sequence[str], until: float) -> None:
        for node in nodes:
            with contextlib.suppress(zk.NoNodeError):
                self._keeper.wait(self._keeper.delete(NODE, node), until)

    def _judge(self, nodes: Sequence[str], until: float) -> Standing:
        candidates = queue_of(nodes)
        known, found = self._addresses, [candidate.node for candidate in candidates]
        self._addresses = {node: known[node] if node in known else self._address_of(node, until) for node in found}
        queue = [candidate for candidate in candidates if self._addresses[candidate.node]]
        members = tuple(filter(None, self._addresses.values()))
        if not queue or queue[0].identity != self._identity:
            return Standing(False, members[0] if members else "", members)
        # A write, because only what a quorum took proves that our session is alive: a server that was cut off from the
        # others answers reads for a while.
        sent = self._clock.now()
        self._keeper.set(NODE, queue[0].node, data=self._address.encode(), until=until)
        with self._lock:
            if self._resigned or self._closing:
                return Standing(False, "", members)
            self._lease.session_s = self._keeper.session_s
            self._lease.renewed(sent)
        return Standing(True, self._address, members)

    def _address_of(self, node: str, until: float) -> str:
        """Of a candidate; '' for one that has just left, and for a node that no session holds: a copy of one."""
        try:
            data, held = self._keeper.get_held(NODE, node, until=until)
        except zk.NoNodeError:
            return ""
        return data.decode(errors="replace") if held else ""

    def _leave(self) -> None:
        """Make way at once, if ZooKeeper takes it; else the end of the session does."""
        with contextlib.suppress(*LOST, zk.KazooException):
            until = self._clock.now() + CLOSE_S
            own = {self._identity, *self._left}
            self._delete([c.node for c in queue_of(self._nodes(until)) if c.identity in own], until)
