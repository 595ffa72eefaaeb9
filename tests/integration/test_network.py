"""Frames over real TCP: exact under load, through cut and frozen connections, past strangers and garbage."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import zmq

from rainband.errors import NotAllowed, Refused, UsageError
from rainband.messaging import frames
from rainband.messaging.frames import DATA
from rainband.messaging.keys import Keys
from rainband.messaging.links import Condemned, Gone, Links, PeerReplaced
from rainband.messaging.network import UNWANTED_LOOKS, ZmqNetwork

TOPOLOGY = 5


class Worker:
    """A network and links, stepped by the test. `address` is what it says of itself: its proxy's, if it has one."""

    def __init__(self, incarnation: int, port: int = 0, keys: Keys | None = None) -> None:
        self.network = ZmqNetwork("127.0.0.1", port, keys)
        self.incarnation = incarnation
        self.be(self.network.address)

    def be(self, address: str) -> None:
        self.address = address
        self.links = Links(address, self.incarnation, TOPOLOGY)
        self.got: list[tuple[int, bytes]] = []
        self.events: list[PeerReplaced | Gone | Condemned] = []

    def step(self, timeout_s: float = 0.0) -> None:
        now = time.monotonic()
        deadline = self.links.tick(now)
        self.links.flush(now, self.network)
        self.network.wait(min(timeout_s, deadline - now))
        now = time.monotonic()
        for frame in self.network.receive():
            for event in self.links.receive(frame, now):
                if isinstance(event, tuple):
                    self.got.append((event[0], event[2]))
                else:
                    self.events.append(event)
        self.links.flush(now, self.network)


@pytest.fixture
def made() -> Iterator[list[Worker]]:
    workers: list[Worker] = []
    yield workers
    for worker in workers:
        worker.network.close()


def run_until(workers: list[Worker], condition: Callable[[], bool], timeout_s: float = 20.0) -> float:
    """Step until `condition`; the seconds it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < timeout_s, "not reached in time"
        for worker in workers:
            worker.step(0.001)
    return time.monotonic() - start


class Proxy:
    """A TCP port before another. `frozen` stops the flow without closing, `cut` resets every connection."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.frozen = False
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._ways: dict[socket.socket, socket.socket] = {}
        self._lock = threading.Lock()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped:
            with self._lock:
                ways = list(self._ways)
            ready, _, _ = select.select([self._server, *([] if self.frozen else ways)], [], [], 0.02)
            for end in ready:
                if end is self._server:
                    self._accept()
                elif not self.frozen:
                    self._pass(end)

    def _accept(self) -> None:
        near, _ = self._server.accept()
        with suppress(OSError):
            far = socket.create_connection(("127.0.0.1", self.target))
            with self._lock:
                self._ways |= {near: far, far: near}
            return
        near.close()

    def _pass(self, end: socket.socket) -> None:
        other = self._ways.get(end)
        if other is None:
            return
        try:
            data = end.recv(1 << 16)
            if data:
                other.sendall(data)
                return
        except OSError:
            pass
        self._end(end, other)

    def _end(self, *ends: socket.socket) -> None:
        with self._lock:
            for end in ends:
                self._ways.pop(end, None)
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.close()

    def cut(self) -> None:
        with self._lock:
            ends = list(self._ways)
        self._end(*ends)

    def close(self) -> None:
        self._stopped = True
        self._thread.join()
        self.cut()
        self._server.close()


@pytest.fixture
def proxied(made: list[Worker]) -> Iterator[tuple[Worker, Worker, list[Proxy]]]:
    """Two workers that reach each other only through proxies."""
    made += [Worker(11), Worker(22)]
    proxies = [Proxy(worker.network.port) for worker in made]
    for worker, proxy in zip(made, proxies, strict=True):
        worker.be(f"127.0.0.1:{proxy.port}")
    yield made[0], made[1], proxies
    for proxy in proxies:
        proxy.close()


def test_many_messages_arrive_exactly(made: list[Worker]) -> None:
    made += [Worker(11), Worker(22)]
    here, there = made
    link = here.links.link(there.address)
    payloads = [b"%d " % number + bytes(number % 977) for number in range(20_000)]
    todo = iter(payloads)

    def feed() -> bool:
        for _ in range(100):
            payload = None if link.full else next(todo, None)
            if payload is not None:
                link.send(DATA, payload)
        return len(there.got) == len(payloads)

    run_until(made, feed)
    assert [payload for _, payload in there.got] == payloads
    assert here.events == there.events == []


def test_cut_connections_lose_nothing_and_fail_nothing(proxied: tuple[Worker, Worker, list[Proxy]]) -> None:
    here, there, proxies = proxied
    sent: dict[str, list[bytes]] = {here.address: [], there.address: []}
    cuts = 0
    last_cut = time.monotonic()
    while cuts < 8 or not all(len(w.got) == len(sent[o.address]) for w, o in ((here, there), (there, here))):
        for worker, other in ((here, there), (there, here)):
            link = worker.links.link(other.address)
            if cuts < 8 and not link.full:
                payload = b"%d" % len(sent[worker.address]) + bytes(5000)
                sent[worker.address].append(payload)
                link.send(DATA, payload, len(sent[worker.address]))
            worker.step(0.0005)
        if cuts < 8 and time.monotonic() - last_cut > 0.15 and here.got and there.got:
            proxies[cuts % 2].cut()
            cuts += 1
            last_cut = time.monotonic()
        assert time.monotonic() - last_cut < 20
    assert [payload for _, payload in there.got] == sent[here.address]
    assert [payload for _, payload in here.got] == sent[there.address]
    assert here.events == there.events == []
    assert here.links.counters()["frames_repeated"] + there.links.counters()["frames_repeated"] > 0


@pytest.mark.slow
@pytest.mark.faults
def test_a_frozen_way_of_twenty_seconds_loses_nothing(proxied: tuple[Worker, Worker, list[Proxy]]) -> None:
    """Half-open: nothing flows, nothing is closed. Heartbeats end the connection; after the thaw it goes on soon."""
    here, there, proxies = proxied
    link = here.links.link(there.address)
    run_until([here, there], lambda: link.peer == 22)
    for proxy in proxies:
        proxy.frozen = True
    sent: list[bytes] = []
    start = time.monotonic()
    while time.monotonic() - start < 20:
        if not link.full and len(sent) < 2000:
            sent.append(b"%d" % len(sent) + bytes(5000))
            link.send(DATA, sent[-1], len(sent))
        here.step(0.01)
        there.step(0.01)
    assert there.got == []
    assert link.outstanding_bytes <= link.buffer_bytes
    for proxy in proxies:
        proxy.frozen = False
    assert run_until([here, there], lambda: len(there.got) == len(sent)) < 4.0
    assert [payload for _, payload in there.got] == sent
    assert here.events == []


def test_a_restarted_worker_on_the_same_port_is_recognised(made: list[Worker]) -> None:
    made += [Worker(11), Worker(22)]
    here, old = made
    link = here.links.link(old.address)
    link.send(DATA, b"x", "kept")
    run_until(made, lambda: len(old.got) == 1 and link.idle)
    port = old.network.port
    old.network.close()
    link.send(DATA, b"y", "lost")
    here.step()
    new = Worker(33, port)
    made[1] = new
    new.links.link(here.address)
    run_until(made, lambda: bool(here.events))
    (event,) = here.events
    assert isinstance(event, PeerReplaced)
    assert (event.old_incarnation, event.new_incarnation, event.lost_roots) == (22, 33, ["lost"])
    link.send(DATA, b"z")
    run_until(made, lambda: new.got == [(DATA, b"z")])


def test_word_of_a_death_arrives_from_outside(made: list[Worker]) -> None:
    made += [Worker(11), Worker(22)]
    here, there = made
    run_until(made, lambda: here.links.link(there.address).peer == 22)
    outside = ZmqNetwork("127.0.0.1", 0)
    notice = frames.gone(TOPOLOGY, 99, there.address, 22)
    run_until([here], lambda: outside.send(here.address, notice))
    run_until([here], lambda: bool(here.events))
    outside.close()
    (event,) = here.events
    assert isinstance(event, Gone)
    assert (event.address, event.incarnation) == (there.address, 22)


def test_strangers_and_garbage_on_the_data_port_change_nothing(made: list[Worker]) -> None:
    made += [Worker(11), Worker(22)]
    here, there = made
    link = here.links.link(there.address)
    run_until(made, lambda: link.peer == 22)
    port = there.network.port
    for number in range(30):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(os.urandom(100) if number % 2 else b"GET / HTTP/1.1\r\n\r\n")
            if number % 3 == 0:
                stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context.socket(zmq.PUSH) as rude:
        rude.linger = 1000
        rude.connect(f"tcp://127.0.0.1:{port}")
        for number in range(300):
            rude.send(os.urandom(number))
        rude.send_multipart([b"x"] * 200)
        link.send(DATA, b"honest")
        run_until(made, lambda: there.links.malformed >= 500 and bool(there.got))
        rude.send(bytes(frames.FRAME_BYTES_MAX + 1))
        link.send(DATA, b"still there")
        run_until(made, lambda: len(there.got) == 2)
    context.term()
    assert there.got == [(DATA, b"honest"), (DATA, b"still there")]


def test_only_holders_of_the_key_get_in(made: list[Worker]) -> None:
    ours, theirs = Keys.generate(), Keys.generate()
    made += [Worker(11, keys=ours), Worker(22, keys=ours), Worker(33, keys=theirs), Worker(44)]
    here, there, stranger, plain = made
    for outsider in (stranger, plain):
        outsider.links.link(there.address).send(DATA, b"let me in")
    link = here.links.link(there.address)
    link.send(DATA, b"honest")
    run_until(made, lambda: bool(there.got))
    for _ in range(200):
        for worker in made:
            worker.step(0.001)
    assert there.got == [(DATA, b"honest")]
    assert stranger.links.link(there.address).peer == plain.links.link(there.address).peer == 0
    # One that knows our public half but does not hold the secret one is turned away by the gate.
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context.socket(zmq.PUSH) as spy:
        spy.linger = 0
        spy.curve_publickey, spy.curve_secretkey = theirs.public, theirs.secret
        spy.curve_serverkey = ours.public
        spy.connect(f"tcp://127.0.0.1:{there.network.port}")
        run_until(made, lambda: there.network.refused > 0)
    context.term()


def test_the_port_and_the_host_must_be_ours() -> None:
    network = ZmqNetwork("127.0.0.1", 0)
    with pytest.raises(Refused, match=f"port {network.port} on 127.0.0.1 is in use"):
        ZmqNetwork("127.0.0.1", network.port)
    with pytest.raises(NotAllowed, match="there are no keys"):
        ZmqNetwork("0.0.0.0", 0)
    with pytest.raises(UsageError, match="is not an address of this machine"):
        ZmqNetwork("no.such.host.invalid", 0, insecure=True)
    network.close()
    network.close()
    again = ZmqNetwork("127.0.0.1", network.port)
    again.close()


def test_an_address_that_is_none_takes_nothing(made: list[Worker]) -> None:
    made.append(Worker(11))
    assert not made[0].network.send("nonsense", b"x")
    assert not made[0].network.send("127.0.0.1:1", b"x")


def test_ways_are_closed_when_they_have_not_been_wanted_for_a_while(made: list[Worker]) -> None:
    made.extend([Worker(11), Worker(12), Worker(13)])
    network, kept, left = made[0].network, made[1].network, made[2].network
    sent = {kept.address, left.address}
    run_until(made, lambda: all(network.send(address, b"x") for address in sent))
    for wanted in [{kept.address}] * (UNWANTED_LOOKS - 1) + [sent] + [{kept.address}] * (UNWANTED_LOOKS - 1):
        network.tend(wanted)
    assert network._out.keys() == sent
    network.tend({kept.address})
    assert network._out.keys() == {kept.address}
    run_until(made, lambda: network.send(left.address, b"x"))


def test_processes_that_came_and_went_leave_nothing_on_a_way_that_is_not_used(made: list[Worker]) -> None:
    made.append(Worker(11))
    network = made[0].network
    peer = ZmqNetwork("127.0.0.1", 0)
    run_until(made, lambda: network.send(peer.address, b"x"))
    descriptor = network._out[peer.address].FD

    def unseen(timeout_s: float = 0.0) -> bool:
        return bool(select.select([descriptor], [], [], timeout_s)[0])

    def seen() -> bool:
        network.tend({peer.address})
        return not unseen()

    run_until(made, seen)
    peer.close()
    assert unseen(10.0), "the end of the connection waits for whoever looks"
    run_until(made, seen)


def test_wait_ends_when_woken_and_when_a_watched_descriptor_is_ready(made: list[Worker]) -> None:
    made.append(Worker(11))
    network = made[0].network
    start = time.monotonic()
    timer = threading.Timer(0.02, network.wake)
    timer.start()
    network.wait(10.0)
    timer.join()
    read, write = os.pipe()
    network.watch(read)
    os.write(write, b"x")
    network.wait(10.0)
    network.unwatch(read)
    network.unwatch(read)
    os.close(read)
    os.close(write)
    assert time.monotonic() - start < 5.0
    network.wait(0.0)
    network.wait(-1.0)
