"""Async bolts that wait for sockets and threads while time is virtual."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from rainband.testing import run_bolt
from rainband.topology.components import Bolt
from rainband.topology.context import TopologyContext
from rainband.topology.tuples import Tuple


class Asks(Bolt):
    """Asks an echo server, then rests for ten seconds."""

    outputs = ("answer", "from_thread")

    def __init__(self, port: int) -> None:
        self.port = port

    async def prepare(self, context: TopologyContext) -> None:
        self.known = await asyncio.to_thread(lambda: 42)

    async def execute(self, tup: Tuple) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(str(tup[0]).encode())
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(10)
        self.emit([answer.decode(), self.known])


class Impatient(Bolt):
    """Gives up after a virtual second on a server that never answers."""

    outputs = ("n",)

    def __init__(self, port: int) -> None:
        self.port = port

    async def execute(self, tup: Tuple) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(0.1):
                await reader.read()
        except TimeoutError:
            self.emit(tup.values)
        finally:
            writer.close()
            await writer.wait_closed()


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it got, each connection on a thread."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer(connection: socket.socket) -> None:
            with connection:
                while data := connection.recv(4096):
                    connection.sendall(data)

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_sockets_and_threads_take_real_time_and_sleep_none(echo: int) -> None:
    run = run_bolt(Asks(echo), [[n] for n in range(20)])
    assert sorted(run) == sorted((str(n), 42) for n in range(20))


def test_a_timeout_of_the_bolts_own_still_comes(echo: int) -> None:
    assert sorted(run_bolt(Impatient(echo), [[n] for n in range(3)])) == [(0,), (1,), (2,)]
