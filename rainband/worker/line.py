"""A worker's line to its supervisor: found through the control file, renewed when another supervisor has taken over."""

from __future__ import annotations

from pathlib import Path

from rainband.errors import UsageError
from rainband.messaging.control import ControlLink, FromWorker, Hello, ToWorker
from rainband.messaging.network import ZmqNetwork
from rainband.topology.home import CONTROL, read_control

LINGER_MS = 500


class SupervisorLine:
    """Never blocks and never fails: without a supervisor, `send` says False and `receive` has nothing.

    `hello` is said first on every new connection.
    """

    def __init__(self, topologies: Path, hello: Hello) -> None:
        self._topologies = topologies
        self._hello = hello
        self._greeted = False
        self._link: ControlLink | None = None
        self._network: ZmqNetwork | None = None
        self._seen = 0
        self.renew()

    def watched_by(self, network: ZmqNetwork) -> None:
        """Let `network.wait` end when the supervisor says something."""
        self._network = network
        if self._link is not None:
            network.watch(self._link.socket)

    def renew(self) -> None:
        """Look whether another supervisor has written its address, and turn to that one."""
        try:
            written = (self._topologies / CONTROL).stat().st_mtime_ns
        except OSError:
            return
        found = read_control(self._topologies) if written != self._seen else None
        if found is None:
            return
        self._seen = written
        self._drop(0)
        address, token = found
        try:
            self._link = ControlLink(address, token, self._hello.port)
        except UsageError:
            return
        if self._network is not None:
            self._network.watch(self._link.socket)

    @property
    def found(self) -> bool:
        """Whether a supervisor has written where it listens."""
        return self._link is not None

    def greet(self) -> None:
        """Say hello once more, and be told what there is to know."""
        self._greeted = False
        self._say_hello()

    def send(self, message: FromWorker) -> bool:
        """False if it could not be sent: nobody is there."""
        return self._say_hello() and self._link is not None and self._link.send(message)

    def receive(self) -> list[ToWorker]:
        self._say_hello()
        return [] if self._link is None else self._link.receive()

    def close(self) -> None:
        """Hand over what was sent, then hang up."""
        self._drop(LINGER_MS)

    def _say_hello(self) -> bool:
        if not self._greeted and self._link is not None:
            self._greeted = self._link.send(self._hello)
        return self._greeted

    def _drop(self, linger_ms: int) -> None:
        self._greeted = False
        if self._link is not None:
            if self._network is not None:
                self._network.unwatch(self._link.socket)
            self._link.socket.close(linger_ms)
            self._link.close()
            self._link = None
