"""Nimbuses on hosts of their own (network namespaces, keys required), cut off from ZooKeeper or from each other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from kit import zookeeper
from kit.chaos import now
from kit.chaos_host import Hosts, needs_ip
from kit.clusters import heartbeat, word_count
from kit.nimbuses import Nimbuses
from rainband.errors import NotAllowed, NotCopied
from rainband.messaging.rpc import RpcClient
from rainband.nimbus.client import Client
from rainband.records import Done, ListTopologies, Submit, Topologies, Upload

zookeeper.require()
pytestmark = [pytest.mark.faults, needs_ip]

COUNT = 3
STORE = COUNT + 1
SESSION_S = 4.0
BUNDLE = b"PK"
DIGEST = hashlib.sha256(BUNDLE).hexdigest()


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with Hosts(STORE) as made:
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


@pytest.fixture
def rpc(nimbuses: Nimbuses) -> Iterator[RpcClient]:
    client = RpcClient(nimbuses.seeds, keys=nimbuses.keys)
    yield client
    client.close()


@pytest.mark.parametrize("one_way", [False, True], ids=["both ways", "one way"])
def test_f21_leader_cut_off_from_zookeeper(nimbuses: Nimbuses, hosts: Hosts, rpc: RpcClient, one_way: bool) -> None:
    """It leads no more before another does, though people and supervisors reach it all the time."""
    rpc.call(heartbeat("a"))
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
        rpc.call(heartbeat("a"))
        assert rpc.leader == nimbuses.seeds[second]
    finally:
        hosts.heal(first + 1, STORE)
    nimbuses.wait_members(COUNT)
    assert nimbuses.leader() == second


def test_f23_nobody_sees_anybody_but_zookeeper(nimbuses: Nimbuses, hosts: Hosts, rpc: RpcClient) -> None:
    """One leader; what one machine alone would hold is refused, and nothing of it is seen."""
    first = nimbuses.leader()
    pairs = [(1, 2), (2, 3), (1, 3)]
    for one, other in pairs:
        hosts.cut(one, other)
    try:
        rpc.call(heartbeat("a"))
        rpc.call(Upload(DIGEST, 0, BUNDLE, True))
        with pytest.raises(NotCopied, match="is on this Nimbus only"):
            rpc.call(Submit("alone", word_count("alone", bundle=DIGEST).encode()))
        assert rpc.call(ListTopologies()) == Topologies()
        assert nimbuses.leader() == first
    finally:
        for one, other in pairs:
            hosts.heal(one, other)
    nimbuses.wait_members(COUNT)
    assert nimbuses.leader() == first
    assert isinstance(rpc.call(Submit("alone", word_count("alone", bundle=DIGEST).encode())), Done)
    copies = [path for path in nimbuses.directory.glob(f"*/nimbus/blobs/{DIGEST}") if path.is_file()]
    assert len(copies) >= 2


def test_without_the_keys_nobody_is_heard(nimbuses: Nimbuses) -> None:
    with Client(nimbuses.seeds[0], timeout_s=1.0) as stranger, pytest.raises(NotAllowed):
        stranger.topologies()


def leads(nimbuses: Nimbuses, number: int) -> bool:
    """Whether it says of itself that it leads."""
    found = nimbuses.summary(number, timeout_s=0.3)
    return found is not None and found.leader == nimbuses.seeds[number]
