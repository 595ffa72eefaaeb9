"""The Nimbus daemon over real sockets and a real disk, with supervisors played by the test."""

from __future__ import annotations

import logging
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from rainband.clock import SystemClock
from rainband.cluster.store import EPOCH_MAX
from rainband.config import Config
from rainband.errors import (
    ClusterUnavailable,
    InvalidTopology,
    Refused,
    StateLocked,
    StoreError,
    TopologyExists,
    TopologyNotFound,
    UsageError,
    VersionMismatch,
)
from rainband.messaging.rpc import RpcClient
from rainband.nimbus.client import Client, uploaded
from rainband.nimbus.service import Service
from rainband.records import (
    Download,
    GetTopology,
    Heartbeat,
    HeartbeatReply,
    Kill,
    Piece,
    Status,
    Submit,
    TopologySummary,
)
from rainband.topology.bundle import load_topology
from rainband.topology.graph import Topology
from rainband.topology.plan import Plan

CLOCK = SystemClock()


PROJECT = """
from rainband import Bolt, Spout, TopologyBuilder

class Numbers(Spout):
    outputs = ("n",)
    def next_tuple(self): pass

class Sink(Bolt):
    def execute(self, tup): pass

builder = TopologyBuilder("numbers")
builder.set_spout("numbers", Numbers())
builder.set_bolt("sink", Sink(), parallelism=2).shuffle_grouping("numbers")
topology = builder.create_topology()
"""


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Topology:
    """From a project of its own, as a user's would be."""
    file = tmp_path_factory.mktemp("project") / "numbers_of_a_user.py"
    file.write_text(PROJECT)
    return load_topology(file)


@contextmanager
def nimbus(state: Path, **settings: object) -> Iterator[Service]:
    service = Service(Config.layer({"state.dir": str(state), "nimbus.port": 0, **settings}))
    thread = threading.Thread(target=service.serve)
    thread.start()
    try:
        yield service
    finally:
        service.stop()
        thread.join(10)
        service.close()
        assert not thread.is_alive()


@contextmanager
def supervisor(address: str, name: str = "a", ports: tuple[int, ...] = (6700, 6701)) -> Iterator[RpcClient]:
    """A connection on which the test plays a supervisor that has said hello."""
    rpc = RpcClient([address])
    try:
        report(rpc, name, ports)
        yield rpc
    finally:
        rpc.close()


def report(
    rpc: RpcClient, name: str = "a", ports: tuple[int, ...] = (6700, 6701), python: str = ""
) -> HeartbeatReply:
    answer = rpc.call(Heartbeat(name, "127.0.0.1", 1, ports, python=python))
    assert isinstance(answer, HeartbeatReply)
    return answer


def test_a_topology_is_packed_submitted_pushed_and_handed_out(
    tmp_path: Path, numbers: Topology, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rainband.nimbus")
    sent: list[tuple[int, int]] = []
    with nimbus(tmp_path / "state") as service, supervisor(service.address) as host, Client(service.address) as client:
        running = client.submit(numbers, config={"topology.workers": 2}, progress=lambda *bytes: sent.append(bytes))
        began = CLOCK.now()
        assert len(host.events(timeout_s=5.0)) == 1
        assert CLOCK.now() - began < 1.0
        (assignment,) = report(host).assignments
        assert [slot.port for slot in assignment.slots()] == [6700, 6701]

        summary = host.call(GetTopology(assignment.topology_id))
        assert isinstance(summary, TopologySummary)
        digest = Plan.decode(summary.plan).bundle
        piece = host.call(Download(digest, 0, 1 << 20))
        assert isinstance(piece, Piece)
        assert piece.data.startswith(b"PK")
        assert (len(piece.data), sent[-1]) == (piece.size, (piece.size, piece.size))

        assert running.statistics().status is Status.ACTIVE
        assert [t.name for t in client.topologies()] == ["numbers"]
        assert client.topology("numbers").summary().topology_id == assignment.topology_id
        running.deactivate()
        assert len(host.events(timeout_s=5.0)) == 1
        assert report(host).assignments[0].status is Status.INACTIVE
        running.kill(wait_s=0)
        assert report(host).wanted == ()
        with pytest.raises(TopologyNotFound, match=r"no topology is named 'numbers'\. None is running"):
            running.statistics()
    told = [m for m in caplog.messages if m.startswith("numbers-")]
    assert [message.split()[1].strip(":,") for message in told] == ["submitted", "deactivated", "killed"]


def test_everything_is_there_after_a_restart(tmp_path: Path, numbers: Topology) -> None:
    state = tmp_path / "state"
    with nimbus(state) as service, supervisor(service.address) as host, Client(service.address) as client:
        client.submit(numbers)
        first = report(host).assignments[0]
        client.topology("numbers")._control.call(Kill("numbers", 3.0))
        cluster_id = client.cluster().cluster_id
    with nimbus(state) as service, supervisor(service.address) as host, Client(service.address) as client:
        assert service.nimbus.epoch == 2
        assert client.cluster().cluster_id == cluster_id
        again = report(host).assignments[0]
        assert (again.epoch, again.version, again.status) == (1, 2, Status.KILLED)
        assert again.placements == first.placements
        assert uploaded(client._rpc, Plan.decode(client.topology("numbers").summary().plan).bundle)
        left = client.topologies()[0].due_s
        assert left is not None
        assert 0 < left <= 3.0


def test_a_state_restored_from_a_copy_leads_above_what_supervisors_have_heard(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state"
    with nimbus(state) as service:
        cluster_id = service._opened.store.cluster_id
    shutil.copytree(state, tmp_path / "copy")
    for _ in range(2):
        with nimbus(state):
            pass
    shutil.rmtree(state)
    shutil.copytree(tmp_path / "copy", state)
    with nimbus(state) as service, closing(RpcClient([service.address])) as rpc:
        assert service.nimbus.epoch == 2
        for heard, epoch in ((3, 4), (3, 4), (4, 4), (EPOCH_MAX, EPOCH_MAX + 1), (EPOCH_MAX + 1, EPOCH_MAX + 1)):
            reply = rpc.call(Heartbeat("a", "127.0.0.1", 1, (6700,), leader=(cluster_id, heard)))
            assert isinstance(reply, HeartbeatReply)
            assert reply.epoch == epoch
        with pytest.raises(Refused, match="more than there can be"):
            rpc.call(Heartbeat("b", "127.0.0.1", 1, (6700,), leader=(cluster_id, 2**64 - 1)))
    assert "supervisor 'a' has heard of epoch 3" in caplog.text


def test_errors_come_back_as_what_they_are(tmp_path: Path, numbers: Topology) -> None:
    with nimbus(tmp_path / "state") as service, supervisor(service.address) as host, Client(service.address) as client:
        client.submit(numbers)
        with pytest.raises(TopologyExists, match="the name numbers is in use"):
            client.submit(numbers)
        with pytest.raises(InvalidTopology, match="not a topology plan"):
            host.call(Submit("other", b"\x80\x04."))
        with pytest.raises(UsageError, match="cannot name a topology"):
            host.call(Submit("../other", numbers.plan.encode()))
        with pytest.raises(StoreError, match="is not here"):
            host.call(Download("../../etc/passwd", 0, 10))
        with pytest.raises(Refused, match=r"no component 'snik'\. Did you mean 'sink'\?"):
            client.topology("numbers").rebalance(parallelism={"snik": 1})
        report(host, python="2.7.18")
        with pytest.raises(VersionMismatch, match=r"python 3\.\d+\.\d+ here, 2\.7\.18 there"):
            client.submit(numbers, name="other")
        assert [t.name for t in client.topologies()] == ["numbers"]


def test_of_many_submits_at_once_one_is_accepted(tmp_path: Path, numbers: Topology) -> None:
    with nimbus(tmp_path / "state") as service:
        outcomes: list[str] = []

        def one() -> None:
            with Client(service.address) as client:
                try:
                    client.submit(numbers)
                    outcomes.append("accepted")
                except TopologyExists:
                    outcomes.append("exists")

        threads = [threading.Thread(target=one) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(outcomes) == ["accepted"] + ["exists"] * 19


def test_a_second_nimbus_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with nimbus(tmp_path / "state") as service, Client(service.address) as client:
        with pytest.raises(StateLocked, match=f"state.db is locked by pid {os.getpid()} on host"):
            Service(service.config)
        port = int(service.address.rpartition(":")[2])
        with pytest.raises(Refused, match=str(port)):
            Service(Config.layer({"state.dir": str(tmp_path / "other"), "nimbus.port": port}))
        assert client.topologies() == ()
        Service(Config.layer({"state.dir": str(tmp_path / "other"), "nimbus.port": 0})).close()


def test_nobody_there_is_said_in_time() -> None:
    began = CLOCK.now()
    with Client("127.0.0.1:1") as client, pytest.raises(ClusterUnavailable, match=r"no Nimbus answers at 127\S+:1\."):
        client.topologies()
    assert CLOCK.now() - began < 5.0


NIMBUS = """
import sys
from rainband.config import Config
from rainband.nimbus import service
original = service.Service.serve
def serve(self):
    print(self.address, flush=True)
    original(self)
service.Service.serve = serve
service.run(Config.layer({"state.dir": sys.argv[1], "nimbus.port": 0}))
"""
WRITER = """
import sys
from rainband.cluster.sqlite import SqliteStore
from rainband.cluster.store import Delete, Put
store = SqliteStore(sys.argv[1])
epoch = store.lead()
number = int(store.read_all().values.get("counter", b"0"))
print("ready", flush=True)
while True:
    number += 1
    value = b"%d" % number
    store.write(epoch, [
        Put("counter", value), Put("plan/a", value * 3000), Put("topology/a", value),
        Delete(f"topology/b{number - 1}"), Put(f"topology/b{number}", value),
    ])
    print(number, flush=True)
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], 30)
    assert ready, "it never began"
    return process.stdout.readline().strip()


@pytest.mark.faults
def test_a_writer_killed_at_any_moment_leaves_before_or_after(tmp_path: Path) -> None:
    from rainband.cluster.sqlite import SqliteStore

    dice = random.Random(1)
    for _ in range(8):
        with start(WRITER, str(tmp_path)) as process:
            assert first_line(process) == "ready"
            threading.Event().wait(dice.uniform(0.0, 0.05))
            process.kill()
            assert process.stdout is not None
            printed = process.stdout.read().split()
        with_answers = [int(word) for word in printed]
        store = SqliteStore(tmp_path)
        values = store.read_all().values
        store.close()
        number = int(values.get("counter", b"0"))
        if with_answers:
            assert number in (with_answers[-1], with_answers[-1] + 1)
        if number:
            value = b"%d" % number
            assert values == {
                "counter": value, "plan/a": value * 3000, "topology/a": value, f"topology/b{number}": value
            }


@pytest.mark.faults
def test_a_nimbus_killed_at_any_moment_has_the_topology_or_not(tmp_path: Path, numbers: Topology) -> None:
    """What was answered is there; what was not answered is there whole, or not at all."""
    dice = random.Random(2)
    submitted: set[str] = set()
    answered: set[str] = set()
    for turn in range(4):
        with start(NIMBUS, str(tmp_path / "state")) as process:
            try:
                address = first_line(process)
                with Client(address, timeout_s=2.0) as client:
                    listed = {t.name for t in client.topologies()}
                    assert answered <= listed <= submitted
                    for name in listed:
                        summary = client.topology(name).summary()
                        assert uploaded(client._rpc, Plan.decode(summary.plan).bundle)
                    killer = threading.Timer(dice.uniform(0.0, 0.15), process.kill)
                    killer.start()
                    try:
                        for number in range(50):
                            name = f"t-{turn}-{number}"
                            submitted.add(name)
                            client.submit(numbers, name=name)
                            answered.add(name)
                    except ClusterUnavailable:
                        pass
                    killer.join()
            finally:
                process.kill()
    assert answered


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 1)])
def test_it_stops_within_a_second_when_told_to(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with start(NIMBUS, str(tmp_path / "state")) as process:
        address = first_line(process)
        with Client(address) as client:
            client.topologies()
            began = CLOCK.now()
            process.send_signal(number)
            if number == signal.SIGTERM:
                assert process.wait(10) == code
            else:
                assert process.wait(10) in (code, 130, -signal.SIGINT)
            assert CLOCK.now() - began < 1.5
