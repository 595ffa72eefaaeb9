"""Machines and their supervisors: the real stations with their slot machines, over the simulated process table.

`Host` is what outlives a supervisor: its disk, its worker processes. `Supervisor` does what the real daemon does with
the same parts (Station, slot.step, weigh, wanted_by_port); only waiting, sockets and files are simulated.
"""

from __future__ import annotations

import copy
import hashlib
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from rainband.cluster.positions import MemoryPositions
from rainband.messaging.control import Assign, FromWorker, Gone, ToWorker
from rainband.records import Assignment, Download, Heartbeat, HeartbeatReply, Piece, Progress, Response, Upload
from rainband.records import Slot as SlotName
from rainband.supervisor import slot
from rainband.supervisor.daemon import Obituary
from rainband.supervisor.disk import Memory, WorkerRecord
from rainband.supervisor.lease import Lease
from rainband.supervisor.orders import Orders, wanted_by_port, weigh
from rainband.supervisor.pulse import Pulse, Sample
from rainband.supervisor.slot import Limits, State
from rainband.supervisor.station import UNCONFIRMED, Station, behind
from simulation.processes import BEAT_S, CONTROL_S, Handle, HostClock, WorkerProcess

if TYPE_CHECKING:
    from simulation.world import World

HEARTBEAT_S = 1.0
LOOK_S = 1.0
GONE_TRY_S = 10.0
GONE_RETRY_S = 0.05
UNANSWERED_S = 4.0
LOCALIZE_S = 0.05
SEE_END_S = 0.001
HELD = cast(Any, "held")


class Host:
    """A machine. `homes` are topologies whose code is here, each with the assignment its workers read."""

    def __init__(self, world: World, name: str, address: str, ports: tuple[int, ...], offset: float) -> None:
        self.world = world
        self.name = name
        self.address = address
        self.ports = ports
        self.clock = HostClock(world, address, offset)
        self.powered = True
        self.memory = Memory(name, "token", ports)
        self.homes: dict[str, Assignment | None] = {}
        self.lease_until = float("-inf")
        self.positions: dict[str, MemoryPositions] = {}
        self.saved_positions: dict[str, MemoryPositions] = {}
        self.saved_homes: set[str] = set()
        self.saved_memory = msgspec.json.encode(self.memory)
        self.processes: dict[int, WorkerProcess] = {}
        self.supervisor: Supervisor | None = None

    def positions_of(self, topology_id: str) -> MemoryPositions:
        return self.positions.setdefault(topology_id, MemoryPositions())

    def sync(self) -> None:
        """What the system writes to the disk now and then; a power cut loses what came after."""
        self.saved_positions = copy.deepcopy(self.positions)
        self.saved_homes = set(self.homes)

    def start_supervisor(self) -> None:
        if self.powered and self.supervisor is None:
            self.supervisor = Supervisor(self)
            self.supervisor.begin()

    def kill_supervisor(self) -> None:
        if self.supervisor is not None:
            self.supervisor.running = False
            self.supervisor = None
            if self.world.options.edition >= 2:
                self.memory = msgspec.json.decode(self.saved_memory, type=Memory)
            self.world.note(f"supervisor {self.name} killed")

    def power_off(self) -> None:
        """Everything on it is gone at once; positions and homes not yet on the disk are lost.

        What a supervisor remembers and assignments are synced when they are written.
        """
        self.powered = False
        self.kill_supervisor()
        for process in list(self.processes.values()):
            process.kill(from_outside=True)
        self.positions = copy.deepcopy(self.saved_positions)
        if self.world.options.edition >= 2:
            self.homes = {name: home for name, home in self.homes.items() if name in self.saved_homes}
        self.world.note(f"host {self.name} off")

    def power_on(self) -> None:
        self.powered = True
        self.start_supervisor()

    def spawn(self, port: int, topology_id: str) -> WorkerProcess:
        """A process begins. One process per port is all that an operating system allows."""
        if port in self.processes:
            self.world.wrong("A4", f"a second process is started on {self.name}:{port}")
        process = WorkerProcess(self, port, topology_id, self._free_pid())
        self.processes[port] = process
        self.world.after(self.world.options.spawn_s, process.boot)
        self.world.note(f"spawn {self.name}:{port} {topology_id}")
        return process

    def _free_pid(self) -> int:
        """A new one; from the second edition on the lowest that is free, so that it was another's a moment ago."""
        if self.world.options.edition < 2:
            return self.world.next_pid()
        taken = {process.pid for process in self.processes.values()}
        return next(pid for pid in count(100) if pid not in taken)

    def process_gone(self, process: WorkerProcess) -> None:
        if self.processes.get(process.port) is process:
            del self.processes[process.port]
        if self.supervisor is not None:
            self.world.after(SEE_END_S, self.supervisor.see_end, process)


class SimStation(Station):
    """The real station; ports and processes are those of the simulated host."""

    shop: Supervisor

    def hold(self, now: float) -> None:
        self.held = HELD if self.port not in self.shop.machine.processes else None
        if self.held is None:
            self.feed(slot.PortTaken("a process"), now)

    def _check_port(self) -> slot.Event:
        free = self.port not in self.shop.machine.processes
        self.held = HELD if free else None
        return slot.PortFree() if free else slot.PortTaken("a process")

    def release(self) -> None:
        self.held = None

    def _start(self, topology: str) -> slot.Event:
        machine = self.shop.machine
        if machine.homes.get(topology) is None:
            return slot.StartFailed("its home is not complete")
        if machine.world.options.exclusive and not self.shop.leased():
            return slot.StartFailed(UNCONFIRMED)
        orphan = machine.processes.get(self.port)
        if orphan is not None:
            if self.process is not None:
                machine.world.wrong("A4", f"{machine.name}:{self.port} starts a worker while it minds another")
            orphan.kill(from_outside=False, cause="an orphan")
        self.release()
        process = machine.spawn(self.port, topology)
        self.process = cast(Any, Handle(process, child=True))
        self._remember(WorkerRecord(topology, process.identity, restarts=self.slot.restarts))
        return slot.Started(process.pid)

    def _last_words(self) -> str:
        return ""

    def look(self, now: float) -> None:
        if self.process is None or self.slot.state is not State.RUNNING:
            return
        process = cast(Handle, self.process).process
        if self.pulse is None:
            self.pulse = Pulse(self.shop.worker_timeout_s, now)
        reason = self.pulse.look(Sample(self.beats + process.passes, 0.0, process.stopped), now)
        if reason:
            self.feed(slot.Stalled(process.pid, reason), now)

    def look_at_lease(self, now: float) -> None:
        self.exclusive = self.shop.world.options.exclusive
        Station.look_at_lease(self, now)

    def look_for_stacks(self, now: float) -> None:
        """Nobody asks for stacks here."""


class SimDisk:
    """The part of a supervisor's disk that stations look at."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.topologies = Path("/nowhere")

    def home(self, topology_id: str) -> Path:
        return self.topologies / topology_id


class Supervisor:
    """One run of a supervisor process on `machine`."""

    def __init__(self, machine: Host) -> None:
        world = machine.world
        options = world.options
        self.machine = machine
        self.world = world
        self.host = machine.address
        self.running = True
        self.stopped = False
        self.incarnation = world.draw_id()
        self.disk: Any = SimDisk(machine.memory)
        self.limits = Limits(10.0, 2.0, 20.0, 2.0, 4.0, 1.0)
        self.worker_timeout_s = 8.0
        self.lease_s = options.lease_s
        self.beat_s = BEAT_S
        self.lease = Lease(self.lease_s, machine.lease_until)
        self.sent_at = float("-inf")
        self.environment: dict[str, str] = {}
        self.keys_file = None
        self.secrets = None
        self.stations = {port: SimStation(port, cast(Any, self)) for port in machine.ports}
        self.obituaries: list[Obituary] = []
        self.dead: dict[int, tuple[str, Gone, float]] = {}
        self.localizing: set[str] = set()
        self.heard: list[tuple[int, FromWorker]] = []
        self.ended: list[WorkerProcess] = []
        self.replies: list[tuple[int, Response | None]] = []
        self.call = 0
        self.passes = 0
        self.busy = False
        self.trouble = False
        self.token = 0
        self.next_at = float("inf")
        self.heartbeat_at = self.look_at = self.clock_now()

    def clock_now(self) -> float:
        return self.machine.clock.now()

    # Shop, as stations see it

    def localize(self, topology_id: str) -> None:
        if topology_id not in self.localizing:
            self.localizing.add(topology_id)
            if topology_id in self.machine.homes:
                self.world.after(LOCALIZE_S, self._localized, topology_id, "")
                return
            name = topology_id.partition("-")[0]
            wanted = self.world.bundle_of(name)

            def answered(reply: Response | None) -> None:
                whole = isinstance(reply, Piece) and reply.data == wanted
                self.world.after(LOCALIZE_S, self._localized, topology_id, "" if whole else f"no bundle: {reply}")

            request = Download(self.world.loads[name].plan.bundle, 0, len(wanted))
            self.world.ask(self.machine.name, request, answered, UNANSWERED_S, self)

    def assignment(self, topology_id: str) -> Assignment | None:
        return self.disk.memory.assignments.get(topology_id)  # type: ignore[no-any-return]

    def send(self, port: int, message: ToWorker) -> bool:
        process = self.machine.processes.get(port)
        if process is None:
            return False
        self.world.after(CONTROL_S, process.tell, message)
        return True

    def announce_gone(self, port: int, topology_id: str, incarnation: int) -> None:
        name = self.machine.name
        now = self.clock_now()
        word = Gone(SlotName(name, port), incarnation)
        self.dead[port] = (topology_id, word, now)
        for station in self.stations.values():
            if station.port != port and station.slot.topology == topology_id:
                self.send(station.port, word)
        assignment = self.assignment(topology_id)
        if assignment is None or name not in assignment.hosts:
            return
        dead = assignment.address(SlotName(name, port))
        for peer in assignment.slots():
            if peer.supervisor != name:
                self.obituaries.append(Obituary(now, assignment.address(peer), topology_id, dead, incarnation))
        self._send_obituaries()

    def tell_of_the_dead(self, port: int, topology_id: str) -> None:
        for dead, (topology, word, seen_at) in self.dead.items():
            if dead != port and topology == topology_id:
                self.send(port, msgspec.structs.replace(word, age_s=self.clock_now() - seen_at))

    def collect_stacks(self, port: int, text: str) -> None:
        """Nobody asks for stacks here."""

    def remember(self) -> None:
        """Write the memory down, synced."""
        self.machine.saved_memory = msgspec.json.encode(self.disk.memory)

    def wall(self) -> float:
        return self.machine.clock.wall()

    def leased(self) -> bool:
        return self.lease.held(self.clock_now())

    def overdue(self) -> bool:
        return self.lease.overdue(self.clock_now())

    # Life

    def begin(self) -> None:
        memory = self.disk.memory
        now = self.clock_now()
        records = dict(memory.workers)
        memory.workers.clear()
        for port, process in sorted(self.machine.processes.items()):
            record = records.get(port)
            if record is None or record.identity != process.identity:
                record = WorkerRecord(process.topology_id, process.identity)
            self.stations[port].adopt(cast(Any, Handle(process, child=False)), record, now)
        for station in self.stations.values():
            if station.process is None:
                station.hold(now)
        self._assign(now)
        self.wake()

    def wake(self, at: float = 0.0) -> None:
        at = max(at, self.world.time)
        if self.running and at < self.next_at:
            self.next_at = at
            self.token += 1
            self.world.at(at, self._due, self.token)

    def _due(self, token: int) -> None:
        if token == self.token and self.running:
            self.next_at = float("inf")
            if not self.stopped:
                self._pass()

    def set_stopped(self, stopped: bool) -> None:
        self.stopped = stopped
        if not stopped:
            self.wake()

    def told(self, port: int, message: FromWorker) -> None:
        self.heard.append((port, message))
        self.wake(self.world.time + CONTROL_S)

    def see_end(self, process: WorkerProcess) -> None:
        self.ended.append(process)
        self.wake()

    def pushed(self, progress: Progress) -> None:
        self.heartbeat_at = self.clock_now()
        self.wake()

    def _pass(self) -> None:
        self.passes += 1
        now = self.clock_now()
        heard, self.heard = self.heard, []
        for port, message in heard:
            self.stations[port].hear(message, now)
        ended, self.ended = self.ended, []
        for process in ended:
            station = self.stations[process.port]
            if station.process is not None and cast(Handle, station.process).process is process:
                station.process_ended(now)
        replies, self.replies = self.replies, []
        for call, reply in replies:
            if call == self.call:
                self.busy = False
                if isinstance(reply, HeartbeatReply):
                    self._answered(reply, now)
                else:
                    self.trouble = True
        for station in self.stations.values():
            if now >= station.slot.due:
                station.feed(slot.Tick(), now)
            station.look_at_lease(now)
        self._send_obituaries()
        if now >= self.look_at:
            self._look(now)
        self._report(now)
        self.wake(self._next(now) - self.machine.clock.offset)

    def _next(self, now: float) -> float:
        soonest = min((station.slot.due for station in self.stations.values()), default=now + LOOK_S)
        soonest = min(soonest, self.look_at)
        if not self.busy:
            soonest = min(soonest, self.heartbeat_at)
        if self.obituaries:
            soonest = min(soonest, now + GONE_RETRY_S)
        return max(soonest, now + 0.001)

    def _look(self, now: float) -> None:
        self.look_at = now + LOOK_S
        for station in self.stations.values():
            station.look(now)
        needed = set(self.disk.memory.assignments)
        for station in self.stations.values():
            needed |= {name for name in (station.slot.topology, station.slot.wanted) if name is not None}
        for topology_id in [name for name in self.machine.homes if name not in needed]:
            del self.machine.homes[topology_id]

    def _localized(self, topology_id: str, reason: str) -> None:
        """The code is here; or it is not, for `reason`."""
        if not self.running:
            return
        self.localizing.discard(topology_id)
        assignment = self.assignment(topology_id)
        if not reason and assignment is not None:
            self.machine.homes[topology_id] = assignment
        event = slot.LocalizeFailed(topology_id, reason) if reason else slot.Localized(topology_id)
        now = self.clock_now()
        for station in self.stations.values():
            station.feed(event, now)
        self.wake()

    # Nimbus

    def _report(self, now: float) -> None:
        changed = any(station.changed for station in self.stations.values())
        if self.busy or not (now >= self.heartbeat_at or (changed and not self.trouble)):
            return
        self.heartbeat_at = now + HEARTBEAT_S
        self.sent_at = now
        self.busy = True
        self.call += 1
        call = self.call

        def answered(reply: Response | None) -> None:
            if self.running:
                self.replies.append((call, reply))
                self.wake()

        self.world.ask(self.machine.name, self._heartbeat(), answered, UNANSWERED_S, self)

    def _heartbeat(self) -> Heartbeat:
        beats = [beat for station in self.stations.values() if (beat := station.report()) is not None]
        memory = self.disk.memory
        for station in self.stations.values():
            station.changed = False
        return Heartbeat(
            supervisor=self.machine.name,
            host=self.host,
            incarnation=self.incarnation,
            ports=tuple(port for port, s in self.stations.items() if s.slot.state is not State.BLOCKED),
            workers=tuple(beats),
            known={name: (a.epoch, a.version) for name, a in memory.assignments.items()},
            leader=(memory.cluster_id, memory.epoch),
            behind=behind(self.stations.values()),
        )

    def _answered(self, reply: HeartbeatReply, now: float) -> None:
        memory = self.disk.memory
        orders = weigh(memory.assignments, memory.cluster_id, memory.epoch, reply)
        self.trouble = bool(orders.refused)
        if orders.refused:
            return
        self.lease.confirmed(self.sent_at)
        self.machine.lease_until = self.lease.until
        for digest in reply.lacking:
            self._give(digest)
        for station in self.stations.values():
            station.told()
        before = (memory.cluster_id, memory.epoch)
        memory.cluster_id, memory.epoch = reply.cluster_id, reply.epoch
        if orders.newer or orders.dropped:
            self._take_orders(orders, now)
        elif before != (memory.cluster_id, memory.epoch):
            self.remember()

    def _give(self, digest: str) -> None:
        """Send Nimbus a bundle that it has lost."""
        for topology_id in self.machine.homes:
            data = self.world.bundle_of(topology_id.partition("-")[0])
            if hashlib.sha256(data).hexdigest() == digest:
                self.world.ask(self.machine.name, Upload(digest, 0, data, True), lambda reply: None, UNANSWERED_S, self)
                return

    def _take_orders(self, orders: Orders, now: float) -> None:
        memory = self.disk.memory
        for assignment in orders.newer:
            known = memory.assignments.get(assignment.topology_id)
            if known is not None and (assignment.epoch, assignment.version) < (known.epoch, known.version):
                self.world.wrong("A1", f"{self.machine.name} goes back to version {assignment.version}")
            memory.assignments[assignment.topology_id] = assignment
            if assignment.topology_id in self.machine.homes:
                self.machine.homes[assignment.topology_id] = assignment
            for station in self.stations.values():
                if station.slot.topology == assignment.topology_id:
                    self.send(station.port, Assign(assignment))
        for topology_id in orders.dropped:
            del memory.assignments[topology_id]
            if topology_id in self.machine.homes:
                self.machine.homes[topology_id] = None
        self.remember()
        self._assign(now)
        self.heartbeat_at = now

    def _assign(self, now: float) -> None:
        memory = self.disk.memory
        wanted = wanted_by_port(memory.assignments, memory.supervisor)
        for port, station in self.stations.items():
            station.feed(slot.Wanted(wanted.get(port)), now)

    def _send_obituaries(self) -> None:
        now = self.clock_now()
        send = self.world.wires.send
        mine = f"{self.host}:0"
        self.obituaries = [
            word
            for word in self.obituaries
            if now < word.seen_at + GONE_TRY_S and not send(mine, word.reader, word.frame(self.incarnation, now))
        ]
