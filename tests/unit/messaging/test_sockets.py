"""The options of every socket there is, and what is said when an address cannot be listened on."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from rainband.errors import Refused
from rainband.messaging import control, frames, network, rpc
from rainband.messaging import sockets as sockets_module
from rainband.messaging.control import ControlLink, ControlServer
from rainband.messaging.network import ZmqNetwork
from rainband.messaging.rpc import RpcClient, RpcServer
from rainband.messaging.sockets import Socket, cannot_listen, libzmq

NOBODY = "127.0.0.1:9"
ROUTERS = ["Nimbus", "supervisor"]
LISTEN = ["Nimbus", "supervisor", "worker"]
CONNECT = ["client", "worker to supervisor", "worker to worker"]
BYTES_MAX = {
    "Nimbus": rpc.MESSAGE_BYTES_MAX, "client": rpc.MESSAGE_BYTES_MAX,
    "supervisor": control.MESSAGE_BYTES_MAX, "worker to supervisor": control.MESSAGE_BYTES_MAX,
    "worker": frames.FRAME_BYTES_MAX, "worker to worker": frames.FRAME_BYTES_MAX,
}  # fmt: skip


@pytest.fixture
def sockets() -> Iterator[dict[str, Socket]]:
    """Every kind of socket that the product makes, as it makes it."""
    with contextlib.ExitStack() as stack:
        server, client = RpcServer("127.0.0.1", 0), RpcClient([NOBODY])
        supervisor, link = ControlServer(), ControlLink(NOBODY, "t" * 32, 6700)
        worker = ZmqNetwork("127.0.0.1", 0)
        for made in (server, client, supervisor, link, worker):
            stack.callback(made.close)
        assert not worker.send(NOBODY, b"")
        yield {
            "Nimbus": server._router, "client": client.sockets[0], "supervisor": supervisor._router,
            "worker to supervisor": link.socket, "worker": worker._pull, "worker to worker": worker._out[NOBODY],
        }  # fmt: skip


@pytest.mark.parametrize("name", BYTES_MAX)
def test_every_socket_is_bounded_and_notices_half_open_connections(sockets: dict[str, Socket], name: str) -> None:
    made = sockets[name]
    assert made.getsockopt(zmq.LINGER) == 0
    assert made.getsockopt(zmq.MAXMSGSIZE) == BYTES_MAX[name]
    assert made.getsockopt(zmq.HEARTBEAT_IVL) == 1000
    assert made.getsockopt(zmq.HEARTBEAT_TIMEOUT) == 5000
    assert made.getsockopt(zmq.HANDSHAKE_IVL) == 3000
    for limit in (zmq.SNDHWM, zmq.RCVHWM):
        assert made.getsockopt(limit) in (rpc.MESSAGES_QUEUED_MAX, network.FRAMES_QUEUED_MAX)


@pytest.mark.parametrize("name", CONNECT)
def test_nothing_is_queued_towards_nobody(sockets: dict[str, Socket], name: str) -> None:
    made = sockets[name]
    assert made.getsockopt(zmq.IMMEDIATE) == 1
    assert made.getsockopt(zmq.CONNECT_TIMEOUT) == 2000
    with pytest.raises(zmq.Again):
        made.send(b"", zmq.NOBLOCK)


@pytest.mark.parametrize("name", ROUTERS)
def test_a_router_says_that_there_is_nobody(sockets: dict[str, Socket], name: str) -> None:
    """Its option cannot be read back."""
    with pytest.raises(zmq.ZMQError, match=r"Host unreachable|No route to host"):
        sockets[name].send_multipart([b"nobody", b""], zmq.NOBLOCK)


@pytest.mark.parametrize("name", LISTEN)
def test_many_may_come_at_once(sockets: dict[str, Socket], name: str) -> None:
    assert sockets[name].getsockopt(zmq.BACKLOG) == 512


def test_all_sockets_of_the_source_are_made_in_one_place() -> None:
    """But for those of the gate, which are within one process."""
    room = Path(sockets_module.__file__).parent
    found = {path.name: path.read_text().count(".socket(zmq.") for path in room.glob("*.py")}
    assert {name: count for name, count in found.items() if count} == {"keys.py": 2}


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EADDRINUSE, "port 80 on 127.0.0.1 is in use. Stop the process"),
        (errno.EACCES, "no permission to listen on port 80 of 127.0.0.1. Choose a port of 1024 or more"),
        (errno.EADDRNOTAVAIL, "cannot listen on 127.0.0.1:80: Cannot assign requested address. Choose another"),
        (socket.EAI_NONAME, "'127.0.0.1' is not an address of this machine. Use 127.0.0.1"),
    ],
)
def test_a_port_that_cannot_be_had_comes_with_the_reason(number: int, said: str) -> None:
    error = cannot_listen("127.0.0.1", 80, number)
    assert str(error).startswith(said)
    assert error.exit_code == 3


def test_a_libzmq_with_known_holes_is_refused() -> None:
    assert libzmq((4, 3, 5)) == "4.3.5"
    assert libzmq((4, 10, 0)) == "4.10.0"
    with pytest.raises(Refused, match=r"libzmq 4\.3\.4 is too old, 4\.3\.5 is needed\. Run: pip install"):
        libzmq((4, 3, 4))
