"""The engine: one heap of events under virtual time, two phases, one hash over all that happens.

*Safety*: faults strike, laws are checked after every event. *Heal*: no fault any more; everything must converge in
bounded time, come to rest, and leave nothing behind once killed.
"""

from __future__ import annotations

import hashlib
import heapq
import logging
import re
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any

from rainband.nimbus.rows import read_entries
from rainband.records import Kill, Progress, Request, Slot, Status, Submit, WorkerBeat, WorkerState
from simulation.bounds import Bounds
from simulation.chief import NimbusProcess
from simulation.client import Answer, Caller, Client
from simulation.disks import Disk, SimBlobs
from simulation.ensemble import Ensemble
from simulation.faults import Fault, Faults
from simulation.history import linearizable, tell
from simulation.hosts import Host, Supervisor
from simulation.laws import Laws
from simulation.options import Options
from simulation.oracle import Oracle, Violation
from simulation.processes import WorkerProcess
from simulation.topologies import Load
from simulation.wires import Wires

START_S = 1000.0
CONVERGE_S = 60.0
LOOK_S = 0.25
SETTLE_S = 1.6
YOUNG_S = 3.0
CLEAR_S = 80.0
SYNC_S = 1.0
LINES_MAX = 1000
STAMPED = re.compile(r"\b(t\d-\d+)-\d+")
RPC_DELAY_S = 0.001

logging.getLogger("rainband").setLevel(logging.CRITICAL + 1)


@dataclass
class Guest:
    """One submitted topology: what it is, and what really happened to it."""

    load: Load
    oracle: Oracle


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `violation` is '' for a good one."""

    options: Options
    faults: tuple[Fault, ...]
    violation: str
    hash: str
    roots: int
    executions: int
    replays: int
    virtual_s: float
    real_s: float
    steps: int
    trace: tuple[str, ...] = ()


class World:
    """A cluster as `options` say, struck by `faults`."""

    def __init__(self, options: Options, faults: tuple[Fault, ...], trace: bool = False) -> None:
        self.options = options
        self.time = START_S
        self.heap: list[tuple[float, float, int, Callable[..., object], tuple[Any, ...]]] = []
        self.serial = 0
        self.tokens = count(1)
        self.ties = Random(f"ties {options.seed}")
        self.ids = Random(f"ids {options.seed}")
        self.rpc = Random(f"rpc {options.seed}")
        self.digest = hashlib.blake2b(digest_size=12)
        self.lines: list[str] = []
        self.trace: list[str] | None = [] if trace else None
        self.violations: list[str] = []
        self.steps = 0
        self.pids = 100
        self.phase = "safety"
        self.healed_at = 0.0
        self.disturbed = self.moved = False
        self.deaths: dict[str, list[float]] = {}
        self.disturbed_at = START_S
        self.laws = Laws(self)
        self.bounds = Bounds(self)
        self.wires = Wires(self)
        self.disk = Disk(f"{self.ids.getrandbits(128):032x}")
        self.ensemble = Ensemble(self, self.disk) if options.nimbuses > 1 else None
        self.blobs = [SimBlobs() for _ in range(options.nimbuses)]
        self.callers: dict[str, Caller] = {}
        self.loads = {f"t{number}": Load(f"t{number}", options, number) for number in range(options.topologies)}
        self.guests: Guests = Guests(self)
        skews = Random(f"skew {options.seed}")
        self.walls: dict[str, float] = {}
        self.offsets = [skews.uniform(0.0, 1e5) if options.skew else 0.0 for _ in range(options.supervisors + 1)]
        rates = Random(f"rates {options.seed}")
        self.rates = [rates.uniform(0.98, 1.02) if options.nimbuses > 1 else 1.0 for _ in range(options.nimbuses)]
        self.hosts = [
            Host(self, f"h{number}", f"10.0.0.{number + 1}", tuple(range(6700, 6700 + options.slots)), offset)
            for number, offset in enumerate(self.offsets[1:])
        ]
        self.nimbuses: list[NimbusProcess] = []
        self.client = Client(self)
        self.faults = Faults(self, faults)

    # Time

    def now(self) -> float:
        return self.time

    def at(self, when: float, act: Callable[..., object], *args: Any) -> None:
        self.serial += 1
        heapq.heappush(self.heap, (when, self.ties.random(), self.serial, act, args))

    def after(self, seconds: float, act: Callable[..., object], *args: Any) -> None:
        self.at(self.time + seconds, act, *args)

    def advance(self, until: float, enough: Callable[[], bool] = lambda: False) -> bool:
        """Let everything happen up to `until`, or until `enough`, which is asked every LOOK_S. Raises Violation."""
        look_at = self.time
        heap = self.heap
        while heap and heap[0][0] <= until:
            when, _, _, act, args = heapq.heappop(heap)
            if when > self.time:
                self.time = when
            try:
                act(*args)
            except Violation:
                raise
            except Exception:
                raise Violation(f"X0: the product raised\n{traceback.format_exc()}") from None
            if self.violations:
                raise Violation(self.violations[0])
            if self.time >= look_at:
                look_at = self.time + LOOK_S
                if enough():
                    return True
        self.time = until
        return enough()

    def wall(self, address: str) -> float:
        """What the clock on the wall of a machine shows."""
        return self.time + self.walls.get(address, 0.0)

    def note(self, text: str) -> None:
        """Something happened: into the hash, and into the trace if one is wanted."""
        self.lines.append(f"{self.time - START_S:.6f} {text}")
        if len(self.lines) >= LINES_MAX:
            self.digest_lines()

    def digest_lines(self) -> str:
        """The hash of all that was noted so far; without the time in ids of topologies where clocks jump."""
        lines, self.lines = self.lines, []
        text = "".join(lines)
        if "jump_clock" in self.options.faults:
            text = STAMPED.sub(r"\1", text)
        self.digest.update(text.encode())
        if self.trace is not None:
            self.trace += lines
        return self.digest.hexdigest()

    def wrong(self, law: str, text: str) -> None:
        self.violations.append(f"{law}: {text}")

    def draw_id(self) -> int:
        return self.ids.getrandbits(62) | 1

    def next_pid(self) -> int:
        self.pids += 1
        return self.pids

    # Who is there

    def host(self, name: str) -> Host:
        return self.hosts[int(name[1:])]

    def processes(self) -> list[WorkerProcess]:
        """The living worker processes, always in the same order."""
        return [process for host in self.hosts for _, process in sorted(host.processes.items())]

    def start_nimbus(self, machine: int = 0) -> NimbusProcess:
        process = NimbusProcess(self, len(self.nimbuses), machine)
        self.nimbuses.append(process)
        self.note(f"nimbus {process.number} begins on {process.address}")
        return process

    def living_nimbuses(self) -> list[NimbusProcess]:
        return [process for process in self.nimbuses if process.alive]

    def leader(self) -> NimbusProcess | None:
        """The one that may act, if there is one."""
        leading = [process for process in self.living_nimbuses() if process.service.leads]
        return next((process for process in leading if self.ensemble is None or process.believes()), None)

    def address_of(self, name: str) -> str:
        return self.host(name).address if name[0] == "h" else name

    def places(self) -> list[str]:
        """The addresses of hosts and Nimbuses."""
        return [host.address for host in self.hosts] + [f"n{number}" for number in range(self.options.nimbuses)]

    def bundle_of(self, name: str) -> bytes:
        return self.loads[name].bundle

    def disturb(self) -> None:
        """A process died or something moved."""
        self.disturbed = True
        self.disturbed_at = self.time

    def pending(self, topology_id: str, slots: frozenset[Slot] | None = None) -> int:
        """Roots that are pending in truth, over all living workers of a topology; or over those on `slots`.

        Of the latter not what just came up: it may have begun before it heard of the pause.
        """
        own = [process for process in self.processes() if process.topology_id == topology_id]
        if slots is not None:
            own = [process for process in own if process.booted_at < self.time - YOUNG_S]
        return sum(
            process.worker.books.pending
            for process in own
            if process.worker is not None and (not slots or process.slot in slots)
        )

    def is_submitted(self, name: str) -> bool:
        entries = read_entries(self.disk.values)[0].values()
        return any(entry.name == name and entry.row.status is not Status.KILLED for entry in entries)

    # Requests

    def ask(
        self, source: str, request: Request, answer: Answer, timeout_s: float, asker: Supervisor | None = None
    ) -> None:
        """Send a request to Nimbus; exactly one answer follows, None when there is none in time."""
        if source not in self.callers:
            self.callers[source] = Caller(self, source)
        self.callers[source].ask(request, answer, timeout_s, asker)

    def push(self, address: str, supervisor: str, progress: Progress) -> None:
        host = self.host(supervisor)
        if host.supervisor is not None and self.wires.passes(address, host.address) and not self.loses():
            self.after(self.delay(), host.supervisor.pushed, progress)

    def loses(self) -> bool:
        return self.wires.loss > 0 and self.rpc.random() < self.wires.loss

    def delay(self) -> float:
        return RPC_DELAY_S + self.options.delay_s + self.wires.jitter_s * self.rpc.random() ** 3

    # What workers show

    def hear_errors(self, beat: WorkerBeat) -> None:
        for error in beat.errors:
            if "Trouble" not in error.error and "given up by its peers" not in error.error:
                self.wrong("X1", f"{error.component} task {error.task}: {error.error}\n{error.traceback}")
        for counter in ("bad_messages", "frames_malformed", "frames_broken"):
            if beat.counters.get(counter):
                self.wrong("X2", f"{counter} = {beat.counters[counter]} without corruption")

    # The run

    def begin(self) -> None:
        """Start everything, submit, plan the faults."""
        for machine in range(self.options.nimbuses):
            self.start_nimbus(machine)
        if self.ensemble is not None:
            self.client.read()
        for number, host in enumerate(self.hosts):
            self.after(0.01 * number, host.start_supervisor)
        for name in sorted(self.loads):
            self.after(0.2, self.client.want, name, self.submission(name))
        self.laws.look()
        self.bounds.look()
        self._sync()
        self.faults.plan()

    def play(self) -> None:
        """Both phases. Raises Violation."""
        self.begin()
        self.advance(START_S + self.options.safety_s)
        self.phase = "heal"
        self.healed_at = self.time
        self.note("heal")
        self.faults.heal()
        self._converge()
        self.bounds.rest()
        self._clear()
        self._check_history()

    def submission(self, name: str) -> Submit:
        """A new one; when no answer comes, the client asks it again."""
        return Submit(name, self.loads[name].plan.encode(), token=str(next(self.tokens)))

    def _sync(self) -> None:
        for host in self.hosts:
            host.sync()
        self.after(SYNC_S, self._sync)

    def finals(self) -> list[tuple[str, Guest]]:
        """The topologies that are there now."""
        known = sorted(read_entries(self.disk.values)[0].keys() - self.laws.foreign)
        return [(topology_id, self.guests[topology_id]) for topology_id in known]

    def _all_done(self) -> bool:
        """Every row of every source is acked or a dead letter that has arrived, and nothing is pending."""
        for topology_id, guest in self.finals():
            if guest.oracle.tracked and guest.oracle.unfinished():
                return False
            if guest.load.letters and guest.oracle.dead - guest.oracle.arrived - guest.oracle.acked:
                return False
            if self.pending(topology_id):
                return False
        return True

    def _in_place(self) -> bool:
        """The client has what it asked for, and what runs is what is stored."""
        waited = self.time > self.healed_at + SETTLE_S + self.options.lease_s
        return waited and self.client.idle and len(self.finals()) == len(self.loads) and self._settled()

    def _converged(self) -> bool:
        return self._in_place() and self._all_done() and self._drained()

    def _settled(self) -> bool:
        """Every slot of the stored assignments, and no other, has a running worker that knows the newest one."""
        wanted = {
            slot: entry.assignment.version
            for entry in read_entries(self.disk.values)[0].values()
            if entry.assignment is not None
            for slot in entry.slots
        }
        found = {
            process.slot: process.worker.assignment.version
            for process in self.processes()
            if process.worker is not None and process.worker.state is WorkerState.RUNNING
        }
        return found == wanted and len(found) == len(self.processes())

    def _drained(self) -> bool:
        """No task has anything left to do."""
        workers = [process.worker for process in self.processes() if process.worker is not None]
        return all(made.drained for worker in workers for made in worker.wiring.tasks.values())

    def _converge(self) -> None:
        """L1: what runs is what should CONVERGE_S after the last fault. L2: its rows are acked 2T later.

        A source that had to begin anew gives its rows at its own pace: that time is its own.
        """
        if not self.advance(self.healed_at + CONVERGE_S, self._in_place):
            raise Violation(f"L1: not in place {CONVERGE_S:.0f} s after the last fault: {self.describe()}")
        pace_s = self.options.roots / self.options.rate
        if not self.advance(self.healed_at + CONVERGE_S + 2 * self.options.timeout_s + pace_s, self._converged):
            late_s = self.time - self.healed_at
            raise Violation(f"L2: not all is acked {late_s:.0f} s after the last fault: {self.describe()}")
        for _, guest in self.finals():
            guest.oracle.check_end()
        if self.violations:
            raise Violation(self.violations[0])

    def _clear(self) -> None:
        """A12: killed topologies leave no process, row or assignment."""
        for name in sorted(self.loads):
            self.client.want(name, Kill(name, 1.0))
        if not self.advance(self.time + CLEAR_S, self._is_clear):
            raise Violation(f"A12: not everything is gone: {self.describe()}")

    def _check_history(self) -> None:
        """A9, unless two may answer at once: from the disk of a lone one, or after a session was ended by force."""
        if {"second_nimbus", "expire_session"} & set(self.options.faults):
            return
        for name, operations in sorted(self.client.history.items()):
            if not linearizable(operations, name):
                raise Violation(f"A9: no order explains what clients were told of {name}: {tell(operations, name)}")

    def _is_clear(self) -> bool:
        rows = [key for key in self.disk.values if key.partition("/")[2] not in {"", *self.laws.foreign}]
        rows += [digest for blobs in self.blobs for digest in blobs.digests()]
        slots = [s.slot for h in self.hosts if h.supervisor for s in h.supervisor.stations.values() if s.slot.wanted]
        homes = [home for host in self.hosts for home in host.homes]
        return not rows and not self.processes() and not slots and not homes

    def describe(self) -> str:
        """What stands in the way, for people."""
        parts = [f"waiting requests {[k for k, v in self.client.queue.items() if v]}"]
        entries = read_entries(self.disk.values)[0]
        for topology_id, guest in self.finals():
            entry = entries[topology_id]
            unfinished = guest.oracle.unfinished()
            parts.append(f"{topology_id} {entry.shown_status} {len(unfinished)} rows unfinished, {unfinished[:5]}")
        for process in self.processes():
            state = process.worker.state if process.worker is not None else "booting"
            pending = process.worker.books.pending if process.worker is not None else 0
            parts.append(f"{process.slot.supervisor}:{process.port} {process.topology_id} {state} pending {pending}")
        for host in self.hosts:
            stations = host.supervisor.stations.values() if host.supervisor is not None else ()
            busy = [f"{s.port} {s.slot.state}" for s in stations if s.slot.state != "EMPTY"]
            parts.append(f"{host.name}: {busy}")
        return "; ".join(parts)


class Guests(dict[str, Guest]):
    """By topology id; made when the first worker of a topology begins."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def __missing__(self, topology_id: str) -> Guest:
        world = self.world
        load = world.loads[topology_id.partition("-")[0]]
        self[topology_id] = Guest(load, self.oracle(load))
        return self[topology_id]

    def oracle(self, load: Load) -> Oracle:
        world = self.world
        return Oracle(load, world.options, world.note, world.violations, lambda: not world.disturbed, world.deaths)



def run(options: Options, faults: tuple[Fault, ...], trace: bool = False) -> Outcome:
    """One whole run."""
    begin = time.perf_counter()
    world = World(options, faults, trace)
    violation = ""
    try:
        world.play()
    except Violation as error:
        violation = f"{error} (at {world.time - START_S:.3f} s, {world.phase})"
        world.note(violation.partition("\n")[0])
    oracles = [guest.oracle for guest in world.guests.values()]
    return Outcome(
        options,
        faults,
        violation,
        world.digest_lines(),
        sum(sum(oracle.attempts.values()) for oracle in oracles),
        sum(oracle.executions for oracle in oracles),
        sum(sum(oracle.attempts.values()) - len(oracle.attempts) for oracle in oracles),
        world.time - START_S,
        time.perf_counter() - begin,
        world.steps,
        tuple(world.trace or ()),
    )
