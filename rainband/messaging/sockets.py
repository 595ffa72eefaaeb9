"""How every ZeroMQ socket of rainband is made: bounded, never lingering, half-open connections noticed in seconds."""

from __future__ import annotations

import errno
import ipaddress
import math
import os
import socket as posix
from contextlib import suppress

import zmq

from rainband.errors import NotAllowed, Refused, UsageError
from rainband.messaging.keys import Gate, Keys

Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]
HEARTBEAT_MS = 1000
HEARTBEAT_TIMEOUT_MS = 5000
HANDSHAKE_MS = 3000
CONNECT_MS = 2000
RECONNECT_MS = 50
RECONNECT_MS_MAX = 500
BACKLOG = 512
LIBZMQ_MIN = (4, 3, 5)


def new_context() -> Context:
    """What sockets are made of. Raises Refused as `libzmq` does."""
    libzmq()
    return zmq.Context(io_threads=1)


def libzmq(version: tuple[int, ...] = zmq.zmq_version_info()) -> str:
    """The version of libzmq in words. Raises Refused below LIBZMQ_MIN: older ones have known holes (CVE-2021-20235)."""
    needed, found = (".".join(map(str, numbers)) for numbers in (LIBZMQ_MIN, version))
    if version < LIBZMQ_MIN:
        raise Refused(f"libzmq {found} is too old, {needed} is needed", "Run: pip install --upgrade pyzmq")
    return found


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine can reach `host`. A name other than localhost counts as reachable."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_exposure(host: str, keys: Keys | None, insecure: bool) -> None:
    """Raises NotAllowed for an address others can reach when there are no keys and nobody said it is meant."""
    if keys is None and not insecure and not is_loopback(host):
        fix = "Run: rainband keygen DIRECTORY, and start every process with keys.dir naming it"
        raise NotAllowed(f"other machines can reach {host}, and there are no keys", fix)


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[ipv6]:port`. Raises UsageError."""
    host, _, port = address.rpartition(":")
    if not host or len(port) > 5 or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise UsageError(f"{address!r} is not an address", "Write host:port, for example 127.0.0.1:6627")
    return host.strip("[]"), int(port)


def endpoint(host: str, port: int | str) -> str:
    """The ZeroMQ name of a TCP address."""
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def make(context: Context, kind: int, keys: Keys | None, *, server: bool, high_water: int, bytes_max: int) -> Socket:
    """A socket with our limits: at most `high_water` messages each way, none larger than `bytes_max` coming in."""
    socket = context.socket(kind)
    socket.linger = 0
    socket.setsockopt(zmq.SNDHWM, high_water)
    socket.setsockopt(zmq.RCVHWM, high_water)
    socket.setsockopt(zmq.MAXMSGSIZE, bytes_max)
    socket.setsockopt(zmq.IPV6, 1)
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    if server:
        socket.setsockopt(zmq.BACKLOG, BACKLOG)
        if keys is not None:
            keys.guard(socket)
    else:
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.CONNECT_TIMEOUT, CONNECT_MS)
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MS_MAX)
        if keys is not None:
            keys.introduce(socket)
    return socket


def bind(socket: Socket, host: str, port: int) -> int:
    """Bind to `host:port` (0: any free one); returns the port. On Refused or UsageError the socket is closed."""
    try:
        where = posix.getaddrinfo(host.strip("[]"), None, type=posix.SOCK_STREAM)[0][4][0]
        socket.bind(endpoint(str(where), port or "*"))
    except posix.gaierror:
        socket.close()
        raise UsageError(f"{host!r} is not an address of this machine", "Use 127.0.0.1, or one that is") from None
    except zmq.ZMQError as error:
        socket.close()
        raise cannot_listen(host, port, error.errno or 0) from None
    name = socket.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(name, bytes)
    return int(name.rstrip(b"\0").rpartition(b":")[2])


def cannot_listen(host: str, port: int, number: int) -> Refused:
    """The refusal to listen on `host:port` for the error `number` of the system (or of ZeroMQ)."""
    if number == errno.EADDRINUSE:
        fix = "Stop the process that listens there, or choose another port"
        return Refused(f"port {port} on {host} is in use", fix)
    if number in (errno.EACCES, errno.EPERM):
        fix = "Choose a port of 1024 or more, or give this user CAP_NET_BIND_SERVICE"
        return Refused(f"no permission to listen on port {port} of {host}", fix)
    if number < 0:  # of getaddrinfo
        return Refused(f"{host!r} is not an address of this machine", "Use 127.0.0.1, or one that is")
    return Refused(f"cannot listen on {host}:{port}: {zmq.strerror(number)}", "Choose another address")


def make_gate(context: Context, keys: Keys | None) -> Gate | None:
    """The gate that lets in holders of `keys` only; None without keys."""
    return None if keys is None else Gate(context, [keys.public])


def poll_ms(timeout_s: float) -> int:
    """Milliseconds for a poller, never too early; infinite and huge waits become one minute."""
    return 0 if timeout_s <= 0 else min(60_000, math.ceil(min(timeout_s, 60.0) * 1000))


class Bell:
    """A thread-safe way to end a poll: `ring` from any thread, `clear` by the one that polls `descriptor`."""

    def __init__(self) -> None:
        self.descriptor, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else _pipe()

    def ring(self) -> None:
        # Full means rung already; closed means nobody listens any more.
        with suppress(BlockingIOError, OSError):
            os.write(self._write, b"!")

    def clear(self) -> None:
        with suppress(BlockingIOError):
            while len(os.read(self.descriptor, 4096)) == 4096:
                pass

    def close(self) -> None:
        os.close(self.descriptor)
        os.close(self._write)


def _pipe() -> tuple[int, int]:
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    return read, write
