"""The supervisor process: reads the world, steps the slots, keeps Nimbus and the workers informed.

One thread owns everything; two more wait on its behalf, one for Nimbus (uplink), one for code (localizer).
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import math
import os
import platform
import queue
import select
import signal
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import msgspec

from rainband.build import VERSION
from rainband.clock import SystemClock
from rainband.config import Config, expanded
from rainband.errors import RainbandError
from rainband.messaging import frames
from rainband.messaging.control import Assign, ControlServer, Gone, ToWorker
from rainband.messaging.keys import Keys, key_file
from rainband.messaging.network import ZmqNetwork
from rainband.messaging.portions import ERRORS_BYTES_MAX, Turns, share_positions
from rainband.messaging.rpc import RpcClient
from rainband.messaging.sockets import check_exposure
from rainband.records import Assignment, Heartbeat, HeartbeatReply, Progress
from rainband.records import Slot as SlotName
from rainband.supervisor import ports, processes, slot
from rainband.supervisor.disk import Disk, WorkerRecord
from rainband.supervisor.lease import Lease
from rainband.supervisor.localizer import Localizer
from rainband.supervisor.orders import Orders, wanted_by_port, weigh
from rainband.supervisor.slot import Limits, State
from rainband.supervisor.station import Station, behind
from rainband.supervisor.upkeep import Upkeep
from rainband.supervisor.uplink import Answered, Pushed, Unanswered, Uplink, patience_s
from rainband.topology import home
from rainband.topology.secrets import check_directory

logger = logging.getLogger("rainband.supervisor")

LOOK_S = 1.0
BUSY_S = 0.1
GONE_RETRY_S = 0.05
GONE_TRY_S = 10.0
STOP_S = 5.0
PACKAGES = ("cloudpickle", "msgspec")


@dataclass(frozen=True, slots=True)
class Obituary:
    """The worker `incarnation` at `dead` was seen to have ended at `seen_at`: to be told to the one at `reader`."""

    seen_at: float
    reader: str
    topology_id: str
    dead: str
    incarnation: int

    def frame(self, sender: int, now: float) -> bytes:
        age_s = now - self.seen_at
        return frames.gone(home.wire_id(self.topology_id), sender, self.dead, self.incarnation, age_s=age_s)


class Supervisor:
    """`ports` are its slots. `stop_workers`: they end with it; otherwise they go on and are adopted by the next one.

    Raises Refused or NotAllowed when its directory, ports or address cannot be used.
    """

    def __init__(self, config: Config, disk: Disk, slots: Iterable[int], *, stop_workers: bool = False) -> None:
        self.clock = SystemClock()
        self.config = config
        self.disk = disk
        self.stop_workers = stop_workers
        self.host: str = config["supervisor.host"]
        self.keys_file = key_file(config["keys.dir"])
        keys = Keys.load(self.keys_file) if self.keys_file is not None else None
        check_exposure(self.host, keys, insecure=False)
        named = config["supervisor.secrets.dir"]
        self.secrets = check_directory(Path(named)) if named is not None else None
        self.limits = Limits(
            start_timeout_s=float(config["supervisor.worker.start.timeout.secs"]),
            shutdown_s=float(config["supervisor.worker.shutdown.sleep.secs"]),
        )
        self.worker_timeout_s = float(config["supervisor.worker.timeout.secs"])
        self.lease_s = float(config["nimbus.supervisor.timeout.secs"])
        self.beat_s = float(config["worker.heartbeat.frequency.secs"])
        self.lease = Lease(self.lease_s, disk.lease())
        self.asked_at = -math.inf
        self.replaced_at = math.inf
        self.heartbeat_s = float(config["supervisor.heartbeat.frequency.secs"])
        self.environment = processes.environment()
        self.incarnation = random_id()
        self.stations = {port: Station(port, self) for port in sorted(set(slots))}
        self.stopping = threading.Event()
        self.arrivals: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self.stacks_wanted: dict[str, dict[str, str]] = {}
        self.obituaries: list[Obituary] = []
        self.dead: dict[int, tuple[str, Gone, float]] = {}
        self.turns: Turns[tuple[int, int]] = Turns()
        self.keys = keys
        self.upkeep = Upkeep(disk, self._introduce, 60.0 * config["logviewer.cleanup.age.mins"])
        self.network: ZmqNetwork | None = None
        self.way_trouble = ""
        self.heartbeat_at = self.look_at = self.clock.now()
        self.nimbus_trouble = ""
        self.packages = {name: importlib.metadata.version(name) for name in PACKAGES} | {"rainband": VERSION}
        self.control = ControlServer()
        seeds = self.seeds = config["nimbus.seeds"]
        self.uplink = Uplink(RpcClient(seeds, keys=keys), self.control.wake, self.lease_s)
        self.downloads = RpcClient(seeds, keys=keys)
        self.localizer = Localizer(disk.topologies, self.downloads.call, self._arrived, self.downloads.events)

    # What stations need of their daemon

    def localize(self, topology_id: str) -> None:
        self.localizer.want(topology_id)

    def assignment(self, topology_id: str) -> Assignment | None:
        return self.disk.memory.assignments.get(topology_id)

    def send(self, port: int, message: ToWorker) -> bool:
        return self.control.send(port, message)

    def collect_stacks(self, port: int, text: str) -> None:
        """Keep the stacks of one worker for the next heartbeat."""
        current = self.stations[port].slot
        if current.topology is not None:
            self.stacks_wanted.setdefault(current.topology, {})[f"{self.host}:{port} pid {current.pid}"] = text

    def leased(self) -> bool:
        return self.lease.held(self.clock.since_boot())

    def overdue(self) -> bool:
        return self.lease.overdue(self.clock.since_boot())

    def remember(self) -> None:
        """Write the memory down; a disk that does not take it costs a restart its memory, nothing now."""
        try:
            self.disk.save()
        except OSError as error:
            logger.error("%s cannot be written: %s", self.disk.state, error.strerror)

    def wall(self) -> float:
        return self.clock.wall()

    def announce_gone(self, port: int, topology_id: str, incarnation: int) -> None:
        """Tell every worker of the topology, here and elsewhere, that the process at our `port` is dead."""
        name = self.disk.memory.supervisor
        now = self.clock.now()
        word = Gone(SlotName(name, port), incarnation)
        self.dead[port] = (topology_id, word, now)
        for station in self.stations.values():
            if station.port != port and station.slot.topology == topology_id:
                self.control.send(station.port, word)
        assignment = self.assignment(topology_id)
        if assignment is None or name not in assignment.hosts:
            return
        dead = assignment.address(SlotName(name, port))
        for reader in self._peers_elsewhere(assignment):
            self.obituaries.append(Obituary(now, reader, topology_id, dead, incarnation))
        self._send_obituaries(now)

    def tell_of_the_dead(self, port: int, topology_id: str) -> None:
        for dead, (topology, word, seen_at) in self.dead.items():
            if dead != port and topology == topology_id:
                self.control.send(port, msgspec.structs.replace(word, age_s=self.clock.now() - seen_at))

    # Life

    def stop(self) -> None:
        """End `run` soon. From any thread or signal handler."""
        self.stopping.set()
        self.control.wake()

    def run(self) -> None:
        """Serve until `stop`."""
        try:
            self._begin()
            while not self.stopping.is_set():
                self._pass()
            if self.stop_workers:
                self._stop_workers()
        finally:
            self._close()

    def _begin(self) -> None:
        now = self.clock.now()
        memory = self.disk.memory
        self.disk.sweep()
        for port in self.stations:
            self.control.admit(port, memory.token)
        self._introduce()
        self._adopt(now)
        memory.ports = tuple(self.stations)
        for station in self.stations.values():
            if station.process is None:
                station.hold(now)
        self._assign(now)
        self.remember()
        logger.info("supervisor %s: slots %s, state in %s", memory.supervisor, _words(self.stations), self.disk.state)

    def _introduce(self) -> None:
        """Say beside the homes where this supervisor listens, and whom workers may ask without it."""
        topologies, memory = self.disk.topologies, self.disk.memory
        home.write_control(topologies, self.control.address, memory.token)
        if memory.cluster_id and not (topologies / home.NIMBUS).exists():
            home.write_nimbus(topologies, memory.cluster_id, self.seeds)

    def _adopt(self, now: float) -> None:
        """Take over the workers of an earlier supervisor, also those it had no time to write down; kill strays."""
        records = dict(self.disk.memory.workers)
        self.disk.memory.workers.clear()
        for found in processes.found_workers(self.disk.topologies):
            record = records.get(found.port)
            if record is None or record.identity != found.identity:
                record = WorkerRecord(found.home.name, found.identity)
            process = processes.adopt(found.identity)
            station = self.stations.get(found.port)
            if process is None:
                continue
            if station is None or station.process is not None:
                logger.warning("killing worker %d on port %d, which is no slot of ours", process.pid, found.port)
                process.kill()
                process.close()
            else:
                station.adopt(process, record, now)

    def _pass(self) -> None:
        now = self.clock.now()
        for port, _token, message in self.control.poll(self._next(now) - now, self._watched()):
            station = self.stations.get(port)
            if station is not None:
                station.hear(message, self.clock.now())
        now = self.clock.now()
        self._see_ends(now)
        self._take_arrivals(now)
        for news in self.uplink.take():
            match news:
                case Answered(reply=reply):
                    self._answered(reply, now)
                    self.replaced_at = math.inf
                case Unanswered(reason=reason, replaced=replaced):
                    self._say_of_nimbus(reason)
                    self._give_up(replaced, now)
                    self.heartbeat_at = min(self.heartbeat_at, now + patience_s(self.lease_s))
                case Pushed(progress=progress):
                    self._pushed(progress, now)
        for station in self.stations.values():
            if now >= station.slot.due:
                station.feed(slot.Tick(), now)
            if station.stacks is not None:
                station.look_for_stacks(now)
            station.look_at_lease(now)
        self._send_obituaries(now)
        if now >= self.look_at:
            self._look(now)
        self._report(now)

    def _next(self, now: float) -> float:
        """When the next pass is wanted, if nothing happens before."""
        soonest = min((station.slot.due for station in self.stations.values()), default=now + LOOK_S)
        soonest = min(soonest, self.look_at)
        if not self.uplink.busy:
            soonest = min(soonest, self.heartbeat_at)
        if self.obituaries:
            soonest = min(soonest, now + GONE_RETRY_S)
        if any(station.stacks is not None for station in self.stations.values()):
            soonest = min(soonest, now + BUSY_S)
        left_s = self.lease.until + self.lease.grace_s - self.clock.since_boot()
        return min(soonest, now + left_s) if left_s > 0 else soonest

    def _watched(self) -> list[int]:
        return [station.process.fileno() for station in self.stations.values() if station.process is not None]

    def _see_ends(self, now: float) -> None:
        waiting = {s.process.fileno(): s for s in self.stations.values() if s.process is not None}
        poller = select.poll()
        for descriptor in waiting:
            poller.register(descriptor, select.POLLIN)
        for descriptor, _event in poller.poll(0):
            waiting[descriptor].process_ended(now)

    def _look(self, now: float) -> None:
        """Once a second: are the workers alive, and is there a home or a connection nobody needs?"""
        self.look_at = now + LOOK_S
        for station in self.stations.values():
            station.look(now)
        needed = set(self.disk.memory.assignments)
        for station in self.stations.values():
            needed |= {name for name in (station.slot.topology, station.slot.wanted) if name is not None}
        self.upkeep.look(needed, now, self.wall())
        if self.network is not None:
            assignments = self.disk.memory.assignments.values()
            self.network.tend({reader for assignment in assignments for reader in self._peers_elsewhere(assignment)})

    # Code

    def _arrived(self, topology_id: str, reason: str) -> None:
        self.arrivals.put((topology_id, reason))
        self.control.wake()

    def _take_arrivals(self, now: float) -> None:
        while not self.arrivals.empty():
            topology_id, reason = self.arrivals.get()
            assignment = self.assignment(topology_id)
            if not reason and assignment is not None:
                reason = self._write_assignment(assignment)
            event = slot.LocalizeFailed(topology_id, reason) if reason else slot.Localized(topology_id)
            for station in self.stations.values():
                station.feed(event, now)

    def _write_assignment(self, assignment: Assignment) -> str:
        """Put an assignment where its workers find it; why it could not be done, or ''."""
        try:
            home.write_assignment(self.disk.home(assignment.topology_id), assignment)
        except OSError as error:
            return f"{error.strerror or error} ({error.filename or self.disk.topologies})"
        return ""

    # Nimbus

    def _report(self, now: float) -> None:
        changed = any(station.changed for station in self.stations.values()) or bool(self.stacks_wanted)
        if self.uplink.busy or not (now >= self.heartbeat_at or (changed and not self.nimbus_trouble)):
            return
        self.heartbeat_at = now + self.heartbeat_s
        self.asked_at = self.clock.since_boot()
        self.uplink.report(self._heartbeat())

    def _heartbeat(self, *, stopping: bool = False) -> Heartbeat:
        share = ERRORS_BYTES_MAX // max(1, len(self.stations))
        beats = [beat for station in self.stations.values() if (beat := station.report(share)) is not None]
        memory = self.disk.memory
        stacks, self.stacks_wanted = self.stacks_wanted, {}
        for station in self.stations.values():
            station.changed = False
        return Heartbeat(
            supervisor=memory.supervisor,
            host=self.host,
            incarnation=self.incarnation,
            ports=tuple([port for port, s in self.stations.items() if s.slot.state is not State.BLOCKED]),
            workers=tuple(share_positions(beats, self.turns)),
            known={name: (a.epoch, a.version) for name, a in memory.assignments.items()},
            python=platform.python_version(),
            packages=self.packages,
            public_key=self.keys.public.decode() if self.keys is not None else "",
            stopping=stopping,
            stacks=stacks,
            cluster_id=memory.cluster_id if memory.assignments else "",
            leader=(memory.cluster_id, memory.epoch),
            behind=behind(self.stations.values()),
        )

    def _answered(self, reply: HeartbeatReply, now: float) -> None:
        memory = self.disk.memory
        orders = weigh(memory.assignments, memory.cluster_id, memory.epoch, reply)
        self._say_of_nimbus(orders.refused)
        if orders.refused:
            return
        for station in self.stations.values():
            station.told()
        for digest in reply.lacking:
            self.localizer.offer(digest)
        first = self.lease.until == -math.inf
        self.lease.confirmed(self.asked_at)
        with contextlib.suppress(OSError):
            home.write_lease(self.disk.topologies, self.lease.until)
        before = (memory.cluster_id, memory.epoch)
        memory.cluster_id, memory.epoch = reply.cluster_id, reply.epoch
        if orders.newer or orders.dropped:
            self._take_orders(orders, now)
        elif before != (memory.cluster_id, memory.epoch):
            self.remember()
        if first or before[0] != memory.cluster_id:
            with contextlib.suppress(OSError):
                home.write_nimbus(self.disk.topologies, memory.cluster_id, self.seeds)

    def _give_up(self, replaced: bool, now: float) -> None:
        """After a whole lease in which another one spoke under our name, its workers run in the place of ours."""
        self.replaced_at = min(self.replaced_at, now) if replaced else math.inf
        dropped = tuple(sorted(self.disk.memory.assignments))
        if dropped and now >= self.replaced_at + self.lease_s:
            logger.warning("another supervisor has had our name for %g s: the workers here end", self.lease_s)
            self._take_orders(Orders(dropped=dropped), now)

    def _take_orders(self, orders: Orders, now: float) -> None:
        memory = self.disk.memory
        for assignment in orders.newer:
            memory.assignments[assignment.topology_id] = assignment
            if self.disk.home(assignment.topology_id).is_dir():
                self._write_assignment(assignment)
            for station in self.stations.values():
                if station.slot.topology == assignment.topology_id:
                    self.control.send(station.port, Assign(assignment))
        for topology_id in orders.dropped:
            del memory.assignments[topology_id]
            with contextlib.suppress(OSError):
                (self.disk.home(topology_id) / home.ASSIGNMENT).unlink(missing_ok=True)
        self.remember()
        self._assign(now)
        self.heartbeat_at = now

    def _assign(self, now: float) -> None:
        """Tell every slot what belongs there."""
        memory = self.disk.memory
        wanted = wanted_by_port(memory.assignments, memory.supervisor)
        for port, station in self.stations.items():
            station.feed(slot.Wanted(wanted.get(port)), now)

    def _say_of_nimbus(self, trouble: str) -> None:
        """Log what is wrong with Nimbus when it begins, changes or ends."""
        if trouble and trouble != self.nimbus_trouble:
            logger.warning("%s; the workers go on", trouble)
        elif self.nimbus_trouble and not trouble:
            logger.info("Nimbus answers again")
        self.nimbus_trouble = trouble

    def _pushed(self, progress: Progress, now: float) -> None:
        self.heartbeat_at = now
        if progress.stacks:
            for station in self.stations.values():
                if station.slot.topology == progress.topology_id:
                    station.ask_stacks(now)

    # Peers elsewhere

    def _peers_elsewhere(self, assignment: Assignment) -> list[str]:
        """Addresses of its workers at other supervisors."""
        name = self.disk.memory.supervisor
        return [assignment.address(peer) for peer in assignment.slots() if peer.supervisor != name]

    def _send_obituaries(self, now: float) -> None:
        """Frames to workers on other hosts, until the connection takes them or it no longer matters."""
        self.obituaries = [word for word in self.obituaries if now < word.seen_at + GONE_TRY_S]
        if not self.obituaries:
            return
        if self.network is None:
            try:
                self.network = ZmqNetwork("127.0.0.1", 0, self.keys)
            except RainbandError as error:
                self._say_of_the_way(f"{error}; workers on other hosts are not told yet of a death here")
                return
            self.way_trouble = ""
        send = self.network.send
        self.obituaries = [w for w in self.obituaries if not send(w.reader, w.frame(self.incarnation, now))]

    def _say_of_the_way(self, trouble: str) -> None:
        if trouble != self.way_trouble:
            logger.warning("%s", trouble)
        self.way_trouble = trouble

    # The end

    def _stop_workers(self) -> None:
        """Stop all workers; assignments stay on disk, for the next start."""
        now = self.clock.now()
        until = now + self.limits.shutdown_s + STOP_S
        stations = self.stations.values()
        for station in stations:
            station.feed(slot.Wanted(None), now)
        while any(station.process is not None for station in stations) and now < until:
            for port, _token, message in self.control.poll(BUSY_S, self._watched()):
                self.stations[port].hear(message, now)
            now = self.clock.now()
            self._see_ends(now)
            for station in stations:
                if now >= station.slot.due:
                    station.feed(slot.Tick(), now)

    def _close(self) -> None:
        goodbye = self._heartbeat(stopping=True) if self.stop_workers else None
        self.localizer.close()
        self.uplink.close(goodbye)
        self.downloads.close()
        for station in self.stations.values():
            station.close()
        self.control.close()
        if self.network is not None:
            self.network.close()
        self.remember()
        self.disk.close()


def random_id() -> int:
    """63 random bits from the operating system, never 0."""
    return int.from_bytes(os.urandom(8), "little") >> 1 or 1


def run(config: Config, *, slots: int | None = None, stop_workers: bool = False) -> None:
    """Run a supervisor until SIGTERM or SIGINT. `slots`: a number of slots, instead of supervisor.slots.ports."""
    disk = Disk(expanded(config["state.dir"]).resolve(), config["supervisor.id"] or "")
    supervisor = Supervisor(config, disk, ports.slot_ports(config, disk, slots), stop_workers=stop_workers)

    def end(number: int, frame: FrameType | None) -> None:
        supervisor.stop()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        supervisor.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _words(stations: dict[int, Station]) -> str:
    return ", ".join(str(port) for port in stations)
