"""Typed requests to Nimbus and their answers. Requests and responses are the tagged records of rainband.records.

On the wire: a ROUTER at each Nimbus, a DEALER per Nimbus at each client, messages of two parts: a number of 8 bytes
(chosen by the client, repeated in the answer, 0 for what the server pushes unasked) and a msgpack record. A request
is sent once, to one Nimbus that is connected: it is never repeated behind the caller's back, because it may not be
safe to do twice.
"""

from __future__ import annotations

import socket as posix
import struct
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

import msgspec
import zmq

from rainband.build import VERSION
from rainband.clock import SystemClock
from rainband.errors import ClusterUnavailable, NotAllowed, NotLeader, RainbandError, UsageError, WireError
from rainband.messaging.control import decode
from rainband.messaging.handshake import refusal
from rainband.messaging.keys import Keys
from rainband.messaging.sockets import (
    Bell,
    Socket,
    bind,
    check_exposure,
    endpoint,
    make,
    make_gate,
    new_context,
    poll_ms,
    split_address,
)
from rainband.records import Failure, Progress, Request, Response

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
MESSAGES_QUEUED_MAX = 1000
POLL_LIMIT = 256
PUSHES_KEPT_MAX = 1000
TIMEOUT_S = 4.0
FOLLOW_S = 0.5
REST_S = 0.2
LOST_CHECK_S = 0.1
REFUSED_S = 1.0
_NUMBER = struct.Struct("<Q")

_encode = msgspec.msgpack.Encoder().encode
_requests = msgspec.msgpack.Decoder(Request)
_responses = msgspec.msgpack.Decoder(Response)
_pushes = msgspec.msgpack.Decoder(Progress)


class RpcServer:
    """Nimbus's end. One thread; only `wake` may be called from others.

    `dropped` counts messages that nobody could answer, `refused` requests that were no requests (they get a Failure),
    `unroutable` answers whose client had left or read nothing.
    """

    def __init__(self, host: str, port: int, keys: Keys | None = None, insecure: bool = False) -> None:
        """Listens on `host:port` (0: any free one). Raises Refused (port in use), NotAllowed (exposed without keys)."""
        check_exposure(host, keys, insecure)
        self.dropped = 0
        self.refused = 0
        self.unroutable = 0
        self._context = new_context()
        self._gate = make_gate(self._context, keys)
        self._router = make(
            self._context, zmq.ROUTER, keys, server=True, high_water=MESSAGES_QUEUED_MAX, bytes_max=MESSAGE_BYTES_MAX
        )
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        try:
            self.port = bind(self._router, host, port)
        except Exception:
            self._end_context()
            raise
        self.address = f"{host}:{self.port}"
        self._bell = Bell()

    def poll(self, timeout_s: float, also: Sequence[Socket | int] = ()) -> list[tuple[bytes, int, Request]]:
        """Requests as (peer, request id, request), waiting up to `timeout_s` for one, for `also`, or for `wake`."""
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._bell.descriptor, zmq.POLLIN)
        for item in also:
            poller.register(item, zmq.POLLIN)
        ready = dict(poller.poll(poll_ms(timeout_s)))
        if self._bell.descriptor in ready:
            self._bell.clear()
        found: list[tuple[bytes, int, Request]] = []
        try:
            for _ in range(POLL_LIMIT):
                self._read(self._router.recv_multipart(zmq.NOBLOCK), found)
        except zmq.Again:
            pass
        return found

    def _read(self, parts: list[bytes], found: list[tuple[bytes, int, Request]]) -> None:
        if len(parts) != 3 or len(parts[1]) != _NUMBER.size or parts[1] == bytes(_NUMBER.size):
            self.dropped += 1
            return
        peer, number, payload = parts
        request_id: int = _NUMBER.unpack(number)[0]
        request = decode(_requests, payload)
        if request is None:
            self.refused += 1
            fix = "Use the same rainband on both sides"
            said = f"rainband {VERSION} at Nimbus does not know this request"
            self.reply(peer, request_id, Failure("wire", said, fix))
        else:
            found.append((peer, request_id, request))

    def reply(self, peer: bytes, request_id: int, response: Response) -> bool:
        """Answer one request; False if its client has left."""
        return self._send(peer, request_id, _encode(response))

    def push(self, peer: bytes, progress: Progress) -> bool:
        """Tell a client something unasked; False if it has left or reads nothing."""
        return self._send(peer, 0, _encode(progress))

    def _send(self, peer: bytes, request_id: int, payload: bytes) -> bool:
        try:
            self._router.send_multipart([peer, _NUMBER.pack(request_id), payload], zmq.NOBLOCK)
        except zmq.ZMQError:
            self.unroutable += 1
            return False
        return True

    def wake(self) -> None:
        """End the present or the next poll. From any thread."""
        self._bell.ring()

    def close(self) -> None:
        if not self._context.closed:
            # What was answered last still has to leave.
            self._router.close(linger=200)
            self._bell.close()
            self._end_context()

    def _end_context(self) -> None:
        if self._gate is not None:
            self._gate.close()
        self._context.term()


class RpcClient:
    """A client's or supervisor's end towards all Nimbuses. Any thread may call; calls are made one at a time."""

    def __init__(self, seeds: str | Iterable[str], timeout_s: float = TIMEOUT_S, keys: Keys | None = None) -> None:
        """`seeds`: addresses `host:port` of Nimbuses. Connects in the background. Raises UsageError for no address."""
        self.seeds = (seeds,) if isinstance(seeds, str) else tuple(dict.fromkeys(seeds))
        if not self.seeds:
            raise UsageError("no address of a Nimbus", "Give one with --nimbus HOST:PORT")
        for seed in self.seeds:
            split_address(seed)
        self.timeout_s = timeout_s
        self.keys = keys
        self.leader = self.seeds[0]
        self._clock = SystemClock()
        self._lock = threading.RLock()
        self._context = new_context()
        self._out: dict[str, Socket] = {}
        self._pushes: deque[Progress] = deque(maxlen=PUSHES_KEPT_MAX)
        self._number = 0
        for seed in self.seeds:
            self._connect(seed)

    @property
    def sockets(self) -> list[Socket]:
        """What to poll together with other sockets, by the one thread that calls; read again before each poll."""
        return list(self._out.values())

    def call(self, request: Request, timeout_s: float | None = None) -> Response:
        """Ask the leader. Raises ClusterUnavailable in time, NotAllowed when our keys are not those that are wanted,
        the RainbandError of a Failure, WireError for nonsense.

        `timeout_s` bounds the wait for the answer (default: that of this client), which also bounds the connecting.
        """
        wait_s = self.timeout_s if timeout_s is None else timeout_s
        payload = _encode(request)
        if len(payload) > MESSAGE_BYTES_MAX:
            raise UsageError(f"a request of {len(payload)} bytes is larger than {MESSAGE_BYTES_MAX}")
        with self._lock:
            until = self._clock.now() + min(self.timeout_s, wait_s)
            for seed in self.seeds:
                if seed not in self._out:
                    self._connect(seed)
            address = self._reach(until)[0]
            asked: set[str] = set()
            while True:
                response = self._ask(address, payload, self._clock.now() + wait_s)
                refusal = failure(response) if isinstance(response, Failure) else None
                if not isinstance(refusal, NotLeader):
                    self.leader = address
                    if refusal is not None:
                        raise refusal
                    return response
                assert isinstance(response, Failure)
                asked.add(address)
                following = self._next(address, response.leader, asked, until)
                if following is None:
                    fix = refusal.fix or "Wait until a Nimbus leads again"
                    raise ClusterUnavailable(f"no Nimbus leads: {refusal.message}", fix)
                address = following

    def _next(self, address: str, leader: str, asked: set[str], until: float) -> str | None:
        """Whom to ask after `address` refused, because it does not lead: nothing was done. None when time is over.

        Its word about the leader may be old: so the leader is given little time to be there, then the others are asked,
        and everybody again after a rest.
        """
        if leader not in ("", address) and leader not in asked:
            self._follow(leader)
            if self._poll([leader], zmq.POLLOUT, min(FOLLOW_S, until - self._clock.now())):
                return leader
        others = self._poll([known for known in self._out if known not in asked], zmq.POLLOUT, 0.0)
        if others:
            return others[0]
        asked.clear()
        if until - self._clock.now() < REST_S:
            return None
        threading.Event().wait(REST_S)
        return self._reach(until)[0]

    def events(self, timeout_s: float = 0.0) -> list[Progress]:
        """What was pushed since the last call, waiting up to `timeout_s` for the first.

        Who keeps a client calls this now and then: libzmq keeps the pipes of connections that came and went, 14 KiB for
        each Nimbus, until the socket is used.
        """
        with self._lock:
            self._drain()
            if not self._pushes and timeout_s > 0:
                self._poll(list(self._out), zmq.POLLIN, timeout_s)
                self._drain()
            found = list(self._pushes)
            self._pushes.clear()
            return found

    def close(self) -> None:
        with self._lock:
            if not self._context.closed:
                for socket in self._out.values():
                    socket.close()
                self._out.clear()
                self._context.term()

    # -- inside ---------------------------------------------------------------------------------------------

    def _connect(self, address: str) -> None:
        """Raises UsageError for what is no address, ClusterUnavailable when the system has no socket to give."""
        where = endpoint(*split_address(address))
        try:
            socket = make(
                self._context, zmq.DEALER, self.keys,
                server=False, high_water=MESSAGES_QUEUED_MAX, bytes_max=MESSAGE_BYTES_MAX,
            )
        except zmq.ZMQError as error:
            raise ClusterUnavailable(f"cannot connect to {address}: {error.strerror}") from None
        try:
            socket.connect(where)
        except zmq.ZMQError as error:
            socket.close()
            raise UsageError(f"cannot connect to {address}: {error.strerror}") from None
        self._out[address] = socket

    def _follow(self, leader: str) -> None:
        """Ask `leader` from now on. It may be none of the seeds; at most one such stays connected."""
        for address in [a for a in self._out if a not in self.seeds and a != leader]:
            self._out.pop(address).close()
        if leader not in self._out:
            try:
                self._connect(leader)
            except UsageError as error:
                raise WireError(f"a Nimbus named a leader that is no address: {leader[:80]!r}") from error
        self.leader = leader

    def _poll(self, addresses: list[str], flag: int, timeout_s: float) -> list[str]:
        """Those of `addresses` whose sockets are ready, waiting for the first; the leader's comes first."""
        poller = zmq.Poller()
        for address in addresses:
            poller.register(self._out[address], flag)
        ready = dict(poller.poll(poll_ms(timeout_s)))
        order = sorted(addresses, key=lambda address: address != self.leader)
        return [address for address in order if self._out[address] in ready]

    def _ask(self, address: str, payload: bytes, until: float) -> Response:
        self._drain()
        self._number += 1
        socket = self._out[address]
        try:
            socket.send_multipart([_NUMBER.pack(self._number), payload], zmq.NOBLOCK)
        except zmq.Again:
            raise self._lost(address, "could not be sent the request") from None
        while True:
            left = until - self._clock.now()
            events = socket.poll(poll_ms(min(left, LOST_CHECK_S)), zmq.POLLIN) if left > 0 else 0
            for response in self._answers(socket):
                return response
            if left <= 0:
                raise self._lost(address, "did not answer in time")
            if not events and not socket.poll(0, zmq.POLLOUT):
                raise self._lost(address, "broke the connection before it answered")

    def _answers(self, socket: Socket) -> Iterator[Response]:
        """The answer to the request under way, if it is there; pushes are kept, late answers dropped."""
        for number, payload in self._received(socket):
            if number == self._number:
                response = decode(_responses, payload)
                if response is None:
                    fix = "Use the same rainband on both sides"
                    raise WireError(f"Nimbus answered with something that rainband {VERSION} here does not know", fix)
                yield response
            elif number == 0:
                push = decode(_pushes, payload)
                if push is not None:
                    self._pushes.append(push)

    def _received(self, socket: Socket) -> Iterator[tuple[int, bytes]]:
        try:
            while True:
                parts = socket.recv_multipart(zmq.NOBLOCK)
                if len(parts) == 2 and len(parts[0]) == _NUMBER.size:
                    yield _NUMBER.unpack(parts[0])[0], parts[1]
        except zmq.Again:
            return

    def _drain(self) -> None:
        """Take in pushes and throw away answers that came too late."""
        self._number += 1
        for socket in self._out.values():
            for _ in self._answers(socket):
                pass

    def _reach(self, until: float) -> list[str]:
        """The Nimbuses that are connected. Raises what `_unreachable` says at `until`, sooner where nothing listens."""
        left = until - self._clock.now()
        patience_s = min(left, REFUSED_S)
        ready = self._poll(list(self._out), zmq.POLLOUT, patience_s)
        if not ready and patience_s < left and any(_listens(seed) for seed in self.seeds):
            ready = self._poll(list(self._out), zmq.POLLOUT, until - self._clock.now())
        if not ready:
            raise self._unreachable()
        return ready

    def _lost(self, address: str, what: str) -> ClusterUnavailable:
        """Start afresh with `address`: nothing of this request must be taken for an answer to a later one.

        The seed after it is asked next: what takes connections and never answers must not be all that is asked.
        """
        self._out.pop(address).close()
        at = len(self.seeds) - 1
        if address in self.seeds:
            with suppress(ClusterUnavailable):
                self._connect(address)
            at = self.seeds.index(address)
        if self.leader == address:
            self.leader = self.seeds[(at + 1) % len(self.seeds)]
        return ClusterUnavailable(
            f"Nimbus at {address} {what}", "The request may have been carried out: look with `rainband list`"
        )

    def _unreachable(self) -> ClusterUnavailable | NotAllowed:
        where = ", ".join(self.seeds)
        listening = [seed for seed in self.seeds if _listens(seed)]
        for seed in listening:
            with suppress(zmq.ZMQError):
                shut_out = refusal(self._context, seed, self.keys)
                if shut_out is not None:
                    return shut_out
        if listening:
            fix = "Check that it is a Nimbus"
            return ClusterUnavailable(f"what listens at {where} does not answer as a Nimbus", fix)
        return ClusterUnavailable(f"no Nimbus answers at {where}", "Start one with `rainband nimbus` or `rainband up`")


def failure(record: Failure) -> RainbandError:
    """The error that a Failure stands for; a code that this version does not know becomes a RainbandError."""
    kind = _errors().get(record.code, RainbandError)
    here = f"; here it is {VERSION}" if kind is WireError else ""
    error = kind(record.message, f"{record.fix}{here}")
    if isinstance(error, NotLeader):
        error.leader = record.leader
    return error


def record_of(error: RainbandError) -> Failure:
    """The Failure to answer with when a request raised `error`."""
    return Failure(error.code, error.message, error.fix, error.leader if isinstance(error, NotLeader) else "")


def _errors() -> dict[str, type[RainbandError]]:
    found: dict[str, type[RainbandError]] = {}
    todo: list[type[RainbandError]] = [RainbandError]
    while todo:
        kind = todo.pop()
        found.setdefault(kind.code, kind)
        todo.extend(kind.__subclasses__())
    return found


def _listens(address: str) -> bool:
    try:
        with posix.create_connection(split_address(address), timeout=0.2):
            return True
    except OSError:
        return False
