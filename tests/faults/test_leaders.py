"""Two Nimbuses on a real ZooKeeper under a topology that works: leaders, servers and data go, tuples do not notice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from kit import leftovers, zookeeper
from kit.chaos import PROJECT, SHORT, Case, imported, now, wait
from kit.nimbuses import Nimbuses
from kit.shared import Shared
from kit.zookeeper import Ensemble
from rainband.errors import ClusterUnavailable
from rainband.nimbus.client import Client, Running
from rainband.topology.graph import Topology
from rainband.topology.plan import Plan

zookeeper.require()
pytestmark = pytest.mark.faults

STANDSTILL_S = 2.0
SESSION_S = 4.0
LEASE_S = float(SHORT["nimbus.supervisor.timeout.secs"])
AWAY_S = 1.0
HEALED_S = 10.0
REFUSED_S = 5.0
CHANGED_S = 5.0


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ensemble]:
    with zookeeper.ensemble(tmp_path_factory.mktemp("zookeeper"), 3) as made:
        yield made


@pytest.fixture(scope="module")
def cluster(ensemble: Ensemble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    directory = tmp_path_factory.mktemp("leaders")
    settings = {**SHORT, "nimbus.zookeeper.session.secs": SESSION_S}
    with Nimbuses(directory / "nimbuses", ensemble.url(), 2, settings) as nimbuses:
        nimbuses.start(0, 1)
        nimbuses.wait_members(2)
        with Shared(directory / "arena", nimbuses, supervisors=2, slots=4, settings=SHORT) as made:
            yield made
            made.end_cleanly()


class Calm:
    """What must not change while something happens to the control plane."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.pids = {w.pid for w in case.workers()}
        self.placements = case.assignment().placements
        case.fault()

    def check(self) -> None:
        case = self.case
        wait(lambda: {w.pid for w in case.workers()} == self.pids, 10, case.explain)
        assert case.assignment().placements == self.placements
        verdict = case.judge()
        print(case.name, verdict)
        assert verdict["again"] == 0, verdict
        assert verdict["standstill_s"] <= STANDSTILL_S, verdict
        assert case.statistics().restarts == 0


def test_f12_killed_and_stopped_leader(case: Case, cluster: Shared) -> None:
    nimbuses, calm = cluster.nimbuses, Calm(case)
    first = nimbuses.leader()
    at = nimbuses.kill(first)
    second = nimbuses.leader(but=first)
    assert now() - at <= SESSION_S + 2.0
    cluster.wait_supervisors(2)
    nimbuses.start(first)
    nimbuses.wait_members(2)
    at = nimbuses.terminate(second)
    nimbuses.leader(but=second)
    assert now() - at <= 1.5
    cluster.wait_supervisors(2)
    nimbuses.start(second)
    case.wait_flowing()
    calm.check()


def test_f16_killed_leader_of_zookeeper(case: Case, cluster: Shared, ensemble: Ensemble) -> None:
    calm = Calm(case)
    nimbuses = {number: process.pid for number, process in cluster.nimbuses.processes.items()}
    victim = ensemble.leader()
    victim.kill()
    at = now()
    cluster.nimbuses.leader()
    case.running.deactivate()
    case.running.activate()
    print(f"commands work again {now() - at:.2f} s after")
    assert now() - at <= CHANGED_S
    victim.start()
    case.wait_flowing()
    assert {number: process.pid for number, process in cluster.nimbuses.processes.items()} == nimbuses
    assert all(process.poll() is None for process in cluster.nimbuses.processes.values())
    victim.wait_serving()
    calm.check()


def test_f17_all_of_zookeeper_away(case: Case, cluster: Shared, ensemble: Ensemble) -> None:
    calm = Calm(case)
    ensemble.kill()
    wait(lambda: unavailable(case), 10.0)
    until = now() + AWAY_S
    while now() < until:
        with ThreadPoolExecutor(len(COMMANDS)) as threads:
            took_s = dict(zip(COMMANDS, threads.map(partial(refused_after, case), COMMANDS), strict=True))
        print(f"refused after {took_s}")
        assert max(took_s.values()) <= REFUSED_S
        case.wait_flowing()
    ensemble.start()
    at = now()
    cluster.nimbuses.leader()
    cluster.wait_supervisors(2)
    print(f"healed within {now() - at:.2f} s")
    assert now() - at <= HEALED_S
    assert [topology.name for topology in cluster.client.topologies()] == [case.name]
    assert case.statistics().status == "ACTIVE"
    calm.check()


def submit(case: Case, running: Running, client: Client) -> None:
    with imported(PROJECT) as module:
        topology: Topology = module.chain("too-early", str(case.directory), 1.0, {"topology.workers": 1})
        client.submit(topology, project=PROJECT)


COMMANDS: dict[str, Callable[[Case, Running, Client], object]] = {
    "submit": submit,
    "kill": lambda case, running, client: running.kill(wait_s=0),
    "rebalance": lambda case, running, client: running.rebalance(workers=2, wait_s=0),
    "deactivate": lambda case, running, client: running.deactivate(),
    "activate": lambda case, running, client: running.activate(),
}


def refused_after(case: Case, name: str) -> float:
    """How long it takes until somebody who commands it is told that there is no state store."""
    with Client(*case.arena.nimbuses.seeds) as client:  # type: ignore[attr-defined]
        at = now()
        with pytest.raises(ClusterUnavailable, match="state store unavailable"):
            COMMANDS[name](case, Running(case.name, client._rpc), client)
        return now() - at


def test_f13_leader_stands_still_past_its_session(case: Case, cluster: Shared) -> None:
    """Supervisors leave it for the next leader before their own short lease is over: nothing moves."""
    nimbuses, calm = cluster.nimbuses, Calm(case)
    first = nimbuses.leader()
    nimbuses.stop(first)
    try:
        second = nimbuses.leader(but=first)
        at = now()
        cluster.wait_supervisors(2)
        wait(lambda: now() >= at + 1.5 * LEASE_S, 2 * LEASE_S)
        assert cluster.alive_supervisors() == 2
        case.wait_flowing()
    finally:
        nimbuses.go_on(first)
    nimbuses.wait_members(2)
    assert nimbuses.leader() == second
    assert "stale leader" in nimbuses.log(first)
    calm.check()


def test_f18_every_session_expires_once(case: Case, cluster: Shared) -> None:
    """A new session stands for election anew, with everything there is to know read again."""
    calm = Calm(case)
    first = cluster.nimbuses.leader()
    at = now()
    for number in (first, 1 - first):
        cluster.nimbuses.stop(number)
        cluster.nimbuses.leader(but=number)
        cluster.nimbuses.go_on(number)
        cluster.nimbuses.wait_members(2)
    print(f"both sessions expired and were replaced within {now() - at:.1f} s")
    cluster.wait_supervisors(2)
    case.running.deactivate()
    case.running.activate()
    case.wait_flowing()
    calm.check()


@pytest.mark.slow
def test_bundles_that_every_nimbus_lost_come_back_from_a_supervisor(case: Case, cluster: Shared) -> None:
    calm, nimbuses = Calm(case), cluster.nimbuses
    bundle = Plan.decode(case.running.summary().plan).bundle
    stored = [nimbuses.directory / str(number) / "nimbus" / "blobs" / bundle for number in (0, 1)]
    for number, path in enumerate(stored):
        nimbuses.kill(number)
        path.unlink()
        nimbuses.start(number)
    nimbuses.leader()
    cluster.wait_supervisors(2)
    wait(lambda: all(path.is_file() for path in stored), 40.0, nimbuses.logs)
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == bundle for path in stored)
    sent = [line for name in cluster.names[1:] for line in cluster.logged(name, "sent bundle", bundle[:12])]
    assert sent
    calm.check()


def test_f56_every_daemon_restarted_in_turn(case: Case, cluster: Shared) -> None:
    calm = Calm(case)
    others = []
    for number in (0, 1):
        cluster.nimbuses.terminate(number)
        others.append(cluster.case(f"f56-without-{number}", shape="chain", workers=1))
        cluster.nimbuses.start(number)
        cluster.nimbuses.wait_members(2)
        case.wait_flowing(100)
    for name in cluster.names[1:]:
        assert cluster.terminate(name) == 0
        cluster.start(name)
        cluster.wait_supervisors(2)
        case.wait_flowing(100)
    for other in others:
        other.wait_flowing(50)
        assert other.judge()["again"] == 0
        other.kill()
    calm.check()


def test_a22_credentials_for_zookeeper_are_in_their_file_only(case: Case, cluster: Shared) -> None:
    nimbuses = cluster.nimbuses
    secret = nimbuses.credentials.partition(":")[2].encode()
    daemons = [process.pid for process in nimbuses.processes.values()]
    for pid in [*daemons, *(child.pid for child in cluster.children.values()), *(w.pid for w in case.workers())]:
        for name in ("cmdline", "environ"):
            assert secret not in Path(f"/proc/{pid}/{name}").read_bytes(), (pid, name)
    with leftovers.Nodes(nimbuses.url, nimbuses.credentials) as nodes:
        contents = nodes.contents()
    assert any("/entries/" in path for path in contents)
    assert [path for path, content in contents.items() if secret in content] == []
    told = [cluster.client.cluster(), cluster.client.topologies(), case.statistics(), case.running.errors()]
    assert secret not in repr(told).encode()
    found = [path for top in (nimbuses.directory, cluster.directory) for path in leftovers.holding(top, [secret])]
    assert [path.name for path in found] == ["auth"]


def unavailable(case: Case) -> bool:
    try:
        case.running.summary()
    except ClusterUnavailable as error:
        return "state store unavailable" in str(error)
    return False
