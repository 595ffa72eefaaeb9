"""LocalCluster(processes=True): the real daemons and workers behind the handle that tests use."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from rainband import LocalCluster, TopologyNotFound, UsageError
from rainband.topology.bundle import load_topology

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


@pytest.fixture(autouse=True)
def forget_imports() -> Iterator[None]:
    modules, path = set(sys.modules), list(sys.path)
    yield
    for name in {file.stem for file in EXAMPLES.glob("*.py")} - modules:
        sys.modules.pop(name, None)
    sys.path[:] = path


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_topology_on_real_workers_survives_a_kill() -> None:
    files = sorted(str(path) for path in Path(sysconfig.get_path("stdlib")).glob("*.py"))[:120]
    lines = sum(Path(file).read_bytes().count(b"\n") for file in files)
    topology = load_topology(EXAMPLES / "word_count.py", "topology", files)
    with LocalCluster(processes=True) as cluster:
        running = cluster.submit(topology, config={"topology.workers": 3})
        statistics = running.wait_running(timeout_s=30)
        pids = [worker.pid for worker in statistics.workers]
        assert len(set(pids)) == 3
        running.wait_until(lambda s: s.acked > 100, timeout_s=30)
        slot = cluster.kill_worker("split")
        assert slot.supervisor
        statistics = running.wait_drained(timeout_s=60)
        assert statistics.acked >= lines
        assert statistics.failed == statistics.replayed
        pids += [worker.pid for worker in statistics.workers]
        with pytest.raises(UsageError, match="other processes"):
            LocalCluster(processes=True, record=True)
        with pytest.raises(UsageError, match="cannot be seen"):
            running.instances("split")
        running.kill(wait_s=0)
        with pytest.raises(TopologyNotFound):
            running.statistics()
    assert not [pid for pid in pids if alive(pid)]


def test_rows_instead_of_spouts_travel_too() -> None:
    topology = load_topology(EXAMPLES / "join.py")
    with LocalCluster(processes=True, supervisors=1, slots=2) as cluster:
        sources = {"orders": [[1, "tea"], [2, "jam"]], "payments": [[2, 9.5], [1, 4.0]]}
        running = cluster.submit(topology, sources=sources, config={"topology.workers": 2})
        statistics = running.wait_drained(timeout_s=60)
        assert (statistics.acked, statistics.failed) == (4, 0)
        assert statistics.components["show"].executed == 2


KNOCKS = """
from pathlib import Path
from rainband import Bolt, Spout, TopologyBuilder

class Once(Spout):
    outputs = ("path",)
    def next_tuple(self):
        self.finish()

class Knocks(Bolt):
    def prepare(self, context):
        self.words = [context.secret(name) for name in ("word", "other.word")]
    def execute(self, tup):
        Path(tup["path"]).write_text(" ".join(self.words))

builder = TopologyBuilder("knocks")
builder.set_spout("once", Once())
builder.set_bolt("knocks", Knocks()).shuffle_grouping("once")
topology = builder.create_topology()
"""


def test_secrets_reach_workers_and_lie_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "knocks_case.py").write_text(KNOCKS)
    topology = load_topology(tmp_path / "knocks_case.py")
    monkeypatch.setenv("RAINBAND_SECRET_OTHER_WORD", "simsalabim")
    with LocalCluster(processes=True, supervisors=1, slots=1, secrets={"word": "abracadabra"}) as cluster:
        running = cluster.submit(topology, sources={"once": [[str(tmp_path / "said")]]})
        statistics = running.wait_drained(timeout_s=60)
        assert (tmp_path / "said").read_text() == "abracadabra simsalabim"
        assert cluster._processes is not None
        state = cluster._processes.directory
        holders = [path for path in state.rglob("*") if path.is_file() and b"abra" in path.read_bytes()]
        assert holders == [state / "secrets" / "word"]
        assert not [path for path in state.rglob("*") if path.is_file() and b"simsala" in path.read_bytes()]
        nimbus = cluster._processes.cluster.children["nimbus"].pid
        assert b"simsala" not in Path(f"/proc/{nimbus}/environ").read_bytes()
        assert statistics.errors == 0
    assert not state.exists()


TICKING = """
from rainband import Bolt, Spout, TopologyBuilder

class Few(Spout):
    outputs = ("n",)
    def open(self, context):
        self.n = 0
    def next_tuple(self):
        self.n += 1
        self.emit([self.n], message_id=None)
        if self.n == 500:
            self.finish()

class Ticks(Bolt):
    outputs = ("n",)
    def execute(self, tup):
        self.emit([tup["n"]])
    def tick(self):
        for number in range(10):
            self.emit([number])

class Sink(Bolt):
    def execute(self, tup):
        pass

builder = TopologyBuilder("ticking", config={"topology.workers": 2, "topology.tick.tuple.freq.secs": 0.02})
builder.set_spout("few", Few())
builder.set_bolt("ticks", Ticks(), parallelism=2).shuffle_grouping("few")
builder.set_bolt("sink", Sink(), parallelism=2).fields_grouping("ticks", ["n"])
topology = builder.create_topology()
"""


def test_ticks_that_emit_all_the_time_keep_nothing_from_being_drained(tmp_path: Path) -> None:
    (tmp_path / "ticking_case.py").write_text(TICKING)
    with LocalCluster(processes=True, supervisors=2, slots=2) as cluster:
        running = cluster.submit(load_topology(tmp_path / "ticking_case.py"))
        statistics = running.wait_drained(timeout_s=20)
        assert statistics.components["ticks"].executed == 500
        assert statistics.workers_running == 2
        running.rebalance(workers=1, wait_s=60, timeout_s=20)
        running.kill(wait_s=60, timeout_s=20)


THREADED = """
import threading
import time
from pathlib import Path
from rainband import Bolt, EmitRefused, Spout, TopologyBuilder

class Some(Spout):
    outputs = ("path",)
    def next_tuple(self):
        self.finish()

class Threads(Bolt):
    outputs = ("n",)
    def prepare(self, context):
        self.wanted, self.said = threading.Event(), []
        threading.Thread(target=self.elsewhere, daemon=True).start()
    def elsewhere(self):
        self.wanted.wait()
        try:
            self.emit([1])
            self.said.append("sent")
        except EmitRefused as error:
            self.said.append(str(error))
    def execute(self, tup):
        self.wanted.set()
        while not self.said:
            time.sleep(0.01)
        self.emit([2])
        Path(tup["path"]).write_text(self.said[0])

class Sink(Bolt):
    def execute(self, tup):
        assert tup["n"] == 2

builder = TopologyBuilder("threaded")
builder.set_spout("some", Some())
builder.set_bolt("threads", Threads()).shuffle_grouping("some")
builder.set_bolt("sink", Sink()).shuffle_grouping("threads")
topology = builder.create_topology()
"""


def test_an_emit_from_a_thread_of_user_code_is_refused_on_a_worker_too(tmp_path: Path) -> None:
    (tmp_path / "threaded_case.py").write_text(THREADED)
    with LocalCluster(processes=True, supervisors=1, slots=1) as cluster:
        topology = load_topology(tmp_path / "threaded_case.py")
        running = cluster.submit(topology, sources={"some": [[str(tmp_path / "said")]]}, active=False)
        running.wait_running(timeout_s=30)
        running.activate()
        statistics = running.wait_drained(timeout_s=30)
        assert "not from a thread of your own" in (tmp_path / "said").read_text()
        assert (statistics.components["sink"].executed, statistics.errors) == (1, 0)
