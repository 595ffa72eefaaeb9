"""The channel between a supervisor and the workers on its host: typed messages over loopback, a token per slot.

The supervisor admits a slot's port with the token that it gave the worker when it started it; whatever comes without
is dropped and counted. Either side may die and come back: the worker connects again, and says Hello again.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Sequence
from typing import TypeVar, Union

import msgspec
import zmq

from rainband.errors import UsageError
from rainband.messaging.keys import Keys
from rainband.messaging.sockets import (
    Bell,
    Socket,
    bind,
    check_exposure,
    endpoint,
    make,
    new_context,
    poll_ms,
    split_address,
)
from rainband.records import Assignment, Record, Slot, WorkerBeat

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
MESSAGES_QUEUED_MAX = 1000
POLL_LIMIT = 256
TOKEN_BYTES_MIN = 16
NEVER_RAN_CODE = 70  # a worker's exit code when it ended before it took anything of its peers
_PORT = struct.Struct("<H")
T = TypeVar("T")


class Hello(Record, frozen=True, tag="hello"):
    """From a worker, at its start and after each new connection: who runs at my slot."""

    port: int
    pid: int
    incarnation: int
    topology_id: str


class Beat(Record, frozen=True, tag="beat"):
    """From a worker, each second and on each change of its state."""

    beat: WorkerBeat


class StacksText(Record, frozen=True, tag="stacks_text"):
    """From a worker: the Python stacks of its threads."""

    text: str


class Assign(Record, frozen=True, tag="assign"):
    """To a worker: the newest assignment of its topology."""

    assignment: Assignment


class Stop(Record, frozen=True, tag="stop"):
    """To a worker: leave; `drain`: finish what is pending first."""

    drain: bool = False


class AskStacks(Record, frozen=True, tag="ask_stacks"):
    """To a worker: answer with StacksText."""


class Gone(Record, frozen=True, tag="gone"):
    """To a worker: the process `incarnation` at a peer's slot is dead, since `age_s` seconds at least."""

    slot: Slot
    incarnation: int
    age_s: float = 0.0


FromWorker = Union[Hello, Beat, StacksText]
ToWorker = Union[Assign, Stop, AskStacks, Gone]

_encode = msgspec.msgpack.Encoder().encode
_from_worker = msgspec.msgpack.Decoder(FromWorker)
_to_worker = msgspec.msgpack.Decoder(ToWorker)


class ControlServer:
    """The supervisor's end. `dropped` counts messages without the right token or of no known shape."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, keys: Keys | None = None) -> None:
        """Raises Refused if the port is in use. `address` is what workers are told."""
        check_exposure(host, keys, insecure=False)
        self.dropped = 0
        self._tokens: dict[int, bytes] = {}
        self._peers: dict[int, bytes] = {}
        self._context = new_context()
        self._router = make(
            self._context, zmq.ROUTER, None, server=True, high_water=MESSAGES_QUEUED_MAX, bytes_max=MESSAGE_BYTES_MAX
        )
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        try:
            self.port = bind(self._router, host, port)
        except Exception:
            self._context.term()
            raise
        self.address = f"{host}:{self.port}"
        self._bell = Bell()

    def admit(self, port: int, token: str) -> None:
        """Let the worker at slot `port` in by `token`; an earlier token of the slot ends."""
        if len(token) < TOKEN_BYTES_MIN:
            raise UsageError(f"a control token of {len(token)} characters is too short", f"Use {TOKEN_BYTES_MIN}")
        if self._tokens.get(port) != token.encode():
            self._peers.pop(port, None)
        self._tokens[port] = token.encode()

    def dismiss(self, port: int) -> None:
        """Take nothing more from slot `port`."""
        self._tokens.pop(port, None)
        self._peers.pop(port, None)

    def poll(self, timeout_s: float, also: Sequence[Socket | int] = ()) -> list[tuple[int, str, FromWorker]]:
        """Messages as (slot port, token, message), waiting up to `timeout_s` for one, for `also`, or for `wake`."""
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._bell.descriptor, zmq.POLLIN)
        for item in also:
            poller.register(item, zmq.POLLIN)
        ready = dict(poller.poll(poll_ms(timeout_s)))
        if self._bell.descriptor in ready:
            self._bell.clear()
        found: list[tuple[int, str, FromWorker]] = []
        try:
            for _ in range(POLL_LIMIT):
                message = self._read(self._router.recv_multipart(zmq.NOBLOCK))
                if message is None:
                    self.dropped += 1
                else:
                    found.append(message)
        except zmq.Again:
            pass
        return found

    def _read(self, parts: list[bytes]) -> tuple[int, str, FromWorker] | None:
        if len(parts) != 3 or len(parts[1]) <= _PORT.size:
            return None
        peer, head, payload = parts
        port: int = _PORT.unpack_from(head)[0]
        wanted = self._tokens.get(port)
        if wanted is None or not hmac.compare_digest(wanted, head[_PORT.size :]):
            return None
        message = decode(_from_worker, payload)
        if message is None or (isinstance(message, Hello) and message.port != port):
            return None
        self._peers[port] = peer
        return port, wanted.decode(), message

    def send(self, port: int, message: ToWorker) -> bool:
        """False if the worker at slot `port` is not connected (say it again at its next Hello) or reads nothing."""
        peer = self._peers.get(port)
        if peer is None:
            return False
        try:
            self._router.send_multipart([peer, _encode(message)], zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        return True

    def wake(self) -> None:
        """End the present or the next poll. From any thread."""
        self._bell.ring()

    def close(self) -> None:
        if not self._context.closed:
            self._router.close()
            self._bell.close()
            self._context.term()


class ControlLink:
    """A worker's end. `socket` may be watched together with its network (`ZmqNetwork.watch`)."""

    def __init__(self, address: str, token: str, port: int) -> None:
        """`address` of the ControlServer; `token` and `port` of this worker's slot. Does not wait for a connection."""
        split_address(address)
        self._head = _PORT.pack(port) + token.encode()
        self._context = new_context()
        self.socket = make(
            self._context, zmq.DEALER, None, server=False, high_water=MESSAGES_QUEUED_MAX, bytes_max=MESSAGE_BYTES_MAX
        )
        self.dropped = 0
        self.address = ""
        self.reconnect(address)

    def reconnect(self, address: str) -> None:
        """The supervisor listens at `address` now. Say Hello once `connected`. Raises UsageError for no address."""
        where = endpoint(*split_address(address))
        if self.address:
            self.socket.disconnect(endpoint(*split_address(self.address)))
            self.address = ""
        try:
            self.socket.connect(where)
        except zmq.ZMQError as error:
            raise UsageError(f"cannot connect to {address}: {error.strerror}") from None
        self.address = address

    @property
    def connected(self) -> bool:
        """Whether a message could leave now."""
        events = self.socket.getsockopt(zmq.EVENTS)
        assert isinstance(events, int)
        return bool(events & zmq.POLLOUT)

    def send(self, message: FromWorker) -> bool:
        """False if there is no connection: the message is dropped."""
        try:
            self.socket.send_multipart([self._head, _encode(message)], zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self) -> list[ToWorker]:
        """What has arrived; never waits."""
        found: list[ToWorker] = []
        try:
            for _ in range(POLL_LIMIT):
                parts = self.socket.recv_multipart(zmq.NOBLOCK)
                message = decode(_to_worker, parts[0]) if len(parts) == 1 else None
                if message is None:
                    self.dropped += 1
                else:
                    found.append(message)
        except zmq.Again:
            pass
        return found

    def close(self) -> None:
        """Give the socket back; it must be unwatched before."""
        if not self._context.closed:
            self.socket.close()
            self._context.term()


def decode(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T | None:
    """The message in `data`, or None for whatever is not one: what a peer sends raises nothing here."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError, MemoryError):
        return None
