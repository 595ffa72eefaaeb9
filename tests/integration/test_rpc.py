"""Requests to Nimbus and the supervisor's channel over real sockets: answers, refusals, silence, garbage, deaths."""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import zmq

from rainband.errors import (
    ClusterUnavailable,
    InvalidTopology,
    NotAllowed,
    NotLeader,
    RainbandError,
    Refused,
    TopologyNotFound,
    UsageError,
)
from rainband.messaging import control
from rainband.messaging.control import AskStacks, ControlLink, ControlServer, Hello, StacksText
from rainband.messaging.keys import Keys
from rainband.messaging.rpc import MESSAGE_BYTES_MAX, RpcClient, RpcServer, failure, record_of
from rainband.records import Done, Failure, Kill, ListTopologies, Progress, Request, Response, Topologies, Upload

Answer = Callable[[Request], Response | None]
TOKEN = "0123456789abcdef"


class Nimbus:
    """A server on a thread; `answer` decides, None = silence. Pushes a Progress with each answer if `pushing`."""

    def __init__(self, answer: Answer, keys: Keys | None = None, port: int = 0, pushing: bool = False) -> None:
        self.answer = answer
        self.pushing = pushing
        self.server = RpcServer("127.0.0.1", port, keys)
        self.requests: list[Request] = []
        self._stopped = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return self.server.address

    def _serve(self) -> None:
        while not self._stopped:
            for peer, number, request in self.server.poll(5.0):
                self.requests.append(request)
                if self.pushing:
                    self.server.push(peer, Progress("pushed"))
                response = self.answer(request)
                if response is not None:
                    self.server.reply(peer, number, response)

    def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self.server.wake()
            self._thread.join()
            self.server.close()


def echo(request: Request) -> Response:
    return Done(request.name) if isinstance(request, Kill) else Topologies()


@pytest.fixture
def start() -> Iterator[Callable[..., Nimbus]]:
    running: list[Nimbus] = []

    def make(answer: Answer = echo, keys: Keys | None = None, port: int = 0, pushing: bool = False) -> Nimbus:
        running.append(Nimbus(answer, keys, port, pushing))
        return running[-1]

    yield make
    for nimbus in running:
        nimbus.stop()


@pytest.fixture
def connect() -> Iterator[Callable[..., RpcClient]]:
    clients: list[RpcClient] = []

    def make(*seeds: str, timeout_s: float = 4.0, keys: Keys | None = None) -> RpcClient:
        clients.append(RpcClient(seeds, timeout_s, keys))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def test_requests_are_answered_from_any_thread(start: Callable[..., Nimbus], connect: Callable[..., RpcClient]) -> None:
    nimbus = start()
    client = connect(nimbus.address)
    assert client.call(ListTopologies()) == Topologies()
    wrong: list[object] = []

    def ask(name: str) -> None:
        for number in range(50):
            response = client.call(Kill(f"{name}-{number}"))
            if response != Done(f"{name}-{number}"):
                wrong.append(response)

    threads = [threading.Thread(target=ask, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(nimbus.requests) == 201


def test_a_failure_is_raised_as_its_error(start: Callable[..., Nimbus], connect: Callable[..., RpcClient]) -> None:
    nimbus = start(lambda request: record_of(TopologyNotFound("no topology 'wc'", "See `rainband list`")))
    with pytest.raises(TopologyNotFound) as caught:
        connect(nimbus.address).call(Kill("wc"))
    assert (caught.value.message, caught.value.fix) == ("no topology 'wc'", "See `rainband list`")
    unknown = failure(Failure("of_a_later_version", "what", "fix"))
    assert type(unknown) is RainbandError
    assert isinstance(failure(Failure("invalid_topology", "a; b")), InvalidTopology)
    leader = failure(Failure("not_leader", "m", "f", "h:1"))
    assert isinstance(leader, NotLeader)
    assert record_of(leader) == Failure("not_leader", "m", "f", "h:1")


def test_the_leader_is_followed_and_remembered(start: Callable[..., Nimbus], connect: Callable[..., RpcClient]) -> None:
    leader = start()
    follower = start(lambda request: Failure("not_leader", "I follow", leader=leader.address))
    client = connect(follower.address)
    assert client.call(Kill("a")) == Done("a")
    assert client.call(Kill("b")) == Done("b")
    assert len(follower.requests) == 1
    assert len(leader.requests) == 2


@pytest.mark.parametrize("leader", ["", "nonsense", "127.0.0.1:1"])
def test_a_leader_that_is_not_there_is_a_refusal_in_time(
    start: Callable[..., Nimbus], connect: Callable[..., RpcClient], leader: str
) -> None:
    follower = start(lambda request: Failure("not_leader", "I follow", leader=leader))
    begun = time.monotonic()
    with pytest.raises(RainbandError):
        connect(follower.address, timeout_s=1.0).call(Kill("a"))
    assert time.monotonic() - begun < 3.0


def test_two_that_name_each_other_leader_end_in_a_refusal(
    start: Callable[..., Nimbus], connect: Callable[..., RpcClient]
) -> None:
    names: dict[str, str] = {}
    one = start(lambda request: Failure("not_leader", "not me", leader=names["two"]))
    two = start(lambda request: Failure("not_leader", "not me", leader=names["one"]))
    names.update(one=one.address, two=two.address)
    with pytest.raises(ClusterUnavailable, match="no Nimbus leads: not me"):
        connect(one.address, two.address, timeout_s=1.0).call(Kill("a"))


def test_an_election_under_way_is_waited_for(
    start: Callable[..., Nimbus], connect: Callable[..., RpcClient]
) -> None:
    refusals = [Failure("not_leader", "no Nimbus leads at present")] * 4
    one = start(lambda request: refusals.pop() if refusals else Done("a"))
    assert connect(closed_port(), one.address).call(Kill("a")) == Done("a")
    assert len(one.requests) == 5


def test_a_seed_that_is_down_does_no_harm(start: Callable[..., Nimbus], connect: Callable[..., RpcClient]) -> None:
    nimbus = start()
    client = connect(closed_port(), nimbus.address)
    begun = time.monotonic()
    assert client.call(Kill("a")) == Done("a")
    assert time.monotonic() - begun < 1.0


def test_nobody_there_is_said_in_time_with_the_fix(connect: Callable[..., RpcClient]) -> None:
    address = closed_port()
    begun = time.monotonic()
    with pytest.raises(ClusterUnavailable) as caught:
        connect(address).call(ListTopologies())
    assert time.monotonic() - begun < 4.5
    assert address in caught.value.message
    assert "`rainband nimbus` or `rainband up`" in caught.value.fix
    assert caught.value.exit_code == 4


def test_something_else_that_listens_is_said_in_time(connect: Callable[..., RpcClient]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        begun = time.monotonic()
        with pytest.raises(ClusterUnavailable, match="does not answer as a Nimbus"):
            connect(address, timeout_s=1.5).call(ListTopologies())
        assert time.monotonic() - begun < 3.0


def test_silence_ends_in_time_and_a_late_answer_is_not_taken_for_another(
    start: Callable[..., Nimbus], connect: Callable[..., RpcClient]
) -> None:
    release = threading.Event()

    def slow(request: Request) -> Response:
        if isinstance(request, Kill) and request.name == "slow":
            release.wait(10.0)
        return echo(request)

    nimbus = start(slow)
    client = connect(nimbus.address)
    with pytest.raises(ClusterUnavailable, match="did not answer in time"):
        client.call(Kill("slow"), timeout_s=0.2)
    release.set()
    assert client.call(Kill("next")) == Done("next")


def test_a_nimbus_that_dies_before_it_answers_is_noticed_before_the_timeout(
    start: Callable[..., Nimbus], connect: Callable[..., RpcClient]
) -> None:
    nimbus = start(lambda request: None)
    client = connect(nimbus.address)
    timer = threading.Timer(0.3, nimbus.stop)
    timer.start()
    begun = time.monotonic()
    with pytest.raises(ClusterUnavailable, match="broke the connection"):
        client.call(Kill("a"), timeout_s=20.0)
    assert time.monotonic() - begun < 3.0
    timer.join()


def test_a_restarted_nimbus_is_found_again(start: Callable[..., Nimbus], connect: Callable[..., RpcClient]) -> None:
    first = start()
    client = connect(first.address)
    assert client.call(Kill("a")) == Done("a")
    port = first.server.port
    first.stop()
    start(port=port)
    assert client.call(Kill("b")) == Done("b")


def test_pushes_arrive_between_calls(start: Callable[..., Nimbus], connect: Callable[..., RpcClient]) -> None:
    nimbus = start(pushing=True)
    client = connect(nimbus.address)
    assert client.events() == []
    client.call(Kill("a"))
    client.call(Kill("b"))
    assert client.events() == [Progress("pushed"), Progress("pushed")]
    assert client.events(0.01) == []
    assert len(client.sockets) == 1


def test_garbage_is_counted_and_others_are_served(
    start: Callable[..., Nimbus], connect: Callable[..., RpcClient]
) -> None:
    nimbus = start()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context.socket(zmq.DEALER) as rude:
        rude.linger = 1000
        rude.connect(f"tcp://{nimbus.address}")
        rude.send(b"")
        rude.send_multipart([b"short", b"x"])
        rude.send_multipart([bytes(8), b"x"])
        rude.send_multipart([b"12345678"] * 5)
        for payload in (b"", os.urandom(500), b"\x81\xa4type\xa4none", b"\x91" * 100_000, b"\x81\xa4type\xa4kill"):
            rude.send_multipart([b"12345678", payload])
            assert rude.poll(5000)
            assert b"does not know this request" in rude.recv_multipart()[1]
        assert connect(nimbus.address).call(Kill("a")) == Done("a")
        rude.send_multipart([b"12345678", bytes(MESSAGE_BYTES_MAX + 1)])
        assert connect(nimbus.address).call(Kill("b")) == Done("b")
    context.term()
    assert (nimbus.server.dropped, nimbus.server.refused) == (4, 5)
    assert nimbus.requests == [Kill("a"), Kill("b")]


def test_a_client_survives_a_nimbus_that_talks_nonsense(connect: Callable[..., RpcClient]) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context.socket(zmq.ROUTER) as router:
        port = router.bind_to_random_port("tcp://127.0.0.1")
        client = connect(f"127.0.0.1:{port}")

        def answer() -> None:
            peer, number, _ = router.recv_multipart()
            router.send_multipart([peer, b"short"])
            router.send_multipart([peer, bytes(8), b"no push"])
            router.send_multipart([peer, number, b"no response"])

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(RainbandError, match="something that rainband"):
            client.call(ListTopologies())
        thread.join()
    context.term()


def test_an_answer_to_one_who_left_is_counted() -> None:
    server = RpcServer("127.0.0.1", 0)
    assert not server.reply(b"nobody", 1, Done())
    assert not server.push(b"nobody", Progress())
    assert server.unroutable == 2
    server.close()
    server.close()


def test_large_pieces_travel_and_too_large_ones_are_refused_at_home(
    start: Callable[..., Nimbus], connect: Callable[..., RpcClient]
) -> None:
    nimbus = start()
    client = connect(nimbus.address)
    assert client.call(Upload("d", 0, bytes(1 << 20), False)) == Topologies()
    with pytest.raises(UsageError, match="larger than"):
        client.call(Upload("d", 0, bytes(MESSAGE_BYTES_MAX), False))


def test_keys_keep_others_out_and_many_strangers_do_not_slow_us(
    start: Callable[..., Nimbus], connect: Callable[..., RpcClient]
) -> None:
    keys = Keys.generate()
    nimbus = start(keys=keys)
    strangers = []
    for _ in range(200):
        with suppress(OSError):
            strangers.append(socket.create_connection(("127.0.0.1", nimbus.server.port)))
    client = connect(nimbus.address, keys=keys)
    begun = time.monotonic()
    for number in range(50):
        assert client.call(Kill(str(number))) == Done(str(number))
    assert time.monotonic() - begun < 3.0
    for wrong, said in ((None, "wants a key"), (Keys.generate(), "has another key")):
        with pytest.raises(NotAllowed, match=said):
            connect(nimbus.address, timeout_s=0.5, keys=wrong).call(Kill("x"))
    for stranger in strangers:
        stranger.close()
    assert len(nimbus.requests) == 50


def test_a_client_that_had_no_free_descriptor_connects_again(
    start: Callable[..., Nimbus], connect: Callable[..., RpcClient]
) -> None:
    silent: list[bool] = [True]
    nimbus = start(lambda request: None if silent else Done())
    client = connect(nimbus.address)
    client.timeout_s = 0.3
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.raises(ClusterUnavailable, match="did not answer in time"):
        client.call(ListTopologies())
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        for _ in range(3):
            with pytest.raises(ClusterUnavailable):
                client.call(ListTopologies())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    silent.clear()
    client.timeout_s = 5.0
    assert client.call(ListTopologies()) == Done()


def test_a_key_for_one_that_has_none_is_told(
    start: Callable[..., Nimbus], connect: Callable[..., RpcClient]
) -> None:
    with pytest.raises(NotAllowed, match="has no key"):
        connect(start().address, timeout_s=0.1, keys=Keys.generate()).call(Kill("x"))


def test_keys_are_not_blamed_for_a_wait_that_was_too_short(
    start: Callable[..., Nimbus], connect: Callable[..., RpcClient]
) -> None:
    keys = Keys.generate()
    with pytest.raises(ClusterUnavailable):
        connect(start(keys=keys).address, timeout_s=0.0, keys=keys).call(Kill("x"))


def test_ports_in_use_and_exposure_are_refused() -> None:
    server = RpcServer("127.0.0.1", 0)
    with pytest.raises(Refused, match=f"port {server.port} on 127.0.0.1 is in use"):
        RpcServer("127.0.0.1", server.port)
    with pytest.raises(NotAllowed, match="rainband keygen"):
        RpcServer("0.0.0.0", 0)
    server.close()
    for wrong in ([], ["nonsense"], [""]):
        with pytest.raises(UsageError):
            RpcClient(wrong)


# The channel between a supervisor and its workers.


@pytest.fixture
def channel() -> Iterator[tuple[ControlServer, ControlLink]]:
    server = ControlServer()
    server.admit(6700, TOKEN)
    link = ControlLink(server.address, TOKEN, 6700)
    yield server, link
    link.close()
    link.close()
    server.close()
    server.close()


def said(server: ControlServer, link: ControlLink, message: control.FromWorker) -> list[tuple[int, str, object]]:
    """What the server heard after `link` said `message`."""
    until = time.monotonic() + 5.0
    while not link.send(message):
        assert time.monotonic() < until
        time.sleep(0.002)
    found: list[tuple[int, str, object]] = []
    dropped = server.dropped
    while not found and server.dropped == dropped and time.monotonic() < until:
        found += server.poll(0.5)
    return found


def heard(link: ControlLink) -> list[control.ToWorker]:
    until = time.monotonic() + 5.0
    while time.monotonic() < until:
        found = link.receive()
        if found:
            return found
        link.socket.poll(100)
    return []


HELLO = Hello(6700, 123, 456, "wc-1")


def test_supervisor_and_worker_talk(channel: tuple[ControlServer, ControlLink]) -> None:
    server, link = channel
    assert not server.send(6700, AskStacks())
    assert said(server, link, HELLO) == [(6700, TOKEN, HELLO)]
    assert link.connected
    assert server.send(6700, AskStacks())
    assert heard(link) == [AskStacks()]
    assert said(server, link, StacksText("main")) == [(6700, TOKEN, StacksText("main"))]


def test_only_the_token_of_the_slot_is_heard(channel: tuple[ControlServer, ControlLink]) -> None:
    server, link = channel
    for token, port in (("x" * 16, 6700), (TOKEN, 6701), (TOKEN + "0", 6700)):
        other = ControlLink(server.address, token, port)
        assert said(server, other, Hello(port, 1, 2, "wc-1")) == []
        other.close()
    assert said(server, link, Hello(6701, 1, 2, "wc-1")) == []
    assert server.dropped == 4
    assert said(server, link, HELLO) == [(6700, TOKEN, HELLO)]
    server.admit(6700, "another token, for the next worker")
    assert not server.send(6700, AskStacks())
    assert said(server, link, HELLO) == []
    server.dismiss(6700)
    assert said(server, link, HELLO) == []
    with pytest.raises(UsageError, match="too short"):
        server.admit(6700, "")


def test_a_worker_finds_its_next_supervisor(channel: tuple[ControlServer, ControlLink]) -> None:
    old, link = channel
    assert said(old, link, HELLO)
    old.close()
    until = time.monotonic() + 5.0
    while link.connected and time.monotonic() < until:
        time.sleep(0.005)
    assert not link.send(HELLO)
    new = ControlServer()
    new.admit(6700, TOKEN)
    link.reconnect(new.address)
    assert said(new, link, HELLO) == [(6700, TOKEN, HELLO)]
    assert new.send(6700, control.Stop(drain=True))
    assert heard(link) == [control.Stop(drain=True)]
    new.close()


def test_a_control_address_that_is_none_is_refused(channel: tuple[ControlServer, ControlLink]) -> None:
    server, link = channel
    for wrong in ("", "nonsense", "a b:1"):
        with pytest.raises(UsageError):
            link.reconnect(wrong)
    with pytest.raises(UsageError):
        ControlLink("nonsense", TOKEN, 6700)
    link.reconnect(server.address)
    assert said(server, link, HELLO) == [(6700, TOKEN, HELLO)]


def test_garbage_from_a_worker_is_counted(channel: tuple[ControlServer, ControlLink]) -> None:
    server, link = channel
    assert said(server, link, HELLO)
    head = (6700).to_bytes(2, "little") + TOKEN.encode()
    for parts in ([b""], [b"x", b"y"], [head, os.urandom(100)], [head, b"\x91" * 50_000], [head, b"", b""]):
        link.socket.send_multipart(parts)
    until = time.monotonic() + 5.0
    while server.dropped < 5 and time.monotonic() < until:
        assert server.poll(0.1) == []
    assert server.dropped == 5


def test_a_poll_ends_when_woken_or_when_something_else_is_ready(channel: tuple[ControlServer, ControlLink]) -> None:
    server, _ = channel
    begun = time.monotonic()
    timer = threading.Timer(0.02, server.wake)
    timer.start()
    assert server.poll(10.0) == []
    timer.join()
    read, write = os.pipe()
    os.write(write, b"x")
    assert server.poll(10.0, also=[read]) == []
    os.close(read)
    os.close(write)
    assert time.monotonic() - begun < 5.0
