"""Nimbuses on hosts of their own (network namespaces, keys required), cut off from ZooKeeper or from each other.

And two more hosts with supervisors, on which a topology works all the time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from kit import zookeeper
from kit.chaos import SHORT, Case, now
from kit.chaos_host import Hosts, needs_ip
from kit.clusters import heartbeat, word_count
from kit.nimbuses import Nimbuses
from kit.shared import Shared
from rainband.errors import NotAllowed, NotCopied
from rainband.messaging.rpc import RpcClient
from rainband.nimbus.client import Client
from rainband.records import Done, Kill, ListTopologies, Submit, Topologies, Upload

zookeeper.require()
pytestmark = [pytest.mark.faults, needs_ip]

COUNT = 3
STORE = COUNT + 1
WORKING = (STORE + 1, STORE + 2)
SESSION_S = 4.0
STANDSTILL_S = 2.0
BUNDLE = b"PK"
DIGEST = hashlib.sha256(BUNDLE).hexdigest()


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with Hosts(WORKING[-1]) as made:
        yield made


@pytest.fixture(scope="module")
def nimbuses(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nimbuses]:
    """Nimbuses 0, 1, 2 on hosts 1, 2, 3; ZooKeeper on host 4; the test on host 0."""
    directory = tmp_path_factory.mktemp("hosts")
    where = [hosts.address(number) for number in range(1, COUNT + 1)]
    how = [hosts.prefix(number) for number in range(1, COUNT + 1)]
    with (
        zookeeper.ensemble(directory / "zk", host=hosts.address(STORE), prefix=hosts.prefix(STORE)) as ensemble,
        Nimbuses(directory / "n", ensemble.url(), COUNT, hosts=where, prefixes=how, keys=True) as made,
    ):
        made.start(*range(COUNT))
        made.wait_members(COUNT)
        yield made


@pytest.fixture(scope="module")
def cluster(nimbuses: Nimbuses, hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    names = {f"supervisor-{n}": host for n, host in enumerate(WORKING, 1)}
    extra = {name: {"supervisor.host": hosts.address(host)} for name, host in names.items()}
    prefix = {name: hosts.prefix(host) for name, host in names.items()}
    directory = tmp_path_factory.mktemp("working")
    with Shared(directory, nimbuses, supervisors=2, slots=4, settings=SHORT, extra=extra, prefix=prefix) as made:
        yield made
        made.end_cleanly()


@pytest.fixture
def rpc(nimbuses: Nimbuses) -> Iterator[RpcClient]:
    client = RpcClient(nimbuses.seeds, keys=nimbuses.keys)
    yield client
    client.close()


@pytest.mark.parametrize("one_way", [False, True], ids=["both ways", "one way"])
def test_f21_leader_cut_off_from_zookeeper(nimbuses: Nimbuses, hosts: Hosts, rpc: RpcClient, one_way: bool) -> None:
    """It leads no more before another does, though people and supervisors reach it all the time."""
    rpc.call(heartbeat("a", ports=()))
    first = nimbuses.leader()
    others = [number for number in range(COUNT) if number != first]
    hosts.cut(first + 1, STORE, one_way=one_way)
    at = led_at = now()
    try:
        second: int | None = None
        while second is None:
            assert now() - at < SESSION_S + 3.0, nimbuses.logs()
            if leads(nimbuses, first):
                led_at = now()
            second = next((number for number in others if leads(nimbuses, number)), None)
        next_at = now()
        assert led_at < next_at
        assert not leads(nimbuses, first)
        print(f"led for {led_at - at:.2f} s more; the next one after {next_at - at:.2f} s")
        assert "stale leader" in nimbuses.log(first)
        rpc.call(heartbeat("a", ports=()))
        assert rpc.leader == nimbuses.seeds[second]
    finally:
        hosts.heal(first + 1, STORE)
    nimbuses.wait_members(COUNT)
    assert nimbuses.leader() == second


def test_f23_nobody_sees_anybody_but_zookeeper(
    nimbuses: Nimbuses, hosts: Hosts, rpc: RpcClient, case: Case, cluster: Shared
) -> None:
    """One leader; what one machine alone would hold is refused, and nothing of it is seen. Tuples do not notice.

    Each Nimbus sees no other one, and each supervisor two of the three: no two views are the same.
    """
    first = nimbuses.leader()
    others = [number + 1 for number in range(COUNT) if number != first]
    pairs = [(1, 2), (2, 3), (1, 3), *zip(WORKING, others, strict=True)]
    before, placed = {w.pid for w in case.workers()}, case.assignment().placements
    alive = cluster.alive_supervisors()
    case.fault()
    for one, other in pairs:
        hosts.cut(one, other)
    try:
        case.wait_flowing()
        rpc.call(Upload(DIGEST, 0, BUNDLE, True))
        with pytest.raises(NotCopied, match="is on this Nimbus only"):
            rpc.call(Submit("alone", word_count("alone", bundle=DIGEST).encode()))
        listed = rpc.call(ListTopologies())
        assert isinstance(listed, Topologies)
        assert [topology.name for topology in listed.topologies] == [case.name]
        assert nimbuses.leader() == first
        assert [number for number in range(COUNT) if leads(nimbuses, number)] == [first]
        assert cluster.alive_supervisors() == alive
    finally:
        for one, other in pairs:
            hosts.heal(one, other)
    nimbuses.wait_members(COUNT)
    assert nimbuses.leader() == first
    case.wait_flowing()
    case.mended()
    verdict = case.judge()
    assert verdict["again"] == 0, verdict
    assert verdict["standstill_s"] <= STANDSTILL_S, verdict
    assert {w.pid for w in case.workers()} == before
    assert case.assignment().placements == placed
    assert isinstance(rpc.call(Submit("alone", word_count("alone", bundle=DIGEST).encode())), Done)
    copies = [path for path in nimbuses.directory.glob(f"*/nimbus/blobs/{DIGEST}") if path.is_file()]
    assert len(copies) >= 2
    rpc.call(Kill("alone", 0.0))


def test_without_the_keys_nobody_is_heard(nimbuses: Nimbuses) -> None:
    with Client(nimbuses.seeds[0], timeout_s=1.0) as stranger, pytest.raises(NotAllowed):
        stranger.topologies()


def leads(nimbuses: Nimbuses, number: int) -> bool:
    """Whether it says of itself that it leads."""
    found = nimbuses.summary(number, timeout_s=0.3)
    return found is not None and found.leader == nimbuses.seeds[number]
