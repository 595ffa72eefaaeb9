"""Commands under attack: the same name at once, clients and Nimbus dying halfway, rebalance and restart under load."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
import zmq

from kit.chaos import PROJECT, SHORT, Arena, Case, alive, imported, kill_at_once, now, wait, write_source
from rainband.build import VERSION
from rainband.errors import ClusterUnavailable, RainbandError, Refused, TopologyNotFound, WireError
from rainband.messaging.rpc import failure
from rainband.nimbus.client import Client, Running
from rainband.records import Failure, Upload

pytestmark = pytest.mark.faults
CLUSTER = {"supervisors": 2, "slots": 6, "settings": SHORT}

CLIENTS = 50
RESUMED_S = 12.0
REBALANCED_S = 10.0


def test_f47_fifty_clients_submit_one_name(case: Case) -> None:
    cluster = case.arena
    case.fault()
    directory = cluster.directory / "case-f47"
    directory.mkdir()
    write_source(directory / "source-0", 100)
    with imported(PROJECT) as module:
        topology = module.chain("f47", str(directory), 100.0, {"topology.workers": 1})
        with Client(cluster.address) as first:
            first.submit(topology, name="f47-first", project=PROJECT).kill(wait_s=0)  # the bundle is there from now on
        outcomes: Counter[str] = Counter()
        ready = threading.Barrier(CLIENTS)

        def submit() -> None:
            with Client(cluster.address, timeout_s=30.0) as client:
                ready.wait(30)
                try:
                    client.submit(topology, project=PROJECT)
                    outcomes["accepted"] += 1
                except RainbandError as error:
                    outcomes[str(error).split(".")[0]] += 1

        threads = [threading.Thread(target=submit) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert outcomes == {"accepted": 1, "the name f47 is in use": CLIENTS - 1}
    assert [t.name for t in cluster.client.topologies()] == [case.name, "f47"]
    cluster.client.topology("f47").kill(wait_s=0)
    case.mended()
    assert case.judge()["again"] == 0


def test_f48_client_or_nimbus_dies_in_an_upload(case: Case) -> None:
    cluster = case.arena
    case.fault()
    data = b"half of a bundle" * 1000
    digest = hashlib.sha256(data).hexdigest()
    incoming = cluster.state("nimbus") / "nimbus" / "blobs" / "incoming"
    with Client(cluster.address) as client:
        client._rpc.call(Upload(digest, 0, data[:5000], False))
    assert (incoming / digest).is_file()
    assert [t.name for t in cluster.client.topologies()] == [case.name]
    cluster.kill("nimbus")
    cluster.start("nimbus")
    cluster.wait_supervisors(2)
    assert not list(incoming.iterdir())
    assert not (incoming.parent / digest).exists()
    assert [t.name for t in cluster.client.topologies()] == [case.name]
    case.wait_flowing()
    case.mended()
    assert case.judge()["again"] == 0


@pytest.mark.slow
def test_f48_upload_without_a_submit_is_thrown_away(tmp_path: Path) -> None:
    with Arena(tmp_path, supervisors=0, extra={"nimbus": {"nimbus.upload.expiry.secs": 1}}) as arena:
        blobs = arena.state("nimbus") / "nimbus" / "blobs"
        for data, done in ((b"whole", True), (b"half", False)):
            arena.client._rpc.call(Upload(hashlib.sha256(data).hexdigest(), 0, data, done))

        def kept() -> list[Path]:
            return [path for path in blobs.rglob("*") if path.is_file()]

        assert len(kept()) == 2
        wait(lambda: not kept(), 150.0)


def test_f49_nimbus_dies_in_the_wait_of_a_rebalance(case: Case) -> None:
    cluster = case.arena
    case.fault()
    case.order("pairs", "sleep", 1.5)  # so that something stays pending, and the rebalance has to wait
    asked = threading.Thread(target=lambda: quietly(lambda: case.running.rebalance(workers=2, wait_s=20)))
    asked.start()
    wait(lambda: case.statistics().status == "REBALANCING", 5.0, case.explain)
    at = now()
    cluster.kill("nimbus")
    cluster.start("nimbus")
    cluster.wait_supervisors(2)
    wait(lambda: (s := case.statistics()).status == "ACTIVE" and s.workers_running == 2, 20.0, case.explain)
    back_s = case.mended() - at
    asked.join(30)
    print(f"rebalanced {back_s:.1f} s after the death of Nimbus")
    assert back_s <= RESUMED_S
    assert len(case.assignment().slots()) == 2
    case.wait_flowing()
    assert case.judge()["again"] == 0


def quietly(act: object) -> None:
    """A call whose Nimbus may die under it."""
    try:
        act()  # type: ignore[operator]
    except RainbandError:
        pass


COMMANDS = ("activate", "deactivate", "rebalance")
DECIDED = {"activated": "ACTIVE", "deactivated": "INACTIVE", "killed": "killed"}


@pytest.mark.parametrize("killer", [False, True], ids=["and it lives", "and it is killed"])
def test_f49_commands_race(case: Case, killer: bool) -> None:
    """From several clients at once. Nimbus writes a line per command it accepts: the last one is what becomes of it."""
    accepted: list[str] = []
    refused: list[str] = []
    topology_id = case.statistics().topology_id
    turns = threading.Barrier(len(COMMANDS) + killer)

    def command(name: str) -> None:
        options = {"wait_s": 0} if name in ("rebalance", "kill") else {}
        with Client(case.arena.address, timeout_s=10.0) as client:
            running = client.topology(case.name)
            turns.wait(30)
            for _ in range(TURNS[name]):
                if name == "kill":
                    wait(lambda: len(accepted) >= 5, 30.0)  # let the others have their say
                try:
                    wait(lambda: carried_out(running, name, options, refused), 30.0)
                    accepted.append(name)
                except (Refused, TopologyNotFound) as error:
                    refused.append(str(error))

    case.fault(spout=True)
    run_all(command, [*COMMANDS, *(["kill"] if killer else [])])
    case.faults += [dict(case.faults[0]) for name in accepted if name == "rebalance"]  # it did not wait
    assert all(any(words in text for words in REFUSED) for text in refused), refused
    lines = [line.split() for line in case.arena.logged("nimbus", f"{topology_id} ")]
    words = [line[line.index(topology_id) + 1].strip(":") for line in lines if topology_id in line]
    said = [word for word in words if word in DECIDED]
    print(f"{len(accepted)} accepted, {len(refused)} refused: {' '.join(words)}")
    assert len(said) == sum(name != "rebalance" for name in accepted)
    wanted = DECIDED[said[-1]] if said else "ACTIVE"
    if killer:
        assert wanted == "killed"
        assert case.name not in [t.name for t in case.arena.client.topologies()]
        wait(lambda: not case.arena.workers(), 15.0)
        case.gone, case.end = True, case.last_emitted()
        verdict = case.verdict()
        assert (verdict["false_acks"], verdict["strange"]) == (0, 0), verdict
        return
    wait(lambda: (s := case.statistics()).status == wanted and s.workers_running == 3, 20.0, case.explain)
    settled = now() + SETTLED_S
    wait(lambda: now() >= settled, 5.0)
    assert case.statistics().status == wanted
    case.running.activate()
    wait(lambda: case.statistics().status == "ACTIVE", 20.0, case.explain)
    for fault in case.faults:
        fault["until"] = now()
    case.wait_flowing()
    case.judge()


def carried_out(running: Running, name: str, options: Mapping[str, object], refused: list[str]) -> bool:
    """Whether it was accepted; while it is being rebalanced most are not."""
    try:
        getattr(running, name)(**options)
    except Refused as error:
        if "is being rebalanced" not in str(error):
            raise
        refused.append(str(error))
        return False
    return True


TURNS = {"activate": 6, "deactivate": 8, "rebalance": 2, "kill": 2}
REFUSED = ("is being rebalanced", "is being killed", "no topology is named")
SETTLED_S = 1.0


def run_all(act: Callable[[str], None], names: Sequence[str]) -> None:
    """Each name in a thread of its own; none may fail."""
    failed: list[BaseException] = []

    def guarded(name: str) -> None:
        try:
            act(name)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed, failed
    assert not any(thread.is_alive() for thread in threads)


def test_f50_grow_and_shrink(case: Case) -> None:
    case.fault()
    for asked in ({"workers": 4, "parallelism": {"relay": 2}}, {"workers": 2}):
        at = now()
        case.running.rebalance(**asked)
        case.wait_flowing(100)
        print(f"rebalanced to {asked} and flowing after {now() - at:.1f} s")
        assert now() - at <= REBALANCED_S
    case.mended()
    case.wait_flowing()
    verdict = case.judge()
    assert verdict["again"] == 0, verdict
    assert len(case.assignment().slots()) == 2


def test_f50_a_host_that_came_back_gets_its_share(case: Case) -> None:
    cluster = case.arena
    lost = cluster.names[1]
    case.fault(spout=True)
    victims = [slot.port for slot in case.assignment().slots() if cluster.supervisor_of(slot) == lost]
    pids = [pid for port, pid in cluster.workers().items() if port in victims]
    cluster.kill(lost)
    kill_at_once(pids)
    wait(lambda: cluster.alive_supervisors() == 1, 20.0)
    wait(lambda: len({slot.supervisor for slot in case.assignment().slots()}) == 1, 20.0)
    cluster.start(lost)
    cluster.wait_supervisors(2)
    case.wait_flowing()
    case.running.rebalance()
    case.mended()
    assert sorted(Counter(slot.supervisor for slot in case.assignment().slots()).values()) == [1, 2]
    case.wait_flowing()
    case.judge()


@pytest.mark.parametrize("moment", ["before it", "in its wait", "in its move"])
def test_f50_worker_killed_during_a_rebalance(case: Case, moment: str) -> None:
    victim = case.worker("relay", without=("numbers",))
    placed = case.assignment().placements
    if moment == "before it":
        at = case.kill_worker(victim)
        case.running.rebalance(workers=4, wait_s=5)
    else:
        case.order("pairs", "sleep", 2.0)  # something is pending: the rebalance has to wait
        at = case.fault(spout=True)  # which pauses, and may move
        asked = threading.Thread(target=lambda: quietly(lambda: case.running.rebalance(workers=4, wait_s=5)))
        asked.start()
        moving = moment == "in its move"
        wait(lambda: case.statistics().status == "REBALANCING", 5.0, case.explain)
        wait(lambda: (case.assignment().placements != placed) is moving, 10.0, case.explain)
        assert moving or case.statistics().status == "REBALANCING"
        at = case.kill_worker(victim)
        asked.join(60)
    wait(lambda: (s := case.statistics()).status == "ACTIVE" and s.workers_running == 4, 20.0, case.explain)
    back_s = now() - at
    for fault in case.faults:
        fault["until"] = now()
    case.wait_flowing()
    verdict = case.judge()
    print(f"rebalanced over a death {moment} after {back_s:.1f} s", verdict)
    assert back_s <= REBALANCED_S
    assert len(case.assignment().slots()) == 4
    assert not alive(victim.pid)


def test_f56_rolling_restart(case: Case) -> None:
    cluster = case.arena
    before, placed = {w.pid for w in case.workers()}, case.assignment().placements
    case.fault()
    others: list[Running] = []
    for name in reversed(cluster.names):
        at = now()
        assert cluster.terminate(name) == 0
        assert now() - at <= 1.5, f"{name} took {now() - at:.1f} s to stop"
        case.wait_flowing(100)
        if name == "nimbus":
            with pytest.raises(ClusterUnavailable), Client(cluster.address, timeout_s=0.5) as early:
                submit_small(early, cluster, "f56-refused")
        else:
            others.append(submit_small(cluster.client, cluster, f"f56-{name}"))
        cluster.start(name)
        cluster.wait_supervisors(2)
    others.append(submit_small(cluster.client, cluster, "f56-last"))
    assert {t.name for t in cluster.client.topologies()} == {case.name, *(other.name for other in others)}
    for other in others:
        other.wait_running(20)
        other.kill(wait_s=0)
    wait(lambda: {w.pid for w in case.workers()} == before, 15.0, case.explain)
    case.mended()
    verdict = case.judge()
    assert verdict["again"] == 0, verdict
    assert case.assignment().placements == placed
    assert case.statistics().restarts == 0


def submit_small(client: Client, cluster: Arena, name: str) -> Running:
    directory = cluster.directory / f"case-{name}"
    directory.mkdir()
    write_source(directory / "source-0", 1000)
    with imported(PROJECT) as module:
        return client.submit(module.chain(name, str(directory), 100.0, {"topology.workers": 1}), project=PROJECT)


def test_f56_request_of_another_version(case: Case) -> None:
    """It is refused, and both versions are named; nobody else notices."""
    case.fault()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context.socket(zmq.DEALER) as newer:
        newer.linger = 0
        newer.rcvtimeo = 5000
        newer.connect(f"tcp://{case.arena.address}")
        newer.send_multipart([(7).to_bytes(8, "little"), b"\x81\xa4type\xabtime_travel"])
        number, answer = newer.recv_multipart()
    context.term()
    assert int.from_bytes(number, "little") == 7
    refused = failure(msgspec.msgpack.decode(answer, type=Failure))
    assert isinstance(refused, WireError)
    assert f"rainband {VERSION} at Nimbus does not know this request" in str(refused)
    assert f"here it is {VERSION}" in str(refused)
    case.wait_flowing()
    case.mended()
    assert case.judge()["again"] == 0
