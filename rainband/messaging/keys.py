"""CURVE keys: who may speak on a socket that is not on loopback, and how frames are kept from other eyes.

Processes that trust each other, those of one cluster and its clients, share one key pair. It is the server's key and
the only client key that is let in, so anyone without the file fails the handshake, and nothing of what it sends is
read. User code runs in workers, which have the file: whoever may submit to a cluster may do anything there.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import zmq
import zmq.utils.z85

from rainband.clock import SystemClock
from rainband.config import expanded
from rainband.errors import NotAllowed, UsageError

ZAP_ADDRESS = "inproc://zeromq.zap.01"
DOMAIN = b"rainband"
REFUSALS_TOLD_S = 60.0

logger = logging.getLogger("rainband.messaging")

KEY_FILE = "cluster.key"


class Keys:
    """One CURVE pair as 40 Z85 characters each. Its repr shows the public half only."""

    __slots__ = ("public", "secret")

    def __init__(self, public: bytes | str, secret: bytes | str) -> None:
        """Raises NotAllowed if the two do not belong together."""
        self.public = public.encode() if isinstance(public, str) else public
        self.secret = secret.encode() if isinstance(secret, str) else secret
        try:
            sound = zmq.curve_public(self.secret) == self.public
        except (ValueError, zmq.ZMQError, KeyError):
            sound = False
        if not sound:
            raise NotAllowed("the halves of the key do not belong together", "Make a new one with `rainband keygen`")

    def __repr__(self) -> str:
        return f"Keys({self.public.decode()})"

    @staticmethod
    def generate() -> Keys:
        public, secret = zmq.curve_keypair()
        return Keys(public, secret)

    @staticmethod
    def from_secret(secret: bytes | str) -> Keys:
        """The pair of a secret half, e.g. one handed to a worker. Raises NotAllowed."""
        raw = secret.encode() if isinstance(secret, str) else secret
        try:
            public = zmq.curve_public(raw)
        except (ValueError, zmq.ZMQError, KeyError):
            raise NotAllowed("not a secret key", "Make one with: rainband keygen DIRECTORY") from None
        return Keys(public, raw)

    def save(self, path: Path) -> None:
        """Write a new key file, readable by its owner only. Raises UsageError if it exists or cannot be written."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            raise UsageError(f"{path} exists already", "Remove it first, or choose another file") from None
        except OSError as error:
            raise UsageError(f"cannot write the key file {path}: {error.strerror}") from None
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(b"public " + self.public + b"\nsecret " + self.secret + b"\n")
            file.flush()
            os.fsync(descriptor)

    @staticmethod
    def load(path: Path) -> Keys:
        """Read a key file. Raises NotAllowed if it is missing, not ours, open to others, or not a key."""
        try:
            with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW)) as file:
                found = os.fstat(file.fileno())
                data = file.read(1024)
        except OSError as error:
            fix = "Make one with: rainband keygen DIRECTORY"
            raise NotAllowed(f"cannot read the key file {path}: {error.strerror}", fix) from None
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise NotAllowed(f"the key file {path} is open to other users", f"Run: chmod 600 {path}")
        parts = dict(line.split(b" ", 1) for line in data.splitlines() if b" " in line)
        if set(parts) != {b"public", b"secret"}:
            raise NotAllowed(f"{path} is not a key file", "Make one with: rainband keygen DIRECTORY")
        return Keys(parts[b"public"].strip(), parts[b"secret"].strip())

    def guard(self, socket: zmq.Socket[bytes]) -> None:
        """Make `socket`, before it binds, refuse all but those whom the Gate of its context lets in."""
        socket.curve_server = True
        socket.curve_secretkey = self.secret
        socket.zap_domain = DOMAIN
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)

    def introduce(self, socket: zmq.Socket[bytes]) -> None:
        """Make `socket`, before it connects, show this key and demand it of the other side."""
        socket.curve_publickey = self.public
        socket.curve_secretkey = self.secret
        socket.curve_serverkey = self.public


def key_file(directory: str | None) -> Path | None:
    """The key file in the directory that keys.dir names, absolute for processes started elsewhere; None for none."""
    return expanded(directory).absolute() / KEY_FILE if directory else None


def cluster_keys(directory: str | None) -> Keys | None:
    """The keys in the directory that keys.dir names; None when it names none. Raises NotAllowed as `Keys.load` does."""
    path = key_file(directory)
    return Keys.load(path) if path is not None else None


class Gate:
    """Answers libzmq's question who may connect (ZAP) for one context, on a thread that touches nothing else.

    Made before the first guarded socket binds, closed after the last one. `refused` counts those turned away.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], allowed: Iterable[bytes]) -> None:
        """`allowed` are public keys as 40 Z85 characters."""
        self.allowed = frozenset(zmq.utils.z85.decode(key) for key in allowed)
        self.refused = 0
        self._clock = SystemClock()
        self._tell_at = self._clock.now()
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(ZAP_ADDRESS)
        self._thread = threading.Thread(target=self._serve, name="rainband-gate", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(zmq.ContextTerminated), self._socket:
            while True:
                parts = self._socket.recv_multipart()
                if parts == [b"stop"]:
                    return
                self._socket.send_multipart(self._verdict(parts))

    def _verdict(self, parts: list[bytes]) -> list[bytes]:
        version, request = (parts + [b"1.0", b""])[:2] if len(parts) < 2 else parts[:2]
        if len(parts) == 7 and version == b"1.0" and parts[5] == b"CURVE" and parts[6] in self.allowed:
            return [version, request, b"200", b"OK", b"", b""]
        self._refuse(parts[3].decode(errors="replace")[:80] if len(parts) > 3 else "somebody")
        return [version, request, b"400", b"unknown key", b"", b""]

    def _refuse(self, address: str) -> None:
        """Count, and say so, but not more than once in REFUSALS_TOLD_S."""
        self.refused += 1
        now = self._clock.now()
        if now >= self._tell_at:
            self._tell_at = now + REFUSALS_TOLD_S
            logger.warning("%d connections had not the right key, the newest from %s: refused", self.refused, address)

    def close(self) -> None:
        """Stop the thread."""
        if self._thread.is_alive():
            stop = self._socket.context.socket(zmq.REQ)
            stop.linger = 0
            stop.connect(ZAP_ADDRESS)
            stop.send(b"stop")
            self._thread.join(2.0)
            stop.close()
