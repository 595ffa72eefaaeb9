"""Several Nimbuses on a real ZooKeeper: who leads, who follows, and what happens when either dies."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from kit import zookeeper
from kit.clusters import beat, heartbeat, word_count
from kit.nimbuses import Nimbuses, connected, wait
from kit.zookeeper import Ensemble
from rainband.cluster.zookeeper import ZooKeeperStore
from rainband.errors import ClusterUnavailable, NotCopied, RainbandError, Refused, TopologyExists
from rainband.messaging.rpc import RpcClient
from rainband.nimbus.client import Client, deliver, upload, uploaded
from rainband.records import (
    ClusterSummary,
    Done,
    Download,
    HeartbeatReply,
    Kill,
    ListTopologies,
    Submit,
    Topologies,
    WorkerBeat,
)
from rainband.supervisor import ports

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
    while True:
        try:
            done = rpc.call(Submit(name, word_count(name, bundle=digest).encode()))
        except NotCopied:
            continue
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


def test_on_a_restored_zookeeper_one_leads_above_what_supervisors_have_heard(nimbuses: Nimbuses) -> None:
    nimbuses.start(0, 1)
    nimbuses.wait_members(2)
    with connected(nimbuses.seeds) as rpc:
        first = report(rpc)
        heard = msgspec.structs.replace(heartbeat(), leader=(first.cluster_id, first.epoch + 40))

        def reply() -> HeartbeatReply | None:
            with contextlib.suppress(ClusterUnavailable):
                answer = rpc.call(heard)
                assert isinstance(answer, HeartbeatReply)
                return answer if answer.epoch > first.epoch + 40 else None
            return None

        began = time.monotonic()
        wait(lambda: reply() is not None, 20.0)
        print(f"obeyed again after {time.monotonic() - began:.2f} s")


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


def test_bundles_are_on_two_and_come_back_where_they_are_missing(nimbuses: Nimbuses) -> None:
    """A leader without a bundle leads all the same, and fetches it."""
    nimbuses.start(0, 1)
    nimbuses.wait_members(2)
    with connected(nimbuses.seeds) as rpc:
        report(rpc)
        submit(rpc)
        assert all(has_copy(seed) for seed in nimbuses.seeds)
        follower = 1 - nimbuses.leader()
        nimbuses.kill(follower)
        with pytest.raises(NotCopied, match="is on this Nimbus only: no other place takes a copy"):
            rpc.call(Submit("too-soon", word_count("too-soon", bundle=digest_of(BUNDLE)).encode()))
        assert names(rpc) == ["wc"]
        at = time.monotonic()
        submit(rpc, "while-one-is-dead")
        assert time.monotonic() - at < 4.0  # by then the session of the dead is over: one is all there is

    nimbuses.terminate(1 - follower)
    for stored in (nimbuses.directory / "0" / "nimbus" / "blobs").glob("[0-9a-f]*"):
        stored.unlink()
    nimbuses.start(0)
    assert nimbuses.leader() == 0
    with connected([nimbuses.seeds[0]]) as rpc:
        assert names(rpc) == ["wc", "while-one-is-dead"]
        assert not uploaded(rpc, digest_of(BUNDLE))
        nimbuses.start(1)
        wait(lambda: uploaded(rpc, digest_of(BUNDLE)), 10.0, nimbuses.logs)
        assert rpc.leader == nimbuses.seeds[0]


def test_two_that_call_themselves_the_same_are_told(nimbuses: Nimbuses) -> None:
    """As with a nimbus.host of 127.0.0.1 on two machines."""
    with contextlib.closing(ZooKeeperStore(nimbuses.url, "rainband:a secret of the tests")) as elsewhere:
        elsewhere.stand(nimbuses.seeds[0], lambda: None)
        wait(lambda: elsewhere.standing(time.monotonic()).leads, 10.0)
        nimbuses.start(0)
        said = f"a Nimbus that leads calls itself {nimbuses.seeds[0]}, as this one does"

        def told() -> bool:
            with connected([nimbuses.seeds[0]], 1.0) as rpc, pytest.raises(ClusterUnavailable) as caught:
                rpc.call(ListTopologies())
            return said in str(caught.value) and "a nimbus.host of its own" in caught.value.fix

        wait(told, 20.0, nimbuses.logs)


def test_a_leader_that_dies_in_a_submit_is_waited_for(nimbuses: Nimbuses) -> None:
    """Half of the code had come to it; the next one is sent the whole."""
    nimbuses.start(0, 1)
    nimbuses.wait_members(2)
    first = nimbuses.leader()

    def kill(sent: int, total: int) -> None:
        if sent < total and first in nimbuses.processes:
            nimbuses.kill(first)

    digest = digest_of(BUNDLE)
    with connected(nimbuses.seeds) as rpc:
        request = Submit("wc", word_count("wc", bundle=digest).encode(), token="of this submit")
        done = deliver(rpc, request, digest, BUNDLE, kill)
        assert first not in nimbuses.processes
        assert nimbuses.leader() == 1 - first
        assert names(rpc) == ["wc"]
        assert rpc.call(request) == done
        with pytest.raises(TopologyExists):
            rpc.call(msgspec.structs.replace(request, token="of another"))


def test_why_no_other_nimbus_takes_a_copy_is_said(nimbuses: Nimbuses) -> None:
    nimbuses.start(0, 1)
    nimbuses.wait_members(2)
    follower = 1 - nimbuses.leader()
    stored = nimbuses.directory / str(follower) / "nimbus" / "blobs"
    (stored / "incoming").rmdir()
    stored.rmdir()
    stored.touch()
    with connected(nimbuses.seeds) as rpc:
        upload(rpc, digest_of(BUNDLE), BUNDLE, None)
        why = rf"no other place takes a copy \({nimbuses.seeds[follower]}: .*blobs: Not a directory\)"
        with pytest.raises(NotCopied, match=why):
            rpc.call(Submit("wc", word_count("wc", bundle=digest_of(BUNDLE)).encode()))


def test_bundles_lie_at_a_shared_url_and_come_back_from_there(ensemble: Ensemble, tmp_path: Path) -> None:
    """One Nimbus is enough then: the next on an empty disk has all of it."""
    shared, digest = tmp_path / "shared", digest_of(BUNDLE)
    settings = {"nimbus.bundles.url": shared.as_uri()}
    with Nimbuses(tmp_path / "nimbuses", ensemble.url("/with/a/depot"), 2, settings) as nimbuses:
        nimbuses.start(0)
        assert nimbuses.leader() == 0
        shared.touch()  # a file in its place: nothing can be kept there
        with connected([nimbuses.seeds[0]]) as rpc:
            report(rpc)
            upload(rpc, digest, BUNDLE, None)
            with pytest.raises(NotCopied, match=r"on this Nimbus only: no other place takes a copy \(file://.*shared"):
                rpc.call(Submit("too-soon", word_count("too-soon", bundle=digest).encode()))
            assert names(rpc) == []
            shared.unlink()
            submit(rpc)
            assert (shared / digest).read_bytes() == BUNDLE
        nimbuses.kill(0)
        nimbuses.start(1)
        assert nimbuses.leader() == 1
        with connected([nimbuses.seeds[1]]) as rpc:
            wait(lambda: names(rpc) == ["wc"] and uploaded(rpc, digest), 20.0, nimbuses.logs)


def test_wiped_data_stop_everybody_who_remembers(tmp_path: Path) -> None:
    """F19: nobody schedules over what runs, and a stranger does not take the supervisors over."""
    with (
        zookeeper.ensemble(tmp_path / "zookeeper") as ensemble,
        Nimbuses(tmp_path / "nimbuses", ensemble.url(), 2) as nimbuses,
    ):
        nimbuses.start(0, 1)
        nimbuses.wait_members(2)
        with connected(nimbuses.seeds) as rpc:
            known = heartbeat("a", cluster_id=report(rpc).cluster_id)
            assert isinstance(rpc.call(known), HeartbeatReply)
        ensemble.kill()
        for log in (ensemble.servers[0].data / "version-2").iterdir():
            log.unlink()
        ensemble.start()
        for number in (0, 1):
            assert nimbuses.processes[number].wait(20) == 3
            assert "cluster id mismatch" in nimbuses.log(number)
        nimbuses.start(0)
        assert nimbuses.processes[0].wait(20) == 3

        with Nimbuses(tmp_path / "fresh", ensemble.url(), 1) as fresh, connected(fresh.seeds) as rpc:
            fresh.start(0)
            fresh.leader()
            with pytest.raises(Refused, match="cluster id mismatch"):
                rpc.call(known)
            summary = fresh.summary()
            assert summary is not None
            assert summary.supervisors == ()


def test_the_command_line_takes_the_address(ensemble: Ensemble, tmp_path: Path) -> None:
    auth = tmp_path / "auth"
    auth.touch(mode=0o600)
    auth.write_text("rainband:a secret of the tests\n")
    port = ports.choose(1, "127.0.0.1")[0]
    argv = [sys.executable, "-m", "rainband", "nimbus", "--port", str(port), "--state", ensemble.url("/of/a/command")]
    argv += ["-c", f"state.dir={tmp_path / 'state'}", "-c", f"nimbus.zookeeper.auth.file={auth}"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        try:
            with Client(f"127.0.0.1:{port}") as client:
                summary = wait(lambda: led(client), 20.0)
            assert (summary.state, summary.nimbuses) == ("zookeeper", (f"127.0.0.1:{port}",))
            process.terminate()
            assert process.wait(5) == 0
        finally:
            process.kill()
    auth.chmod(0o644)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.returncode == 5
    assert "are open to other users. Run: chmod 600" in done.stderr
    assert "a secret" not in done.stderr


def led(client: Client) -> ClusterSummary | None:
    try:
        return client.cluster()
    except ClusterUnavailable:
        return None
