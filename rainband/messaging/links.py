"""Links: between the same two worker processes nothing is lost and nothing repeated, whatever the network does.

Theory of operation. A process is an *incarnation*: a random number drawn when it started. Towards each peer slot
address there is one `Link`, for both directions (link.py: numbers, receipts, repeats). A broken connection costs time,
never a message. Only another process at the peer's address (a new incarnation) or word of the peer's death ends a
conversation: then the roots of whatever was not receipted are handed back as *lost*, and the link starts again, empty.

Who is there. HELLO names a sender's address. A process is believed to live at an address only once it has answered
us by our own incarnation, so a hello that was delayed past its sender's death can never displace its successor:

    A hello(to 0) ->  B: may be A, asks   hello(to A) ->  A: B answered me, B is there
                      B: A is there    <- hello or any frame (to B)

An incarnation that was replaced, dropped, reported dead or refused is fenced: its frames are counted and dropped for
ever. It may be alive all the same (its slot was given away and given back before it heard of either): then its hello is
answered with word of its own death, so that it ends and another process, which nobody has fenced, can take its place.

No clock, socket or random here: `now` is monotonic seconds, frames go in and out as values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from rainband.errors import WireError
from rainband.messaging import frames
from rainband.messaging.frames import BATCH, GONE, HELLO, Header
from rainband.messaging.link import BUFFER_BYTES, MESSAGE_BYTES_MAX, NEVER, Link, LinkStatistics

LINKS_MAX: Final = 4096
FENCED_MAX: Final = 16384
CONDEMNED_MAX: Final = 64


class PeerReplaced:
    """Another process answers at `address`: the roots of what the old one never receipted, oldest first."""

    def __init__(self, address: str, old_incarnation: int, new_incarnation: int, lost_roots: list[object]) -> None:
        self.address = address
        self.old_incarnation = old_incarnation
        self.new_incarnation = new_incarnation
        self.lost_roots = lost_roots

    def __repr__(self) -> str:
        return f"PeerReplaced({self.address}, {self.old_incarnation}, {self.new_incarnation}, {self.lost_roots})"


class Gone:
    """The process `incarnation` at `address` is dead since `died_at` or before; `lost_roots` as in PeerReplaced."""

    def __init__(self, address: str, incarnation: int, lost_roots: list[object], died_at: float) -> None:
        self.died_at = died_at
        self.address = address
        self.incarnation = incarnation
        self.lost_roots = lost_roots

    def __repr__(self) -> str:
        return f"Gone({self.address}, {self.incarnation}, {self.lost_roots})"


class Condemned:
    """A peer has fenced this very process for ever: it can only end, and be started anew."""


# A message is (kind, address of the sender's slot, payload).
Event = tuple[int, str, bytes] | PeerReplaced | Gone | Condemned


class Outlet(Protocol):
    """Where frames leave: a Network, or anything like it."""

    def send(self, address: str, frame: bytes) -> bool:
        """Hand a frame over; False = not now, offer it again later."""


class Links:
    """All links of one worker process: made on demand, found by address, known by the peer's incarnation.

    While it `takes` nothing, what comes is not receipted: its senders keep it, for whoever has the tasks by now.
    """

    def __init__(
        self,
        my_address: str,
        incarnation: int,
        topology_hash: int,
        buffer_bytes: int = BUFFER_BYTES,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
    ) -> None:
        """`incarnation` and `topology_hash` are 63-bit numbers; `incarnation` is random and not 0."""
        assert 0 < incarnation <= frames.ID_MAX
        assert 0 <= topology_hash <= frames.ID_MAX
        self.my_address = my_address
        self.incarnation = incarnation
        self.topology = topology_hash
        self.buffer_bytes = buffer_bytes
        self.message_bytes_max = message_bytes_max
        self.by_address: dict[str, Link] = {}
        self.by_incarnation: dict[int, Link] = {}
        self.candidates: dict[int, Link] = {}
        self.fenced: dict[int, None] = {}
        self.condemned: list[tuple[str, int]] = []
        self.dirty: list[Link] = []
        self.next_at = NEVER
        self.born_at = NEVER
        self.takes = True
        self.malformed = 0
        self.complaint = ""
        self.foreign = 0
        self.refused = 0
        self.unknown = 0
        self.stale = 0

    # -- what the worker calls ------------------------------------------------------------------------------

    def link(self, address: str) -> Link:
        """The link to the worker slot `host:port`; made and introduced (HELLO) at the first call."""
        link = self.by_address.get(address)
        if link is None or not link.wanted:
            if link is None:
                link = self._make(address)
            link.want()
        return link

    def receive(self, frame: bytes, now: float) -> list[Event]:
        """Take a frame of the network; what came of it, in order. What is bad is counted and dropped, never raised."""
        try:
            header = frames.parse(frame)
        except WireError as error:
            self.malformed += 1
            self.complaint = str(error)
            return []
        if header.topology != self.topology:
            self.foreign += 1
            return []
        try:
            if header.kind == GONE:
                return self._gone(header, frame, now)
            if header.sender in self.fenced or header.sender == self.incarnation:
                self.refused += 1
                if header.kind == HELLO and header.sender != self.incarnation:
                    self._condemn(header.sender, frame)
                return []
            if header.kind == HELLO:
                return self._hello(header, frame)
        except WireError as error:
            self.malformed += 1
            self.complaint = str(error)
            return []
        return self._ordinary(header, frame, now)

    def flush(self, now: float, network: Outlet) -> None:
        """Offer every frame that may leave; what the network does not take now is kept for a later flush."""
        if self.condemned:
            self._tell_condemned(network)
        if not self.dirty:
            return
        links = self.dirty[:]
        self.dirty.clear()
        for link in links:
            link.dirty = False
            if now < link.retry_at:
                link.mark()
            else:
                self._flush(link, now, network)
            self.next_at = min(self.next_at, link.deadline())

    def tick(self, now: float) -> float:
        """Do what is due (receipts, probes, hellos: they leave at the next flush); the next deadline, or inf."""
        if now < self.next_at:
            return self.next_at
        at = NEVER
        for link in list(self.by_address.values()):
            if now >= link.deadline():
                link.tick(now)
                if link.unanswered:
                    self._give_up(link)
            at = min(at, link.deadline())
        self.next_at = at
        return at

    def drop(self, address: str) -> list[object]:
        """The assignment no longer has a worker there: forget the link, fence its process; the roots lost with it."""
        link = self.by_address.get(address)
        if link is None:
            return []
        lost = self._end(link)
        self._remove(link)
        return lost

    def refuse(self, incarnation: int) -> list[object]:
        """Fence a process whose lease was revoked: nothing of it is taken any more. The roots lost if it was a peer."""
        link = self.by_incarnation.get(incarnation)
        if link is not None:
            return self._end(link)
        self._fence(incarnation)
        return []

    def gone(self, address: str, incarnation: int, died_at: float = NEVER) -> list[object] | None:
        """The process `incarnation` at `address` is dead. The roots lost with it, also if it never answered.

        None when it is no loss. Said again it changes nothing: what has been queued since is for its successor. Nor is
        anything lost with one that had died before `born_at`, when this process took or sent its first tuple.
        """
        if incarnation in self.fenced:
            return None
        self._fence(incarnation)
        link = self.by_address.get(address)
        if link is None or link.peer not in (incarnation, 0) or (link.peer == 0 and died_at < self.born_at):
            return None
        return self._end(link)

    def links(self) -> Sequence[Link]:
        return list(self.by_address.values())

    def statistics(self) -> list[LinkStatistics]:
        return [link.statistics() for link in self.by_address.values()]

    def counters(self) -> dict[str, int]:
        """What was dropped or repeated, and why, summed over the links."""
        links = self.by_address.values()
        return {
            "frames_malformed": self.malformed,
            "frames_foreign": self.foreign,
            "frames_refused": self.refused,
            "frames_unknown": self.unknown,
            "frames_stale": self.stale,
            "frames_duplicate": sum(link.duplicates for link in links),
            "frames_repeated": sum(link.frames_repeated for link in links),
            "frames_gap": sum(link.gaps for link in links),
            "frames_broken": sum(link.broken for link in links),
        }

    # -- inside ---------------------------------------------------------------------------------------------

    def _make(self, address: str) -> Link:
        link = Link(
            address, self.my_address, self.incarnation, self.topology,
            self.buffer_bytes, self.message_bytes_max, self.dirty,
        )
        self.by_address[address] = link
        return link

    def _remove(self, link: Link) -> None:
        del self.by_address[link.address]
        if link.dirty:
            self.dirty.remove(link)
        link.dirty_links = []

    def _give_up(self, link: Link) -> None:
        """Whoever said hello does not answer: forget that, and the link too if nobody else wants it."""
        self._forget_candidate(link)
        if link.peer == 0 and not link.wanted:
            self._remove(link)

    def _flush(self, link: Link, now: float, network: Outlet) -> None:
        frame = link.next_frame()
        while frame is not None:
            if not network.send(link.address, frame):
                link.refused(now)
                link.mark()
                return
            link.taken(now)
            frame = link.next_frame()

    def _ordinary(self, header: Header, frame: bytes, now: float) -> list[Event]:
        events: list[Event] = []
        link = self.by_incarnation.get(header.sender)
        if link is None:
            link = self.candidates.get(header.sender)
            if link is None or header.receiver != self.incarnation:
                self.unknown += 1
                return events
            self._adopt(link, header.sender, events)
        elif header.receiver != self.incarnation:
            self.stale += 1
            link.hello_due = True
            link.mark()
            return events
        address = link.address
        if header.kind == BATCH and not self.takes:
            link.take_receipt(header.receipt, now)
            return events
        for kind, payload in link.receive(header, frame, now):
            events.append((kind, address, payload))
        self.next_at = min(self.next_at, link.deadline())
        return events

    def _hello(self, header: Header, frame: bytes) -> list[Event]:
        events: list[Event] = []
        sender = header.sender
        address, answer = frames.read_hello(frame)
        link = self.by_address.get(address)
        known = self.by_incarnation.get(sender)
        if address == self.my_address or (known is not None and known is not link):
            self.refused += 1
            return events
        if link is None:
            if len(self.by_address) >= LINKS_MAX:
                self.refused += 1
                return events
            link = self._make(address)
        meant = header.receiver == self.incarnation
        if sender == link.peer:
            if meant:
                self._forget_candidate(link)
        elif meant:
            self._adopt(link, sender, events)
        else:
            self._forget_candidate(link)
            link.candidate = sender
            self.candidates[sender] = link
            answer = True
        if answer or not meant:
            link.hello_due = True
            link.mark()
        return events

    def _condemn(self, incarnation: int, frame: bytes) -> None:
        """A fenced process says hello: have the next flush tell it."""
        address, _ = frames.read_hello(frame)
        if address != self.my_address and len(self.condemned) < CONDEMNED_MAX:
            self.condemned.append((address, incarnation))

    def _tell_condemned(self, network: Outlet) -> None:
        """What the network does not take now is said to its next hello."""
        for address, incarnation in self.condemned:
            network.send(address, frames.gone(self.topology, self.incarnation, address, incarnation, incarnation))
        self.condemned.clear()

    def _gone(self, header: Header, frame: bytes, now: float) -> list[Event]:
        address, incarnation = frames.read_gone(frame)
        if incarnation == self.incarnation:
            self.refused += 1
            return [Condemned()] if header.receiver == incarnation and address == self.my_address else []
        died_at = now - header.seq / 1000
        lost = self.gone(address, incarnation, died_at)
        return [Gone(address, incarnation, lost, died_at)] if lost is not None else []

    def _adopt(self, link: Link, sender: int, events: list[Event]) -> None:
        old = link.peer
        self._forget_candidate(link)
        if old:
            self.by_incarnation.pop(old, None)
            self._fence(old)
        lost = link.adopt(sender)
        self.by_incarnation[sender] = link
        if old:
            events.append(PeerReplaced(link.address, old, sender, lost))

    def _end(self, link: Link) -> list[object]:
        self._forget_candidate(link)
        if link.peer:
            self.by_incarnation.pop(link.peer, None)
            self._fence(link.peer)
        lost = link.reset(0)
        self.next_at = min(self.next_at, link.deadline())
        return lost

    def _forget_candidate(self, link: Link) -> None:
        if link.candidate:
            self.candidates.pop(link.candidate, None)
            link.candidate = 0

    def _fence(self, incarnation: int) -> None:
        self.candidates.pop(incarnation, None)
        self.fenced[incarnation] = None
        if len(self.fenced) > FENCED_MAX:
            del self.fenced[next(iter(self.fenced))]
