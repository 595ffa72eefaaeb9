"""One link: the numbering, receipts and repeats between this process and the one at a peer's slot address.

Frames are numbered from 1 in each direction and kept until the peer's cumulative receipt; what arrives twice is
dropped, a gap asks for everything from the first missing frame on (frames out of order are not kept), a quiet tail is
probed.

Bounds. At most `buffer_bytes` of tuples await receipt; the rest stays queued, and who fills the queue reads
`Link.full`. Acks, credit and control pass that bound (what is pending bounds them) and leave first. A receipt rides
on any frame the other way, or goes alone after RECEIPT_FRAMES, RECEIPT_BYTES or RECEIPT_S.

No clock, socket or random here: `now` is monotonic seconds, frames go in and out as values.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from rainband.errors import WireError
from rainband.messaging import frames
from rainband.messaging.frames import (
    BATCH,
    DATA,
    FRAME_BYTES_MAX,
    HEADER_BYTES,
    HELLO,
    PROBE,
    RECEIPT,
    RECORD_BYTES,
    RESEND,
    Header,
)

BUFFER_BYTES: Final = 16 * 1024 * 1024
MESSAGE_BYTES_MAX: Final = 1024 * 1024 * 1024
CHUNK_BYTES_MIN: Final = 4096
RECEIPT_FRAMES: Final = 32
RECEIPT_BYTES: Final = 256 * 1024
RECEIPT_S: Final = 0.05
RESEND_S: Final = 0.05
PROBE_S: Final = 0.2
PROBE_S_MAX: Final = 2.0
PROBES_BEFORE_HELLO: Final = 2
HELLO_S: Final = 0.1
HELLO_S_MAX: Final = 2.0
RETRY_S: Final = 0.005
RETRY_S_MAX: Final = 0.1
NEVER: Final = float("inf")


class LinkStatistics(NamedTuple):
    """Counters of one link since it was made; `outstanding` and `queued` in bytes, as they stand now."""

    address: str
    peer: int
    frames_sent: int
    frames_received: int
    bytes_sent: int
    bytes_received: int
    frames_repeated: int
    duplicates: int
    gaps: int
    broken: int
    outstanding: int
    queued: int


class Link:
    """Both directions between this process and the one at `address`. `peer` is its incarnation, 0 while unknown."""

    def __init__(
        self,
        address: str,
        my_address: str,
        incarnation: int,
        topology: int,
        buffer_bytes: int = BUFFER_BYTES,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
        dirty_links: list[Link] | None = None,
    ) -> None:
        self.address = address
        self.my_address = my_address
        self.incarnation = incarnation
        self.topology = topology
        self.buffer_bytes = max(buffer_bytes, FRAME_BYTES_MAX)
        self.message_bytes_max = message_bytes_max
        self.dirty_links: list[Link] = [] if dirty_links is None else dirty_links
        self.dirty = False
        self.peer = 0
        self.candidate = 0
        self.wanted = False
        self.lanes: list[deque[tuple[bytes, object]]] = [deque() for _ in range(frames.MESSAGE_KINDS + 1)]
        self.offsets: list[int] = [0] * (frames.MESSAGE_KINDS + 1)
        self.retained: dict[int, bytes] = {}
        self.retained_roots: dict[int, list[object]] = {}
        self.partial: list[list[bytes]] = [[] for _ in range(frames.MESSAGE_KINDS + 1)]
        self.partial_bytes: list[int] = [0] * (frames.MESSAGE_KINDS + 1)
        self.frames_sent = 0
        self.frames_received = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self.frames_repeated = 0
        self.duplicates = 0
        self.gaps = 0
        self.broken = 0
        self.hello_due = False
        self.hello_at = NEVER
        self.hello_wait = HELLO_S
        self.unanswered = False
        self._start(0)

    def _start(self, peer: int) -> None:
        """Begin a fresh conversation with `peer`; queued messages are the caller's to keep or clear."""
        self.peer = peer
        self.outstanding_bytes = 0
        self.queued_bytes = sum(len(payload) for lane in self.lanes for payload, _ in lane)
        self.queued = sum(len(lane) for lane in self.lanes)
        self.first_seq = 1
        self.next_seq = 1
        self.cursor = 1
        self.received = 0
        self.owed_frames = 0
        self.owed_bytes = 0
        self.offered = 0
        self.offered_receipt = 0
        self.receipt_due = False
        self.resend_due = False
        self.probe_due = False
        self.receipt_at = NEVER
        self.ask_at = 0.0
        self.probe_at = NEVER
        self.probe_wait = PROBE_S
        self.probes = 0
        self.retry_at = 0.0
        self.retry_wait = RETRY_S
        self.in_doubt = False

    # -- what the worker calls ------------------------------------------------------------------------------

    def send(self, kind: int, payload: bytes, roots: object = None) -> None:
        """Queue a message of `kind` (ACKS, CREDIT, CONTROL, DATA). `roots` comes back if it is lost with the peer."""
        self.lanes[kind].append((payload, roots))
        self.queued += 1
        self.queued_bytes += len(payload)
        if not self.dirty:
            self.mark()

    @property
    def full(self) -> bool:
        """Whether what is queued or awaits receipt has reached `buffer_bytes`: stop producing tuples for this peer."""
        return self.queued_bytes + self.outstanding_bytes >= self.buffer_bytes

    @property
    def idle(self) -> bool:
        """Whether everything sent was receipted and nothing is queued."""
        return not self.queued and not self.retained

    def mark(self) -> None:
        """Have the next flush look at this link."""
        if not self.dirty:
            self.dirty = True
            self.dirty_links.append(self)

    def want(self) -> None:
        """Look for the peer until it answers: hellos now and then every HELLO_S doubling to HELLO_S_MAX."""
        if not self.wanted:
            self.wanted = True
            if self.peer == 0:
                self.hello_due = True
                self.mark()

    def reset(self, peer: int) -> list[object]:
        """Begin again with `peer` (0 = unknown), empty; returns the roots of all that was not receipted."""
        lost: list[object] = []
        for roots in self.retained_roots.values():
            lost.extend(roots)
        for lane in self.lanes:
            lost.extend(roots for _, roots in lane if roots is not None)
            lane.clear()
        self.retained = {}
        self.retained_roots = {}
        for kind in range(len(self.lanes)):
            self.offsets[kind] = 0
            self.partial[kind] = []
            self.partial_bytes[kind] = 0
        self._start(peer)
        if peer == 0 and self.wanted:
            self.hello_due = True
            self.mark()
        return lost

    def adopt(self, peer: int) -> list[object]:
        """`peer` has answered us: talk to it. Returns the roots lost with the incarnation it replaces, if any."""
        lost: list[object] = []
        if self.peer != 0:
            lost = self.reset(peer)
        else:
            self._start(peer)
        self.candidate = 0
        self.hello_at = NEVER
        self.hello_wait = HELLO_S
        self.mark()
        return lost

    # -- sending --------------------------------------------------------------------------------------------

    def next_frame(self) -> bytes | None:
        """The frame to offer to the network now, or None. Say `taken` or `refused` before asking again."""
        if self.hello_due:
            answer = self.peer == 0 or self.candidate != 0 or self.in_doubt
            self.offered = HELLO
            return self._plain(HELLO, 0, self.candidate or self.peer, [frames.hello_body(self.my_address, answer)])
        if self.peer == 0:
            return None
        if self.resend_due:
            self.offered = RESEND
            return self._plain(RESEND, self.received + 1, self.peer, [])
        if self.cursor == self.next_seq and self.queued:
            self._batch()
        if self.cursor < self.next_seq:
            self.offered = BATCH
            return self.retained[self.cursor]
        if self.probe_due:
            self.offered = PROBE
            return self._plain(PROBE, self.next_seq - 1, self.peer, [])
        if self.receipt_due:
            self.offered = RECEIPT
            return self._plain(RECEIPT, 0, self.peer, [])
        return None

    def taken(self, now: float) -> None:
        """The network has the frame that `next_frame` returned last."""
        kind = self.offered
        self.retry_at = 0.0
        self.retry_wait = RETRY_S
        if kind == BATCH:
            self._taken_batch(now)
        elif kind == HELLO:
            self.hello_due = False
            self.in_doubt = False
            if (self.peer == 0 and self.wanted) or self.candidate != 0:
                self.hello_at = now + self.hello_wait
                self.hello_wait = min(self.hello_wait * 2.0, HELLO_S_MAX)
            return
        elif kind == RESEND:
            self.resend_due = False
        elif kind == PROBE:
            self.probe_due = False
        if kind != BATCH or self.offered_receipt == self.received:
            self.receipt_due = False
            self.receipt_at = NEVER
            self.owed_frames = 0
            self.owed_bytes = 0

    def _taken_batch(self, now: float) -> None:
        seq = self.cursor
        frame = self.retained[seq]
        if seq + 1 < self.next_seq:
            self.offered_receipt = -1
        self.cursor = seq + 1
        self.frames_sent += 1
        self.bytes_sent += len(frame)
        if self.probe_at == NEVER:
            self.probe_at = now + self.probe_wait

    def refused(self, now: float) -> None:
        """The network did not take that frame: it is offered again from `retry_at` on."""
        self.retry_at = now + self.retry_wait
        self.retry_wait = min(self.retry_wait * 2.0, RETRY_S_MAX)

    def _plain(self, kind: int, seq: int, receiver: int, body: list[object]) -> bytes:
        return frames.build(kind, self.topology, self.incarnation, receiver, seq, self.received, body)

    def _batch(self) -> None:
        """Make the next numbered frame out of the queued messages that may leave."""
        body: list[object] = []
        roots: list[object] = []
        room = FRAME_BYTES_MAX - HEADER_BYTES
        for kind in range(frames.ACKS, frames.MESSAGE_KINDS + 1):
            if not self.lanes[kind]:
                continue
            blocked = self.retained and self.outstanding_bytes + FRAME_BYTES_MAX > self.buffer_bytes
            if kind == DATA and blocked:
                break
            room = self._fill(kind, body, roots, room)
            if self.lanes[kind]:
                break
        if not body:
            return
        seq = self.next_seq
        frame = frames.build(BATCH, self.topology, self.incarnation, self.peer, seq, self.received, body)
        self.retained[seq] = frame
        if roots:
            self.retained_roots[seq] = roots
        self.outstanding_bytes += len(frame)
        self.next_seq = seq + 1
        self.offered_receipt = self.received

    def _fill(self, kind: int, body: list[object], roots: list[object], room: int) -> int:
        """Move messages of one kind into `body`, cutting those larger than a frame. Returns the room left."""
        lane = self.lanes[kind]
        while lane:
            payload, root = lane[0]
            offset = self.offsets[kind]
            left = len(payload) - offset
            space = room - RECORD_BYTES
            if left <= space:
                body.append(frames.record(kind, left, False))
                body.append(memoryview(payload)[offset:] if offset else payload)
                lane.popleft()
                self.offsets[kind] = 0
                self.queued -= 1
                if root is not None:
                    roots.append(root)
            elif space >= CHUNK_BYTES_MIN and len(payload) > FRAME_BYTES_MAX - HEADER_BYTES - RECORD_BYTES:
                left = space
                body.append(frames.record(kind, space, True))
                body.append(memoryview(payload)[offset : offset + space])
                self.offsets[kind] = offset + space
            else:
                break
            self.queued_bytes -= left
            room -= RECORD_BYTES + left
        return room

    # -- receiving ------------------------------------------------------------------------------------------

    def receive(self, header: Header, frame: bytes, now: float) -> list[tuple[int, bytes]]:
        """Take one frame of `peer` to us; the messages (kind, payload) that are complete with it, in order."""
        self.frames_received += 1
        self.bytes_received += len(frame)
        self.take_receipt(header.receipt, now)
        kind = header.kind
        if kind == BATCH:
            return self._receive_batch(header.seq, frame, now)
        if kind == PROBE:
            if header.seq > self.received:
                self._ask(now)
            self.receipt_due = True
            self.mark()
        elif kind == RESEND and self.first_seq <= header.seq < self.cursor:
            self.frames_repeated += self.cursor - header.seq
            self.cursor = header.seq
            self.offered_receipt = -1
            self.mark()
        return []

    def take_receipt(self, receipt: int, now: float) -> None:
        """The peer has all frames up to `receipt`."""
        if receipt < self.first_seq:
            return
        if receipt >= self.next_seq:
            self.broken += 1
            return
        for seq in range(self.first_seq, receipt + 1):
            self.outstanding_bytes -= len(self.retained.pop(seq))
            if self.retained_roots:
                self.retained_roots.pop(seq, None)
        self.first_seq = receipt + 1
        self.cursor = max(self.cursor, self.first_seq)
        self.probe_wait = PROBE_S
        self.probes = 0
        self.probe_due = False
        self.probe_at = now + PROBE_S if self.retained else NEVER
        if self.queued:
            self.mark()

    def _receive_batch(self, seq: int, frame: bytes, now: float) -> list[tuple[int, bytes]]:
        if seq <= self.received:
            self.duplicates += 1
            self.receipt_due = True
            self.mark()
            return []
        if seq > self.received + 1:
            self.gaps += 1
            if now >= self.ask_at:
                self._ask(now)
            return []
        self.received = seq
        self.owed_frames += 1
        self.owed_bytes += len(frame)
        if self.receipt_at == NEVER:
            self.receipt_at = now + RECEIPT_S
        if self.owed_frames >= RECEIPT_FRAMES or self.owed_bytes >= RECEIPT_BYTES:
            self.receipt_due = True
            self.mark()
        try:
            found = frames.records(frame)
        except WireError:
            self.broken += 1
            return []
        messages: list[tuple[int, bytes]] = []
        for kind, more, payload in found:
            if more or self.partial_bytes[kind]:
                whole = self._assemble(kind, more, payload)
                if whole is not None:
                    messages.append((kind, whole))
            else:
                messages.append((kind, payload))
        return messages

    def _assemble(self, kind: int, more: bool, payload: bytes) -> bytes | None:
        """Add a piece; the whole message after its last one. One beyond `message_bytes_max` is dropped and counted."""
        pieces = self.partial[kind]
        size = self.partial_bytes[kind] + len(payload)
        if size > self.message_bytes_max:
            pieces.clear()
        else:
            pieces.append(payload)
        self.partial_bytes[kind] = size
        if more:
            return None
        self.partial[kind] = []
        self.partial_bytes[kind] = 0
        if size > self.message_bytes_max:
            self.broken += 1
            return None
        return b"".join(pieces)

    def _ask(self, now: float) -> None:
        self.resend_due = True
        self.ask_at = now + RESEND_S
        self.mark()

    # -- time -----------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        """When this link next wants a tick or a flush; NEVER if only events can wake it."""
        at = min(self.hello_at, self.receipt_at, self.probe_at)
        return min(at, self.retry_at) if self.dirty and self.retry_at else at

    def tick(self, now: float) -> None:
        """Turn what has fallen due into frames for the next flush."""
        if now >= self.receipt_at:
            self.receipt_at = NEVER
            self.receipt_due = True
            self.mark()
        if now >= self.hello_at:
            self.hello_at = NEVER
            self.unanswered = self.hello_wait >= HELLO_S_MAX and (self.candidate != 0 or not self.wanted)
            self.hello_due = True
            self.mark()
        if now >= self.probe_at:
            self.probe_wait = min(self.probe_wait * 2.0, PROBE_S_MAX)
            self.probe_at = now + self.probe_wait
            self.probe_due = True
            self.probes += 1
            if self.probes > PROBES_BEFORE_HELLO:
                self.in_doubt = True
                self.hello_due = True
            self.mark()

    def statistics(self) -> LinkStatistics:
        return LinkStatistics(
            self.address, self.peer, self.frames_sent, self.frames_received, self.bytes_sent, self.bytes_received,
            self.frames_repeated, self.duplicates, self.gaps, self.broken, self.outstanding_bytes, self.queued_bytes,
        )
