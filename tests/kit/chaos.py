"""Real processes to attack: a cluster of daemons that a test may kill, stop and start again, and runs that are judged.

`Arena` is the cluster, in a directory of its own; `Case` one topology on it with its durable source and its journals.
The oracle (tests/faults/oracle.py) judges a case in a process of its own that imports nothing of rainband.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

from kit import leftovers
from rainband.errors import ClusterUnavailable
from rainband.messaging.keys import Keys
from rainband.nimbus.client import Client, Running
from rainband.records import Assignment, Slot, Statistics, WorkerBeat
from rainband.supervisor import ports, processes
from rainband.topology.graph import Topology

FAULTS = Path(__file__).resolve().parents[1] / "faults"
PROJECT = FAULTS / "project"
ORACLE = FAULTS / "oracle.py"
SOURCE_LINES = 200_000
MARGIN_S = 0.4
LOOK_S = 0.01

# Leases and looks as short as a test wants them; what the product ships with is in rainband.config.
SHORT = {
    "nimbus.supervisor.timeout.secs": 4,
    "supervisor.heartbeat.frequency.secs": 0.5,
    "supervisor.worker.timeout.secs": 3,
    "nimbus.monitor.freq.secs": 0.5,
}


def now() -> float:
    """CLOCK_MONOTONIC, which all processes of a machine share."""
    return time.monotonic()


def wait(condition: Callable[[], Any], timeout_s: float = 20.0, what: Callable[[], str] | str = "") -> Any:
    """Wait until `condition` returns something true, and return that. AssertionError after `timeout_s`."""
    until = now() + timeout_s
    while not (found := condition()):
        if now() > until:
            text = what() if callable(what) else what
            raise AssertionError(f"not within {timeout_s:g} s: {text or condition}")
        signal.sigtimedwait([], LOOK_S)
    return found


def alive(pid: int) -> bool:
    """Whether the process exists and is not only waiting to be reaped."""
    return processes.identify(pid) is not None


def kill_at_once(pids: Collection[int]) -> None:
    """kill -9 all of them, none with the time to act on the death of another: they are stopped before."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


@contextlib.contextmanager
def imported(project: Path, name: str = "numbered") -> Iterator[ModuleType]:
    """A topology file of `project`, under its own name: so workers will find its classes in their bundle."""
    spec = importlib.util.spec_from_file_location(name, project / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[name]


class Arena:
    """One Nimbus and some supervisors as child processes. Use as a context manager: nothing is left afterwards.

    `settings` are config keys of every daemon, `extra` of single ones by name; `prefix` is put before the command line
    of a daemon (`ip netns exec ...`), `hosts` are supervisors' addresses, all by name.
    """

    def __init__(
        self,
        directory: Path,
        *,
        supervisors: int = 1,
        slots: int = 4,
        settings: Mapping[str, object] | None = None,
        extra: Mapping[str, Mapping[str, object]] | None = None,
        prefix: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.directory = directory
        self.slots = slots
        self.settings = dict(settings or {})
        self.extra = dict(extra or {})
        self.prefix = dict(prefix or {})
        self.names = ["nimbus", *(f"supervisor-{number}" for number in range(1, supervisors + 1))]
        self.children: dict[str, processes.Process] = {}
        self.stopped: set[int] = set()
        self.cases: list[Case] = []
        directory.mkdir(parents=True, exist_ok=True)
        own = self.extra.get("nimbus", {})
        self.host = str(own.get("nimbus.host", "127.0.0.1"))
        self.port = ports.choose(1, "127.0.0.1")[0]
        self.address = f"{self.host}:{self.port}"
        self._client: Client | None = None

    def __enter__(self) -> Self:
        try:
            self.start(*self.names)
            self.wait_supervisors(len(self.names) - 1)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def client(self) -> Client:
        if self._client is None:
            directory = self.settings.get("keys.dir")
            keys = Keys.load(Path(str(directory)) / "cluster.key") if directory else None
            self._client = Client(self.address, keys=keys)
        return self._client

    # Daemons

    def state(self, name: str) -> Path:
        return self.directory / name

    def topologies(self, name: str) -> Path:
        """Where a supervisor keeps the homes of topologies."""
        return self.state(name) / "topologies"

    def homes(self, name: str) -> list[Path]:
        """The homes of topologies at a supervisor."""
        return [path for path in self.topologies(name).iterdir() if path.is_dir()]

    def start(self, *names: str) -> None:
        """Start daemons, also again."""
        for name in names:
            settings = {**self.settings, "state.dir": str(self.state(name)), **self.extra.get(name, {})}
            if name == "nimbus":
                settings |= {"nimbus.port": self.port, "nimbus.host": self.host}
                own = ["nimbus"]
            else:
                settings.setdefault("nimbus.seeds", [self.address])
                own = ["supervisor", "--slots", str(self.slots)]
            given = [part for key, value in settings.items() for part in ("-c", f"{key}={as_text(value)}")]
            command = processes.python_command("rainband", *own, "--while", str(os.getpid()), *given)
            argv = [*self.prefix.get(name, ()), *command]
            log = self.directory / f"{name}.log"
            env = processes.environment(for_workers=name != "nimbus")
            self.children[name] = processes.start(argv, cwd=self.directory, log=log, env=env)

    def kill(self, *names: str) -> None:
        """kill -9 daemons."""
        for name in names:
            child = self.children.pop(name)
            child.send_signal(signal.SIGKILL)
            child.reap()
            child.close()

    def terminate(self, name: str, timeout_s: float = 15.0) -> int | None:
        """SIGTERM a daemon; its exit code."""
        child = self.children.pop(name)
        os.kill(child.pid, signal.SIGTERM)
        wait(lambda: not child.alive(), timeout_s, f"{name} goes on after SIGTERM")
        end = child.reap()
        child.close()
        return end.code

    def stop(self, pid: int) -> None:
        """SIGSTOP; `go_on` or the end of the arena continues it."""
        os.kill(pid, signal.SIGSTOP)
        self.stopped.add(pid)

    def go_on(self, pid: int) -> None:
        self.stopped.discard(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def pid(self, name: str) -> int:
        return self.children[name].pid

    def log(self, name: str) -> str:
        with contextlib.suppress(OSError):
            return (self.directory / f"{name}.log").read_text(errors="replace")
        return ""

    def logged(self, name: str, *words: str) -> list[str]:
        """Lines of a daemon's log that hold all the words."""
        return [line for line in self.log(name).splitlines() if all(word in line for word in words)]

    def worker_logs(self) -> str:
        found = sorted(self.directory.glob("supervisor-*/logs/**/worker-*.log"))
        return "\n".join(path.read_text(errors="replace") for path in found)

    def alive_supervisors(self) -> int:
        with contextlib.suppress(ClusterUnavailable):
            return sum(supervisor.alive for supervisor in self.client.cluster().supervisors)
        return -1

    def wait_supervisors(self, count: int, timeout_s: float = 20.0) -> None:
        def ready() -> bool:
            for name, child in self.children.items():
                assert child.alive(), f"{name} ended: {self.log(name)[-2000:]}"
            return self.alive_supervisors() >= count

        wait(ready, timeout_s, lambda: self.log("nimbus")[-2000:])

    def supervisor_of(self, slot: Slot) -> str:
        """The daemon's name for the supervisor id in a slot."""
        for name in self.names[1:]:
            memory = json.loads((self.state(name) / "supervisor.json").read_bytes())
            if memory["supervisor"] == slot.supervisor:
                return name
        raise KeyError(slot)

    def workers(self) -> dict[int, int]:
        """pid by port, of every worker process there is."""
        found: dict[int, int] = {}
        for name in self.names[1:]:
            found |= {worker.port: worker.identity.pid for worker in processes.found_workers(self.topologies(name))}
        return found

    # Topologies

    def case(
        self, name: str, *, shape: str = "full", workers: int = 3, rate: float = 800.0,
        config: Mapping[str, object] | None = None, wait_running: bool = True, source_lines: int = SOURCE_LINES,
        **options: Any,
    ) -> Case:  # fmt: skip
        """Submit a topology of tests/faults/project/numbered.py with a source of its own."""
        made = Case(self, name, shape, workers, rate, dict(config or {}), options, source_lines)
        self.cases.append(made)
        if wait_running:
            made.running.wait_running(30)
        return made

    # The end

    def close(self) -> None:
        """Continue, then kill everything this arena ever started, by pid."""
        for pid in list(self.stopped):
            self.go_on(pid)
        if self._client is not None:
            self._client.close()
            self._client = None
        for child in reversed(self.children.values()):
            child.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.reap()
            child.close()
        self.children.clear()
        for name in self.names[1:]:
            for found in processes.found_workers(self.topologies(name)):
                left = processes.adopt(found.identity)
                if left is not None:
                    left.kill()
                    wait(lambda pid=found.identity.pid: not alive(pid), 5.0)  # type: ignore[misc]
                    left.close()

    def end_cleanly(self) -> None:
        """Kill the topologies, then the daemons as a person would; then nothing may be left.

        No process, port and home; at Nimbus no row of a topology, no bundle and no upload.
        """
        for case in self.cases:
            case.kill()
        leftovers.wait_none(self.workers, 15.0, "workers")
        for name in self.names[1:]:
            leftovers.wait_none(partial(self.homes, name), 10.0, f"homes of {name}")
        self.empty_shelf()
        held = {name: self.ports_of(name) for name in self.names}
        for name in reversed(self.names):
            if name in self.children:
                assert self.terminate(name) == 0, self.log(name)[-2000:]
        assert leftovers.rows(self.state("nimbus")) == set()
        left = leftovers.processes_of(self.directory)
        assert not left, f"processes left: {left}"
        for name, own in held.items():
            still = own & leftovers.listening(self.prefix.get(name, ()))
            assert not still, f"ports of {name} still held: {[(port, ports.describe_holder(port)) for port in still]}"
            if name not in self.prefix:
                assert all(ports.free("127.0.0.1", port) for port in own), f"ports of {name} cannot be had"

    def empty_shelf(self) -> None:
        """What no topology names any more is kept for a while: see that it goes by a Nimbus that does not wait long."""
        if "nimbus" in self.children:
            self.terminate("nimbus")
        self.extra["nimbus"] = {**self.extra.get("nimbus", {}), "nimbus.upload.expiry.secs": 0.05}
        self.start("nimbus")
        self.wait_supervisors(0)
        leftovers.wait_none(partial(leftovers.blobs, self.state("nimbus")), 10.0, "bundles and uploads")

    def ports_of(self, name: str) -> set[int]:
        """Where a daemon and its workers listen, from the outside."""
        if name == "nimbus":
            return {self.port}
        return set(json.loads((self.state(name) / "supervisor.json").read_bytes())["ports"])


class Case:
    """One topology under attack. `faults` remembers when what was done to it."""

    def __init__(
        self, arena: Arena, name: str, shape: str, workers: int, rate: float,
        config: dict[str, object], options: dict[str, Any], source_lines: int,
    ) -> None:  # fmt: skip
        self.arena = arena
        self.name = name
        self.directory = arena.directory / f"case-{name}"
        self.directory.mkdir()
        self.sinks = ["keyed", "pairs", "wide-0", "wide-1"] if shape == "full" else ["relay"]
        self.faults: list[dict[str, Any]] = []
        self.end = 0
        self.gone = False
        write_source(self.directory / "source-0", source_lines)
        settings = {"topology.workers": workers, **config}
        self.tracked = config.get("topology.acker.executors") != 0
        self.rate = rate
        with imported(PROJECT) as module:
            topology: Topology = getattr(module, shape)(name, str(self.directory), rate, settings, **options)
            self.running: Running = arena.client.submit(topology, project=PROJECT)

    # Looking

    def statistics(self) -> Statistics:
        return self.running.statistics()

    def count(self, journal: str) -> int:
        """Lines in a journal."""
        with contextlib.suppress(OSError):
            return (self.directory / journal).read_bytes().count(b"\n")
        return 0

    def assignment(self) -> Assignment:
        found = self.running.summary().assignment
        assert found is not None
        return found

    def slots_of(self, component: str) -> list[Slot]:
        """Slots with an executor of the component (`__acker` too)."""
        return sorted({p.slot for p in self.assignment().placements if p.executor.component == component})

    def worker(self, component: str, without: Sequence[str] = ()) -> WorkerBeat:
        """A running worker with that component and none of the others."""
        wanted, unwanted = self.slots_of(component), {slot for name in without for slot in self.slots_of(name)}
        ports_wanted = [slot.port for slot in wanted if slot not in unwanted]
        assert ports_wanted, f"no worker has {component} without {without}: {self.assignment().placements}"

        def find() -> WorkerBeat | None:
            return next((w for w in self.workers() if w.port in ports_wanted), None)

        found: WorkerBeat = wait(find, 10.0)
        return found

    def workers(self) -> list[WorkerBeat]:
        """Running workers whose process exists."""
        return [w for w in self.statistics().workers if w.state == "RUNNING" and alive(w.pid)]

    def wait_flowing(self, more: int = 300, timeout_s: float = 30.0) -> None:
        """Wait until so many more numbers came to the (last) sink than are there now."""
        journal = f"sunk-{self.sinks[-1]}"
        goal = self.count(journal) + more
        wait(lambda: self.count(journal) >= goal, timeout_s, self.explain)

    def explain(self) -> str:
        parts = [f"emitted {self.count('emitted')}, acked {self.count('acked')}"]
        with contextlib.suppress(Exception):
            parts.append(str(self.statistics()))
        parts += [f"--- {name}\n{self.arena.log(name)[-1500:]}" for name in self.arena.names]
        parts.append(f"--- workers\n{self.arena.worker_logs()[-3000:]}")
        return "\n".join(parts)

    # Attacking

    def fault(self, *, spout: bool = False) -> float:
        """Note that a fault happens now."""
        at = now()
        self.faults.append({"at": at, "spout": spout})
        return at

    def mended(self) -> float:
        """The last fault is over now: what is emitted from here on has no excuse to be repeated."""
        at = now()
        self.faults[-1]["until"] = at
        return at

    def kill_worker(self, victim: WorkerBeat) -> float:
        """kill -9; returns when."""
        spout = any(task.component == "numbers" for task in victim.tasks)
        at = self.fault(spout=spout)
        os.kill(victim.pid, signal.SIGKILL)
        return at

    def order(self, component: str, *words: object) -> None:
        """Have one task of the component do something bad; returns when it has begun."""
        path = self.directory / f"do-{component}"
        temporary = path.with_name(f"new-{component}")
        temporary.write_text(" ".join(map(str, words)))
        temporary.rename(path)
        wait(lambda: not path.exists(), 20.0, self.explain)

    def wait_replaced(self, victim: WorkerBeat, timeout_s: float = 20.0) -> float:
        """When another process runs in the victim's slot, as its supervisor and Nimbus say."""

        def replaced() -> bool:
            return any(w.port == victim.port and w.pid != victim.pid for w in self.workers())

        wait(replaced, timeout_s, self.explain)
        return self.mended()

    # Judging

    def finish(self, timeout_s: float = 60.0) -> Statistics:
        """Say where the source ends, and wait until all of it went through."""
        if not self.end:
            self.end = self.last_emitted() + int(self.rate * MARGIN_S) + 1
            write_whole(self.directory / "end", str(self.end))
        try:
            statistics = self.running.wait_drained(timeout_s)
        except Exception as error:
            raise AssertionError(f"{error}\n{self.explain()}") from error
        self.end = max(self.end, self.last_emitted())  # it may have read on before it saw the end
        return statistics

    def last_emitted(self) -> int:
        """One more than the highest number that the source has emitted."""
        text = (self.directory / "emitted").read_bytes()
        return max((int(line.split()[0]) + 1 for line in text.splitlines()), default=0)

    def verdict(self) -> dict[str, Any]:
        """What the oracle says of a finished case."""
        assert self.end, "finish() first"
        case = {"end": self.end, "sinks": self.sinks, "faults": self.faults, "tracked": self.tracked}
        write_whole(self.directory / "case.json", json.dumps(case))
        argv = [sys.executable, "-I", str(ORACLE), str(self.directory)]
        done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=900)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def judge(self) -> dict[str, Any]:
        """Finish, and demand what holds after every fault: nothing lost or invented, no false ack, repeats excused."""
        self.finish()
        verdict = self.verdict()
        assert verdict["lost"] == 0, verdict
        assert verdict["unacked"] == 0, verdict
        assert verdict["false_acks"] == 0, verdict
        assert verdict["strange"] == 0, verdict
        assert verdict["unexcused"] == 0, verdict
        return verdict

    def kill(self) -> None:
        if not self.gone:
            self.gone = True
            self.running.kill(wait_s=0)


def write_source(path: Path, lines: int = SOURCE_LINES) -> None:
    """Numbered lines, ten bytes each, made durable before anybody reads them."""
    with path.open("wb") as file:
        file.write(b"".join(b"%09d\n" % number for number in range(lines)))
        file.flush()
        os.fsync(file.fileno())


def write_whole(path: Path, text: str) -> None:
    """A file that is never seen half written."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(text)
    temporary.rename(path)


def as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@contextlib.contextmanager
def arena(directory: Path, **options: Any) -> Iterator[Arena]:
    """An Arena that also ends cleanly when its test succeeds."""
    with Arena(directory, **options) as made:
        yield made
        made.end_cleanly()
