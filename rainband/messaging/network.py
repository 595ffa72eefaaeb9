"""How frames leave and arrive: over ZeroMQ between processes, in memory within one. They may be lost, not forged.

A process binds one PULL socket at its slot's port and connects one PUSH to each peer's; a connection that is not up
takes nothing, so `send` says False instead of queueing towards nowhere. What a broken connection swallows the links
send again. Networks know nothing of what is in a frame.
"""

from __future__ import annotations

import contextlib
import heapq
import threading
from collections import deque
from collections.abc import Callable, Sequence, Set
from typing import Protocol

import zmq

from rainband.errors import Refused, UsageError
from rainband.messaging.frames import FRAME_BYTES_MAX
from rainband.messaging.keys import Gate, Keys
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

# (source, target, frame) -> for each copy that arrives, the seconds it takes; empty: lost.
Fate = Callable[[str, str, bytes], Sequence[float]]

FRAMES_QUEUED_MAX = 1024
RECEIVE_LIMIT = 256
UNWANTED_LOOKS = 10


class Network(Protocol):
    """What a worker needs of the outside. All but `wake` belong to one thread."""

    def send(self, address: str, frame: bytes) -> bool:
        """Hand a frame to the way to `host:port`. False = not taken now, offer it again later."""

    def receive(self, limit: int = RECEIVE_LIMIT) -> list[bytes]:
        """Up to `limit` frames that have arrived; never waits."""

    def wait(self, timeout_s: float) -> None:
        """Return when a frame may be there, a watched descriptor is ready, `wake` was called or the time is up."""

    def wake(self) -> None:
        """End the present or the next `wait`. From any thread."""

    def close(self) -> None:
        """Give everything back; frames still on their way may be lost."""


class ZmqNetwork:
    """Frames over TCP. `wait` also ends when one of `also` (sockets or file descriptors) can be read."""

    def __init__(
        self, host: str, port: int, keys: Keys | None = None, also: Sequence[Socket | int] = (), insecure: bool = False
    ) -> None:
        """Listens on `host:port` (0: any free one). Raises NotAllowed (exposed without keys), Refused (port in use, no
        descriptor left).
        """
        check_exposure(host, keys, insecure)
        self.keys = keys
        self._gate: Gate | None = None
        self._prepare(host, port)
        try:
            self.port = bind(self._pull, host, port)
        except Exception:
            self._bell.close()
            self._end_context()
            raise
        self.address = f"{host}:{self.port}"
        self._out: dict[str, Socket] = {}
        self._unwanted: dict[str, int] = {}
        self._poller = zmq.Poller()
        self._poller.register(self._pull, zmq.POLLIN)
        self._poller.register(self._bell.descriptor, zmq.POLLIN)
        for item in also:
            self.watch(item)

    def _prepare(self, host: str, port: int) -> None:
        """Everything that takes a descriptor, or none of it. The gate comes last: its thread holds a socket."""
        try:
            with contextlib.ExitStack() as undo:
                self._context = new_context()
                undo.callback(self._context.term)
                self._bell = Bell()
                undo.callback(self._bell.close)
                self._pull = undo.enter_context(self._make(zmq.PULL, server=True))
                self._gate = make_gate(self._context, self.keys)
                undo.pop_all()
        except (zmq.ZMQError, OSError) as error:
            fix = "Allow this user more open files: ulimit -n"
            raise Refused(f"cannot listen on {host}:{port}: {error.strerror}", fix) from None

    def _make(self, kind: int, *, server: bool) -> Socket:
        return make(
            self._context, kind, self.keys, server=server, high_water=FRAMES_QUEUED_MAX, bytes_max=FRAME_BYTES_MAX
        )

    def watch(self, item: Socket | int) -> None:
        """Let `wait` end when `item` can be read. It must be unwatched before it is closed."""
        self._poller.register(item, zmq.POLLIN)

    def unwatch(self, item: Socket | int) -> None:
        if item in self._poller:
            self._poller.unregister(item)

    def send(self, address: str, frame: bytes) -> bool:
        socket = self._out.get(address)
        if socket is None:
            socket = self._connect(address)
            if socket is None:
                return False
        try:
            socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _connect(self, address: str) -> Socket | None:
        """None for what is no address: peers name theirs, and what they say must not stop us. And while there is no
        descriptor left.
        """
        try:
            socket = self._make(zmq.PUSH, server=False)
        except zmq.ZMQError:
            return None
        try:
            socket.connect(endpoint(*split_address(address)))
        except (zmq.ZMQError, UsageError):
            socket.close()
            return None
        self._out[address] = socket
        return socket

    def receive(self, limit: int = RECEIVE_LIMIT) -> list[bytes]:
        found: list[bytes] = []
        receive = self._pull.recv
        try:
            while len(found) < limit:
                found.append(receive(zmq.NOBLOCK))
        except zmq.Again:
            pass
        return found

    def wait(self, timeout_s: float) -> None:
        for item, _ in self._poller.poll(poll_ms(timeout_s)):
            if item == self._bell.descriptor:
                self._bell.clear()

    def wake(self) -> None:
        self._bell.ring()

    def tend(self, wanted: Set[str]) -> None:
        """Each second: close the ways to all but `wanted` that were unwanted UNWANTED_LOOKS times in a row.

        libzmq keeps the pipes of connections that came and went until their socket is used again. So each process that
        ever lived at an address to which nothing is sent would cost 14 KiB; a look at the socket lets go of them.
        """
        self._unwanted = {address: self._unwanted.get(address, 0) + 1 for address in self._out.keys() - wanted}
        for address, looks in self._unwanted.items():
            if looks >= UNWANTED_LOOKS:
                self._out.pop(address).close()
        for socket in self._out.values():
            socket.getsockopt(zmq.EVENTS)

    @property
    def refused(self) -> int:
        """Connections turned away for want of the right key."""
        return self._gate.refused if self._gate is not None else 0

    def close(self) -> None:
        if self._context.closed:
            return
        for socket in self._out.values():
            socket.close()
        self._out.clear()
        self._pull.close()
        self._bell.close()
        self._end_context()

    def _end_context(self) -> None:
        if self._gate is not None:
            self._gate.close()
        self._context.term()


class MemoryHub:
    """Stands for the network between the workers of one process. `fate` decides what becomes of each frame.

    Without `fate` every frame arrives at once. Delayed ones arrive when `advance` is told that their time has come.
    """

    def __init__(self, fate: Fate | None = None, now: float = 0.0) -> None:
        self.fate = fate
        self.now = now
        self._queues: dict[str, deque[bytes]] = {}
        self._delayed: list[tuple[float, int, str, bytes]] = []
        self._serial = 0
        self._event = threading.Event()

    def network(self, address: str) -> MemoryNetwork:
        """The network of a new process at `address`; it takes the place of an earlier one there."""
        self._queues[address] = deque()
        return MemoryNetwork(self, address, self._queues[address])

    def send(self, source: str, target: str, frame: bytes) -> bool:
        """False when nobody is at `target`."""
        queue = self._queues.get(target)
        if queue is None:
            return False
        if self.fate is None:
            queue.append(frame)
        else:
            for delay_s in self.fate(source, target, frame):
                if delay_s <= 0.0:
                    queue.append(frame)
                else:
                    self._serial += 1
                    heapq.heappush(self._delayed, (self.now + delay_s, self._serial, target, frame))
        self.wake()
        return True

    def advance(self, now: float) -> float:
        """Deliver what is due at `now`; when the next frame is, or inf."""
        self.now = now
        while self._delayed and self._delayed[0][0] <= now:
            _, _, target, frame = heapq.heappop(self._delayed)
            queue = self._queues.get(target)
            if queue is not None:
                queue.append(frame)
        return self._delayed[0][0] if self._delayed else float("inf")

    def remove(self, address: str, queue: deque[bytes]) -> None:
        """The process that had `queue` has left `address`."""
        if self._queues.get(address) is queue:
            del self._queues[address]

    @property
    def idle(self) -> bool:
        """Whether no frame is under way or waiting to be received."""
        return not self._delayed and not any(self._queues.values())

    def wake(self) -> None:
        if not self._event.is_set():
            self._event.set()

    def wait(self, timeout_s: float) -> None:
        """Until a frame was sent to anybody, `wake` was called, or the time is up."""
        if timeout_s > 0:
            self._event.wait(min(timeout_s, 60.0))
        self._event.clear()


class MemoryNetwork:
    """One process's end of a MemoryHub."""

    def __init__(self, hub: MemoryHub, address: str, queue: deque[bytes]) -> None:
        self.address = address
        self._hub = hub
        self._queue = queue
        self._closed = False

    def send(self, address: str, frame: bytes) -> bool:
        return not self._closed and self._hub.send(self.address, address, frame)

    def receive(self, limit: int = RECEIVE_LIMIT) -> list[bytes]:
        queue = self._queue
        return [queue.popleft() for _ in range(min(limit, len(queue)))]

    def wait(self, timeout_s: float) -> None:
        if not self._queue:
            self._hub.wait(timeout_s)

    def wake(self) -> None:
        self._hub.wake()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._hub.remove(self.address, self._queue)
            self._queue.clear()
