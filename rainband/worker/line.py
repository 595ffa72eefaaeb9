"""A worker's line to its supervisor: found through the control file, renewed when another supervisor has taken over."""

from __future__ import annotations

from pathlib import Path

from rainband.messaging.control import ControlLink, FromWorker, Hello, ToWorker
from rainband.messaging.network import ZmqNetwork
from rainband.topology.home import CONTROL, read_control


class Line:
    """Never blocks and never fails: without a supervisor, `send` says False and `receive` has nothing."""

    def __init__(self, topologies: Path, port: int) -> None:
        self._topologies = topologies
        self._port = port
        self._link: ControlLink | None = None
        self._network: ZmqNetwork | None = None
        self._hello: Hello | None = None
        self._seen = 0
        self.renew()

    def greet(self, hello: Hello) -> None:
        """Say who this is, now and to every later supervisor."""
        self._hello = hello
        self.send(hello)

    def watched_by(self, network: ZmqNetwork) -> None:
        """Let `network.wait` end when the supervisor says something."""
        self._network = network
        if self._link is not None:
            network.watch(self._link.socket)

    def renew(self) -> None:
        """Look whether another supervisor has written its address; greet it if so."""
        try:
            written = (self._topologies / CONTROL).stat().st_mtime_ns
        except OSError:
            return
        if written == self._seen:
            return
        found = read_control(self._topologies)
        if found is None:
            return
        self._seen = written
        self._drop()
        address, token = found
        self._link = ControlLink(address, token, self._port)
        if self._network is not None:
            self._network.watch(self._link.socket)
        if self._hello is not None:
            self.send(self._hello)

    def send(self, message: FromWorker) -> bool:
        return self._link is not None and self._link.send(message)

    def receive(self) -> list[ToWorker]:
        return [] if self._link is None else self._link.receive()

    def _drop(self) -> None:
        if self._link is not None:
            if self._network is not None:
                self._network.unwatch(self._link.socket)
            self._link.close()
            self._link = None

    def close(self) -> None:
        """Hand over what was sent, then hang up."""
        self._drop()
