"""Several Nimbuses on a real ZooKeeper: who leads, who follows, and what happens when either dies."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import zookeeper
from kit.clusters import beat, heartbeat, word_count
from kit.nimbuses import Nimbuses, connected, wait
from kit.zookeeper import Ensemble
from rainband.errors import ClusterUnavailable, RainbandError
from rainband.messaging.rpc import RpcClient
from rainband.nimbus.client import upload, uploaded
from rainband.records import (
    Done,
    Download,
    Heartbeat,
    HeartbeatReply,
    Kill,
    ListTopologies,
    Submit,
    Topologies,
    WorkerBeat,
)

zookeeper.require()
pytestmark = pytest.mark.faults
ROOTS = itertools.count()
BUNDLE = b"PK of a bundle" * 100_000


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ensemble]:
    with zookeeper.ensemble(tmp_path_factory.mktemp("zookeeper")) as made:
        yield made


@pytest.fixture
def nimbuses(ensemble: Ensemble, tmp_path: Path) -> Iterator[Nimbuses]:
    with Nimbuses(tmp_path / "nimbuses", ensemble.url(f"/several-{next(ROOTS)}"), 2) as made:
        yield made


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def report(rpc: RpcClient, *workers: WorkerBeat) -> HeartbeatReply:
    answer = rpc.call(heartbeat("a", *workers))
    assert isinstance(answer, HeartbeatReply)
    return answer


def submit(rpc: RpcClient, name: str = "wc") -> str:
    digest = digest_of(BUNDLE)
    if not uploaded(rpc, digest):
        upload(rpc, digest, BUNDLE, None)
    done = rpc.call(Submit(name, word_count(name, bundle=digest).encode()))
    assert isinstance(done, Done)
    return done.topology_id


def names(rpc: RpcClient) -> list[str]:
    answer = rpc.call(ListTopologies())
    assert isinstance(answer, Topologies)
    return [topology.name for topology in answer.topologies]


def has_copy(address: str) -> bool:
    with connected([address]) as peer:
        try:
            peer.call(Download(digest_of(BUNDLE), 0, 0, here=True))
        except RainbandError:
            return False
        return True


def test_a_killed_and_a_stopped_leader_are_followed_without_a_move(nimbuses: Nimbuses) -> None:
    """F12, A1, A6-A8: same assignment, same bundle, the wait of a kill goes on."""
    nimbuses.start(0, 1)
    nimbuses.wait_members(2)
    first = nimbuses.leader()
    second = 1 - first
    with connected(nimbuses.seeds) as rpc:
        report(rpc)
        submit(rpc)
        (assignment,) = report(rpc).assignments
        assert has_copy(nimbuses.seeds[first])
        assert has_copy(nimbuses.seeds[second])
        rpc.call(Kill("wc", 60.0))

        at = nimbuses.kill(first)
        assert nimbuses.leader(15.0, but=first) == second
        print(f"leader killed, next acts after {time.monotonic() - at:.2f} s (session 4 s)")
        assert time.monotonic() - at < 6.0
        worker = beat(assignment.topology_id, assignment.slots()[0].port)
        again = report(rpc, worker)
        assert again.epoch > assignment.epoch
        assert again.wanted == (assignment.topology_id,)
        assert again.assignments[0].placements == assignment.placements
        assert uploaded(rpc, digest_of(BUNDLE))
        answer = rpc.call(ListTopologies())
        assert isinstance(answer, Topologies)
        assert answer.topologies[0].due_s is not None
        assert 30.0 < answer.topologies[0].due_s <= 60.0

        nimbuses.start(first)
        nimbuses.wait_members(2)
        at = nimbuses.terminate(second)
        assert nimbuses.leader(5.0, but=second) == first
        print(f"leader stopped, next acts after {time.monotonic() - at:.2f} s")
        assert time.monotonic() - at < 1.5
        last = report(rpc, worker)
        assert last.epoch > again.epoch
        assert last.assignments[0].placements == assignment.placements
        assert names(rpc) == ["wc"]


def test_a_leader_that_was_stopped_too_long_finds_itself_replaced(nimbuses: Nimbuses) -> None:
    """F13: after SIGCONT it says so, and changes nothing."""
    nimbuses.start(0, 1)
    nimbuses.wait_members(2)
    first = nimbuses.leader()
    second = 1 - first
    with connected(nimbuses.seeds) as rpc:
        report(rpc)
    nimbuses.stop(first)
    try:
        assert nimbuses.leader(15.0, but=first) == second
        with connected([nimbuses.seeds[second]]) as rpc:
            report(rpc)
            submit(rpc)
    finally:
        nimbuses.go_on(first)
    with connected([nimbuses.seeds[first]]) as rpc:
        assert names(rpc) == ["wc"]
        assert rpc.leader == nimbuses.seeds[second]
    assert "stale leader" in nimbuses.log(first)
    nimbuses.wait_members(2)
    nimbuses.terminate(second)
    assert nimbuses.leader(5.0, but=second) == first


def test_without_a_store_nothing_changes_and_everything_comes_back(tmp_path: Path) -> None:
    """F17 (shortened), F19: its data wiped, nobody schedules over what runs."""
    with (
        zookeeper.ensemble(tmp_path / "zookeeper") as ensemble,
        Nimbuses(tmp_path / "nimbuses", ensemble.url(), 2) as nimbuses,
    ):
        nimbuses.start(0, 1)
        nimbuses.wait_members(2)
        with connected(nimbuses.seeds) as rpc:
            report(rpc)
            submit(rpc)
            (assignment,) = report(rpc).assignments
            ensemble.kill()
            at = time.monotonic()
            with pytest.raises(ClusterUnavailable, match="state store unavailable"):
                rpc.call(Kill("wc", 0.0))
            with pytest.raises(ClusterUnavailable):
                submit(rpc, "other")
            assert time.monotonic() - at < 10.0
            wait(lambda: unavailable(rpc), 10.0)
            at = time.monotonic()
            with pytest.raises(ClusterUnavailable, match="state store unavailable"):
                rpc.call(Kill("wc", 0.0))
            assert time.monotonic() - at < 5.0
            ensemble.start()
            healed = time.monotonic()
            nimbuses.leader(10.0)
            print(f"a leader {time.monotonic() - healed:.2f} s after ZooKeeper was back")
            reply = report(rpc, beat(assignment.topology_id, assignment.slots()[0].port))
            assert reply.cluster_id
            known: Heartbeat = heartbeat("a", cluster_id=reply.cluster_id)
            assert isinstance(rpc.call(known), HeartbeatReply)

        ensemble.kill()
        for log in (ensemble.servers[0].data / "version-2").iterdir():
            log.unlink()
        ensemble.start()
        for number in (0, 1):
            assert nimbuses.processes[number].wait(20) == 3
            assert "cluster id mismatch" in nimbuses.log(number)
            nimbuses.processes.pop(number)
        nimbuses.start(0)
        assert nimbuses.processes.pop(0).wait(20) == 3

        fresh = Nimbuses(tmp_path / "fresh", ensemble.url(), 1)
        with fresh, connected(fresh.seeds) as rpc:
            fresh.start(0)
            fresh.leader()
            with pytest.raises(RainbandError, match="cluster id mismatch"):
                rpc.call(known)
            assert fresh.summary().supervisors == ()  # type: ignore[union-attr]


def unavailable(rpc: RpcClient) -> bool:
    try:
        rpc.call(ListTopologies(), timeout_s=1.0)
    except ClusterUnavailable as error:
        return "state store unavailable" in str(error)
    return False
