"""A real Nimbus, real supervisors, real workers, and what becomes of the others when one of them dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from rainband.clock import SystemClock
from rainband.config import Config
from rainband.errors import ClusterUnavailable, NotAllowed, NotReached
from rainband.messaging import frames
from rainband.messaging.keys import Keys
from rainband.messaging.network import UNWANTED_LOOKS, ZmqNetwork
from rainband.nimbus.client import Client
from rainband.nimbus.running import Running
from rainband.records import Assignment, Executor, Placement, Slot, Status
from rainband.supervisor import ports, processes
from rainband.supervisor.daemon import Supervisor
from rainband.supervisor.disk import Disk
from rainband.topology.home import read_assignment, wire_id

PROJECT = '''
import os, time
from pathlib import Path
from rainband import Bolt, ReliableSpout, TopologyBuilder


class Numbers(ReliableSpout):
    outputs = ("n",)

    def __init__(self, count, pause_s):
        self.count, self.pause_s = count, pause_s

    def open(self, context):
        self.next = 0

    def next_tuple(self):
        if self.next >= self.count:
            self.finish()
            return
        if self.pause_s:
            time.sleep(self.pause_s)
        self.emit([self.next], message_id=self.next)
        self.next += 1


class Double(Bolt):
    outputs = ("n",)

    def __init__(self, directory):
        self.directory = Path(directory)

    def prepare(self, context):
        print("prepared task", context.task_id)
        self.task = context.task_id
        self.note("begins")
        if (self.directory / "break").exists():
            raise OSError("the disk of this bolt is gone")

    def cleanup(self):
        self.note("ends")

    def note(self, what):
        with open(self.directory / "lives", "a") as lives:
            lives.write(f"{self.task} {what} in {os.getpid()}\\n")

    def execute(self, tup):
        while (self.directory / "spin").exists():
            pass
        if (self.directory / "crash").exists():
            code = (self.directory / "crash").read_text()
            (self.directory / "crash").unlink()
            exec(code)
        self.emit([tup["n"] * 2])


class Sink(Bolt):
    def __init__(self, directory):
        self.directory = Path(directory)

    def prepare(self, context):
        self.file = open(self.directory / f"sink-{context.task_id}", "a")

    def execute(self, tup):
        self.file.write(f"{tup['n']}\\n")
        self.file.flush()


def topology(directory, count, pause_s=0.0):
    builder = TopologyBuilder("numbers", config={"topology.workers": 2})
    builder.set_spout("numbers", Numbers(count, pause_s))
    builder.set_bolt("double", Double(directory), parallelism=2).shuffle_grouping("numbers")
    builder.set_bolt("sink", Sink(directory)).global_grouping("double")
    return builder.create_topology()
'''


def as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


class Cluster:
    """One Nimbus and one supervisor, each of which a test may kill and start again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.output = directory / "output"
        self.output.mkdir()
        self.project = directory / "project"
        self.project.mkdir()
        (self.project / "numbers_topology.py").write_text(PROJECT)
        self.port, *self.slots = ports.choose(4, "127.0.0.1")
        self.address = f"127.0.0.1:{self.port}"
        self.client = Client(self.address)
        self.children: dict[str, processes.Process] = {}
        self.settings: dict[str, object] = {}
        self.clock = SystemClock()

    @property
    def state(self) -> Path:
        return self.directory / "supervisor"

    def start(self, name: str, *flags: str) -> processes.Process:
        """`nimbus`, `supervisor`, or `supervisor-other` with a slot count among its flags."""
        settings = {"state.dir": str(self.directory / name), **self.settings}
        if name == "nimbus":
            settings |= {"nimbus.port": self.port}
        else:
            settings |= {"nimbus.seeds": [self.address], "supervisor.slots.ports": self.slots}
        given = [part for key, value in settings.items() for part in ("-c", f"{key}={as_text(value)}")]
        argv = processes.python_command("rainband", name.partition("-")[0], *flags, *given)
        log = self.directory / f"{name}.log"
        self.children[name] = processes.start(argv, cwd=self.directory, log=log, env=processes.environment())
        return self.children[name]

    def kill(self, name: str) -> None:
        child = self.children.pop(name)
        child.send_signal(signal.SIGKILL)
        child.reap()
        child.close()

    def submit(self, count: int, pause_s: float = 0.0, config: dict[str, object] | None = None) -> Running:
        sys.path.insert(0, str(self.project))
        try:
            import numbers_topology  # type: ignore[import-not-found]

            topology = numbers_topology.topology(str(self.output), count, pause_s)
            return self.client.submit(topology, project=self.project, config=config)
        finally:
            sys.path.remove(str(self.project))
            sys.modules.pop("numbers_topology", None)

    def has_supervisors(self, count: int = 1) -> bool:
        try:
            return sum(supervisor.alive for supervisor in self.client.cluster().supervisors) == count
        except ClusterUnavailable:
            return False

    def workers(self, name: str = "supervisor") -> dict[int, int]:
        """pid by port."""
        topologies = self.directory / name / "topologies"
        return {found.port: found.identity.pid for found in processes.found_workers(topologies)}

    def wait(self, condition: Callable[[], object], timeout_s: float = 20.0) -> float:
        """Seconds until `condition` held."""
        began = self.clock.now()
        while not condition():
            assert self.clock.now() < began + timeout_s, self.log()
            signal.sigtimedwait([], 0.02)
        return self.clock.now() - began

    def log(self) -> str:
        return (self.directory / "supervisor.log").read_text()

    def lives(self) -> dict[str, list[str]]:
        """What each task of 'double' noted of its lives, in order."""
        found: dict[str, list[str]] = {}
        for line in (self.output / "lives").read_text().splitlines():
            task, _, what = line.partition(" ")
            found.setdefault(task, []).append(what)
        return found

    def sunk(self) -> set[int]:
        return {int(line) for path in self.output.glob("sink-*") for line in path.read_text().split()}

    def close(self) -> None:
        self.client.close()
        for child in self.children.values():
            child.kill()
            child.reap()
            child.close()
        for state in self.directory.glob("supervisor*"):
            for found in processes.found_workers(state / "topologies"):
                worker = processes.adopt(found.identity)
                if worker is not None:
                    worker.kill()
                    worker.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    try:
        yield made
    finally:
        made.close()


def start(cluster: Cluster, count: int, pause_s: float = 0.0, *flags: str) -> Running:
    cluster.start("nimbus")
    cluster.start("supervisor", *flags)
    cluster.wait(cluster.has_supervisors)
    running = cluster.submit(count, pause_s)
    running.wait_running(20)
    return running


def test_topology_runs_and_leaves_nothing_behind(cluster: Cluster) -> None:
    running = start(cluster, 5000)
    statistics = running.wait_drained(60)
    assert (statistics.acked, statistics.failed, statistics.replayed) == (5000, 0, 0)
    assert cluster.sunk() == {2 * n for n in range(5000)}
    assert len(cluster.workers()) == 2
    logs = list((cluster.state / "logs").rglob("worker-*.log"))
    assert any("prepared task" in log.read_text() for log in logs)
    running.kill(wait_s=0)
    cluster.wait(lambda: not cluster.workers())
    homes = cluster.state / "topologies"
    cluster.wait(lambda: {path.name for path in homes.iterdir()} == {"control", "lease", "nimbus"})


def test_killed_worker_is_replaced_and_nothing_is_lost(cluster: Cluster) -> None:
    running = start(cluster, 3000, 0.001)
    running.wait_until(lambda s: s.acked > 300, 20)
    before = cluster.workers()
    port, victim = sorted(before.items())[0]
    os.kill(victim, signal.SIGKILL)
    took = cluster.wait(lambda: cluster.workers().get(port, victim) != victim)
    assert took < 2.0
    running.wait_drained(60)
    assert cluster.sunk() == {2 * n for n in range(3000)}
    statistics = running.statistics()
    assert statistics.restarts == 1
    assert any("signal 9" in error.error for error in running.errors())
    assert cluster.workers().keys() == before.keys()


def test_workers_outlive_their_supervisor_and_are_adopted(cluster: Cluster) -> None:
    running = start(cluster, 3000, 0.001)
    before = cluster.workers()
    cluster.kill("supervisor")
    (cluster.state / "supervisor.json.saved").write_bytes((cluster.state / "supervisor.json").read_bytes())
    cluster.start("supervisor")
    cluster.wait(lambda: cluster.log().count("adopted worker") == 2)
    statistics = running.wait_drained(60)
    assert cluster.workers() == before
    assert (statistics.acked, statistics.replayed, statistics.restarts) == (3000, 0, 0)
    os.kill(sorted(before.values())[0], signal.SIGKILL)
    cluster.wait(lambda: len(cluster.workers()) == 2 and cluster.workers() != before)


def test_terminated_supervisor_leaves_its_workers_and_stop_workers_does_not(cluster: Cluster) -> None:
    start(cluster, 100)
    before = cluster.workers()
    child = cluster.children.pop("supervisor")
    child.send_signal(signal.SIGTERM)
    cluster.wait(lambda: not child.alive())
    assert child.reap().code == 0
    assert cluster.workers() == before
    child = cluster.start("supervisor", "--stop-workers")
    cluster.wait(lambda: cluster.log().count("adopted worker") == 2)
    child.send_signal(signal.SIGTERM)
    cluster.wait(lambda: not child.alive())
    assert not cluster.workers()


def test_of_two_supervisors_with_one_id_one_is_refused_and_ends_its_workers(cluster: Cluster) -> None:
    cluster.settings = {"supervisor.id": "same", "nimbus.supervisor.timeout.secs": 3}
    running = start(cluster, 3000, 0.001)
    cluster.start("supervisor-other", "--slots", "3")
    cluster.wait(lambda: not cluster.workers() and len(cluster.workers("supervisor-other")) == 2)
    assert cluster.log().count("two supervisors are called same") == 1
    nimbus_log = (cluster.directory / "nimbus.log").read_text()
    assert nimbus_log.count("two supervisors are called same") == 1
    assignment = running.summary().assignment
    assert assignment is not None
    assert assignment.version <= 3
    running.wait_drained(60)
    assert cluster.sunk() == {2 * n for n in range(3000)}


def test_workers_are_restarted_without_nimbus(cluster: Cluster) -> None:
    running = start(cluster, 3000, 0.001)
    running.wait_until(lambda s: s.acked > 100, 20)
    cluster.kill("nimbus")
    before = cluster.workers()
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    cluster.wait(lambda: len(cluster.workers()) == 2 and not set(cluster.workers().values()) & set(before.values()))
    cluster.kill("supervisor")
    cluster.start("supervisor")
    cluster.wait(lambda: cluster.sunk() == {2 * n for n in range(3000)}, 60)
    cluster.start("nimbus")
    running.wait_drained(60)


def test_raise_in_prepare_backs_off_and_is_reported(cluster: Cluster) -> None:
    (cluster.output / "break").write_text("")
    cluster.start("nimbus")
    cluster.start("supervisor")
    cluster.wait(cluster.has_supervisors)
    running = cluster.submit(100)
    cluster.wait(lambda: "again in 1 s" in cluster.log())
    errors = running.errors("double")
    assert errors
    assert "the disk of this bolt is gone" in errors[-1].traceback
    assert all(error.component == "double" for error in running.errors())
    (cluster.output / "break").unlink()
    running.wait_drained(60)
    assert cluster.sunk() == {2 * n for n in range(100)}


def test_stopped_worker_is_replaced(cluster: Cluster) -> None:
    cluster.settings = {"supervisor.worker.timeout.secs": 2.0}
    running = start(cluster, 3000, 0.001)
    port, victim = sorted(cluster.workers().items())[0]
    os.kill(victim, signal.SIGSTOP)
    cluster.wait(lambda: cluster.workers().get(port, victim) != victim)
    assert "stopped by a signal" in cluster.log()
    running.wait_drained(60)
    assert cluster.sunk() == {2 * n for n in range(3000)}


def test_busy_worker_is_slow_and_shows_its_stacks(cluster: Cluster) -> None:
    cluster.settings = {"supervisor.worker.timeout.secs": 1.0}
    running = start(cluster, 100)
    before = cluster.workers()
    running.wait_drained(30)
    running.kill(wait_s=0)
    cluster.wait(lambda: not cluster.workers())
    (cluster.output / "spin").write_text("")
    running = cluster.submit(100)
    running.wait_running(20)
    before = cluster.workers()
    stacks = running.stacks(10)
    assert len(stacks) == 2
    assert any("execute" in text for text in stacks.values())
    cluster.wait(lambda: running.errors("double"), 30)
    record = running.errors("double")[0]
    assert record.task in range(1, 20)
    assert "computing: nothing else in its worker runs" in record.error
    assert "in execute" in record.traceback
    assert "component 'double', task" in cluster.log()
    cluster.wait(lambda: any(cpu_s(pid) > 4.0 for pid in before.values()), 60)
    assert cluster.workers() == before
    (cluster.output / "spin").unlink()
    running.wait_drained(30)


def cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def test_slot_whose_port_somebody_has_is_not_offered(cluster: Cluster) -> None:
    with socket.create_server(("127.0.0.1", cluster.slots[0])):
        running = start(cluster, 1000)
        running.wait_drained(30)
        assert set(cluster.workers()) == set(cluster.slots[1:])
        assert f"is blocked by pid {os.getpid()}" in cluster.log()
    cluster.wait(lambda: f"port {cluster.slots[0]} is free again" in cluster.log())


def test_worker_without_a_home_stops_itself(cluster: Cluster) -> None:
    start(cluster, 100)
    cluster.kill("supervisor")
    for home in (cluster.state / "topologies").iterdir():
        if home.is_dir():
            home.rename(cluster.directory / "taken away")
    cluster.wait(lambda: not cluster.workers())


def test_worker_that_no_supervisor_wrote_down_is_found(cluster: Cluster) -> None:
    running = start(cluster, 100)
    before = cluster.workers()
    cluster.kill("supervisor")
    memory = json.loads((cluster.state / "supervisor.json").read_bytes())
    memory["workers"] = {}
    (cluster.state / "supervisor.json").write_text(json.dumps(memory))
    cluster.start("supervisor")
    cluster.wait(lambda: cluster.log().count("adopted worker") == 2)
    running.wait_drained(30)
    assert cluster.workers() == before


def test_second_supervisor_on_the_same_state_is_refused(cluster: Cluster) -> None:
    start(cluster, 10)
    first = cluster.children["supervisor"]
    second = cluster.start("supervisor")
    cluster.wait(lambda: not second.alive())
    assert second.reap().code == 3
    assert f"is in use by pid {first.pid}" in cluster.log()
    first.kill()
    first.reap()
    first.close()


@pytest.mark.parametrize(
    ("code", "cause", "last_words"),
    [
        ("os._exit(7)", "exit code 7", ""),
        ("import ctypes; ctypes.string_at(0)", "signal 11 (SIGSEGV)", "Segmentation fault"),
    ],
)
def test_worker_that_ends_without_a_word(cluster: Cluster, code: str, cause: str, last_words: str) -> None:
    running = start(cluster, 1000, 0.001)
    (cluster.output / "crash").write_text(code)
    running.wait_until(lambda s: s.restarts == 1, 20)
    running.wait_drained(30)
    assert cluster.sunk() == {2 * n for n in range(1000)}
    error = next(error for error in running.errors() if cause in error.error)
    assert last_words in error.traceback


def test_supervisor_that_stood_still_has_lost_its_work(cluster: Cluster) -> None:
    cluster.settings = {"nimbus.supervisor.timeout.secs": 2.0}
    cluster.start("nimbus")
    cluster.start("supervisor")
    cluster.wait(cluster.has_supervisors)
    running = cluster.submit(4000, 0.001)
    running.wait_running(20)
    cluster.start("supervisor-other", "--slots", "2")
    cluster.wait(lambda: cluster.has_supervisors(2))
    stopped = cluster.children["supervisor"]
    stopped.send_signal(signal.SIGSTOP)
    cluster.wait(lambda: len(cluster.workers("supervisor-other")) == 2)
    stopped.send_signal(signal.SIGCONT)
    cluster.wait(lambda: not cluster.workers())
    running.wait_drained(60)
    assert cluster.sunk() == {2 * n for n in range(4000)}


def test_workers_report_as_often_as_the_setting_says(cluster: Cluster) -> None:
    cluster.settings = {"worker.heartbeat.frequency.secs": 300.0}
    running = start(cluster, 3000, 0.001)
    cluster.wait(lambda: len(cluster.sunk()) > 2000)
    assert running.statistics().acked < 1000


def test_peers_on_other_hosts_are_told_of_a_death(tmp_path: Path) -> None:
    """By a frame to their data port, as soon as they can be reached."""
    (own,) = ports.choose(1, "127.0.0.1")
    supervisor = Supervisor(Config.layer({"nimbus.seeds": ["127.0.0.1:1"]}), Disk(tmp_path, "one"), [own])
    peer = ZmqNetwork("127.0.0.1", 0)
    try:
        hosts = {"one": "127.0.0.1", "two": "127.0.0.1"}
        placements = (
            Placement(Executor("a", 1, 1), Slot("one", own), 1),
            Placement(Executor("a", 2, 2), Slot("two", peer.port), 1),
        )
        supervisor.disk.memory.assignments["t-1"] = Assignment("t-1", 1, Status.ACTIVE, placements, hosts)
        supervisor.announce_gone(own, "t-1", 4711)
        clock = SystemClock()
        until = clock.now() + 10.0
        received: list[bytes] = []
        while not received and clock.now() < until:
            supervisor._send_obituaries(clock.now())
            peer.wait(0.05)
            received = peer.receive()
        (frame,) = received
        header = frames.parse(frame)
        assert (header.kind, header.topology) == (frames.GONE, wire_id("t-1"))
        assert frames.read_gone(frame) == (f"127.0.0.1:{own}", 4711)
        assert supervisor.obituaries == []
        assert supervisor.network is not None
        for _ in range(UNWANTED_LOOKS + 1):
            supervisor._look(clock.now())
        assert supervisor.network._out.keys() == {f"127.0.0.1:{peer.port}"}
        supervisor.disk.memory.assignments.clear()
        for _ in range(UNWANTED_LOOKS):
            supervisor._look(clock.now())
        assert not supervisor.network._out, "no connection is kept to whom nothing will be told"
    finally:
        peer.close()
        supervisor._close()


def test_keys_guard_every_socket(cluster: Cluster, tmp_path: Path) -> None:
    keys = Keys.generate()
    keys.save(tmp_path / "cluster.key")
    cluster.settings = {"keys.dir": str(tmp_path)}
    cluster.client.close()
    cluster.client = Client(cluster.address, keys=keys)
    running = start(cluster, 1000)
    assert running.wait_drained(30).acked == 1000
    with Client(cluster.address, timeout_s=0.5) as stranger, pytest.raises(NotAllowed):
        stranger.cluster()


def test_exclusive_workers_end_with_their_lease(cluster: Cluster) -> None:
    cluster.settings = {"nimbus.supervisor.timeout.secs": 2.0}
    cluster.start("nimbus")
    cluster.start("supervisor")
    cluster.wait(cluster.has_supervisors)
    running = cluster.submit(100, config={"topology.exclusive": True})
    running.wait_running(20)
    before = set(cluster.workers().values())
    cluster.kill("nimbus")
    cluster.wait(lambda: not cluster.workers())
    cluster.wait(lambda: cluster.log().count("it is exclusive, and Nimbus has not confirmed it") >= 2)
    cluster.start("nimbus")
    cluster.wait(lambda: len(cluster.workers()) == 2)
    assert not before & set(cluster.workers().values())
    running.wait_drained(30)


def test_an_exclusive_worker_that_does_not_come_back_is_killed_in_time(cluster: Cluster) -> None:
    """In a call without end, while Nimbus does not answer: gone before its work can begin elsewhere."""
    lease_s = 6.0
    cluster.settings = {"nimbus.supervisor.timeout.secs": lease_s}
    cluster.start("nimbus")
    cluster.start("supervisor")
    cluster.wait(cluster.has_supervisors)
    (cluster.output / "spin").write_text("")
    running = cluster.submit(100, config={"topology.exclusive": True})
    running.wait_running(20)
    cluster.wait(lambda: any(cpu_s(pid) > 1.5 for pid in cluster.workers().values()))
    cluster.kill("nimbus")
    cluster.wait(lambda: not cluster.workers(), lease_s)
    assert "is given up: it is exclusive" in cluster.log()
    (cluster.output / "spin").unlink()
    cluster.start("nimbus")
    running.wait_drained(30)


def stopped_exclusive(cluster: Cluster) -> tuple[Running, int]:
    """An exclusive topology of one worker, and the pid of that worker, which was just stopped by a signal."""
    cluster.start("nimbus")
    cluster.start("supervisor")
    cluster.wait(cluster.has_supervisors)
    running = cluster.submit(3000, pause_s=0.001, config={"topology.exclusive": True, "topology.workers": 1})
    running.wait_running(20)
    (pid,) = cluster.workers().values()
    os.kill(pid, signal.SIGSTOP)
    return running, pid


def test_an_exclusive_task_begins_elsewhere_once_it_has_ended_where_it_was(cluster: Cluster) -> None:
    """Its worker stands still when the rebalance comes: until it goes on, the task runs nowhere."""
    cluster.settings = {"supervisor.worker.shutdown.sleep.secs": 60.0}
    running, pid = stopped_exclusive(cluster)
    with pytest.raises(NotReached):
        running.rebalance(workers=3, wait_s=0.0, timeout_s=2.5)
    told = read_assignment(cluster.state / "topologies" / running.summary().topology_id)
    assert told is not None
    assert told.leaving
    assert all(what == f"begins in {pid}" for whats in cluster.lives().values() for what in whats)
    os.kill(pid, signal.SIGCONT)
    end = running.wait_drained(30)
    assert (end.acked, end.workers_running) == (3000, 3)
    moved = [whats for whats in cluster.lives().values() if len(whats) > 1]
    assert moved
    for first, last, again in moved:
        assert (first, last) == (f"begins in {pid}", f"ends in {pid}")
        assert again.startswith("begins in ")


def test_a_worker_that_does_not_give_up_exclusive_tasks_is_killed(cluster: Cluster) -> None:
    running, pid = stopped_exclusive(cluster)
    assert running.rebalance(workers=3, wait_s=0.0, timeout_s=20.0).workers_running == 3
    assert "is given up: it is exclusive, and tasks that were taken away do not end" in cluster.log()
    assert pid not in cluster.workers().values()
    running.wait_drained(30)
    assert cluster.sunk() == set(range(0, 6000, 2))


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "in a call without end"])
def test_an_exclusive_worker_ends_without_its_supervisor(cluster: Cluster, busy: bool) -> None:
    """A stopped supervisor renews nothing, and the answer it finds when it goes on is too old to begin anything by."""
    cluster.settings = {"nimbus.supervisor.timeout.secs": 3.0}
    cluster.start("nimbus")
    supervisor = cluster.start("supervisor")
    cluster.wait(cluster.has_supervisors)
    if busy:
        (cluster.output / "spin").write_text("")
    running = cluster.submit(100, config={"topology.exclusive": True})
    running.wait_running(20)
    pids = set(cluster.workers().values())
    if busy:
        cluster.wait(lambda: any(cpu_s(pid) > 1.5 for pid in pids))
    os.kill(supervisor.pid, signal.SIGSTOP)
    cluster.wait(lambda: not any(map(processes.identify, pids)))
    (cluster.output / "spin").unlink(missing_ok=True)
    os.kill(supervisor.pid, signal.SIGCONT)
    running.wait_drained(30)
    assert not pids & set(cluster.workers().values())
