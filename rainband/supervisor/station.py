"""One slot as it really is: the state machine together with its process, its port, and what its worker said last.

`feed` steps the machine and carries out what it asks for. All of this runs on the daemon's thread.
"""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import msgspec

from rainband.errors import Refused
from rainband.messaging.control import (
    NEVER_RAN_CODE,
    AskStacks,
    Assign,
    Beat,
    FromWorker,
    Hello,
    StacksText,
    Stop,
    ToWorker,
)
from rainband.messaging.portions import ERRORS_BYTES_MAX, first_errors
from rainband.records import Assignment, ErrorRecord, WorkerBeat, WorkerState
from rainband.records import Slot as SlotName
from rainband.supervisor import ports, processes, slot
from rainband.supervisor.disk import Disk, WorkerRecord
from rainband.supervisor.localizer import localized
from rainband.supervisor.memory import WORDS, OomKills
from rainband.supervisor.processes import Exit, Process
from rainband.supervisor.pulse import Pulse
from rainband.supervisor.slot import Limits, Slot, State
from rainband.topology.home import Progress, read_plan, stacks_path, write_assignment

logger = logging.getLogger("rainband.supervisor")

ERRORS_KEPT_MAX = 20
LAST_WORDS_BYTES = 4000
CRASHED_CODES = (1, NEVER_RAN_CODE)
LAST_BEAT_S = 1.0
STACKS_ASK_S = 0.5
STACKS_DUMP_S = 0.3
STACKS_CHARS_MAX = 8000
IDLE_BEATS_TOLD = 4  # in a row at once: Nimbus compares those of all workers to be sure that everything is done
ORPHAN_LOOKS = 40
ORPHAN_LOOK_S = 0.05
SYSTEM = "__system"
UNCONFIRMED = "it is exclusive, and Nimbus has not confirmed it for a whole lease"
NOT_GIVEN_UP = "it is exclusive, and tasks that were taken away do not end"


class Shop(Protocol):
    """What a station needs of the daemon around it."""

    disk: Disk
    host: str
    limits: Limits
    worker_timeout_s: float
    lease_s: float
    beat_s: float
    environment: dict[str, str]
    keys_file: Path | None
    secrets: Path | None

    def localize(self, topology_id: str) -> None: ...

    def assignment(self, topology_id: str) -> Assignment | None: ...

    def send(self, port: int, message: ToWorker) -> bool: ...

    def announce_gone(self, port: int, topology_id: str, incarnation: int) -> None: ...

    def tell_of_the_dead(self, port: int, topology_id: str) -> None:
        """Tell a worker that says hello of the deaths it was too late to hear of."""

    def collect_stacks(self, port: int, text: str) -> None: ...

    def leased(self) -> bool:
        """Whether Nimbus has confirmed what runs here lately enough for what is exclusive to begin."""

    def overdue(self) -> bool:
        """Whether that was so long ago that what is exclusive should have ended by itself."""

    def remember(self) -> None: ...

    def wall(self) -> float:
        """Wall time in seconds, for people."""


@dataclass(slots=True)
class StacksRequest:
    """Stacks wanted since `at`; `dumped` once the process itself was told to write them, because nobody answered.

    `asked`: somebody wants to see them. `standstill`: they belong into the record that says so of the task `turn`.
    """

    at: float
    dumped: bool = False
    asked: bool = False
    standstill: str = ""
    turn: int = 0


class Station:
    """A slot. `changed` is set when Nimbus should hear of it at once."""

    def __init__(self, port: int, shop: Shop) -> None:
        self.port = port
        self.shop = shop
        self.slot = Slot(port)
        self.process: Process | None = None
        self.held: socket.socket | None = None
        self.beat: WorkerBeat | None = None
        self.errors: list[ErrorRecord] = []
        self.unexplained: dict[int, tuple[float, ErrorRecord]] = {}
        self.errors_sent: list[ErrorRecord] = []
        self.pulse: Pulse | None = None
        self.oom_kills: OomKills | None = None
        self.progress: Progress | None = None
        self.stacks: StacksRequest | None = None
        self.beats = 0
        self.idle_beats = 0
        self.exclusive = False
        self.taken_at = math.inf
        self.changed = False

    # The machine

    def feed(self, event: slot.Event, now: float) -> None:
        """Step the machine and do what it says."""
        before = self.slot.state
        self.slot, actions = slot.step(self.slot, event, now, self.shop.limits)
        for action in actions:
            self._perform(action, now)
        if self.slot.state is not before:
            self.changed = True
            logger.debug("slot %d: %s -> %s", self.port, before, self.slot.state)
        if self.slot.state is State.EMPTY and self.held is None:
            self.hold(now)

    def _perform(self, action: slot.Action, now: float) -> None:
        match action:
            case slot.Report(text=text):
                logger.info("slot %d: %s", self.port, text)
            case slot.Localize(topology=topology):
                self.shop.localize(topology)
            case slot.StartWorker(topology=topology):
                self.feed(self._start(topology), now)
            case slot.AskStop():
                self._ask_stop()
            case slot.Terminate():
                if self.process is not None:
                    self.process.send_signal(signal.SIGTERM)
            case slot.Kill():
                if self.process is not None:
                    self.process.kill()
            case slot.CheckPort():
                self.feed(self._check_port(), now)
            case slot.AnnounceGone(topology=topology):
                record = self.shop.disk.memory.workers.get(self.port)
                if record is not None and record.incarnation:
                    self.shop.announce_gone(self.port, topology, record.incarnation)

    def _ask_stop(self) -> None:
        """The worker finishes what it holds, unless its topology was killed: then nobody waits for that."""
        killed = self.slot.topology is None or self.shop.assignment(self.slot.topology) is None
        self.shop.send(self.port, Stop(drain=not killed))

    # The port

    def hold(self, now: float) -> None:
        """Keep the port of an empty slot from others, or find that somebody has it."""
        self.held = ports.hold(self.shop.host, self.port)
        if self.held is None:
            self.feed(slot.PortTaken(ports.describe_holder(self.port)), now)

    def _check_port(self) -> slot.Event:
        self.held = self.held or ports.hold(self.shop.host, self.port)
        return slot.PortFree() if self.held is not None else slot.PortTaken(ports.describe_holder(self.port))

    def release(self) -> None:
        if self.held is not None:
            self.held.close()
            self.held = None

    def _clear_port(self) -> bool:
        """Whether the port is free for a worker. One of our own that was left behind there is ended first."""
        if self.held is None:
            self.held = ports.hold(self.shop.host, self.port)
        if self.held is None:
            for found in processes.found_workers(self.shop.disk.topologies):
                orphan = processes.adopt(found.identity) if found.port == self.port else None
                if orphan is not None:
                    logger.warning("slot %d: killing worker %d, which nobody minds any more", self.port, orphan.pid)
                    orphan.kill()
                    orphan.close()
            self.held = self._hold_soon()
        free = self.held is not None
        self.release()
        return free

    def _hold_soon(self) -> socket.socket | None:
        """The port, once our own killed worker has let go of it."""
        for _ in range(ORPHAN_LOOKS):
            left = any(found.port == self.port for found in processes.found_workers(self.shop.disk.topologies))
            held = ports.hold(self.shop.host, self.port)
            if held is not None or not left:
                return held
            threading.Event().wait(ORPHAN_LOOK_S)
        return None

    # The process

    def _start(self, topology: str) -> slot.Event:
        disk = self.shop.disk
        home, log = disk.home(topology), disk.log(topology, self.port)
        if not localized(disk.topologies, topology):
            return slot.StartFailed(f"{home} is not complete")
        try:
            if not self._clear_port():
                return slot.PortTaken(ports.describe_holder(self.port))
        except OSError as error:
            return slot.StartFailed(f"{error.strerror or error} ({error.filename or home})")
        self.exclusive = is_exclusive(home)
        if self.exclusive and not self.shop.leased():
            return slot.StartFailed(UNCONFIRMED)
        assignment = self.shop.assignment(topology)
        if self.exclusive and assignment is not None:
            try:
                write_assignment(home, assignment)  # what lies there may be from before the disk was full
            except OSError as error:
                return slot.StartFailed(f"{error.strerror or error} ({error.filename or home})")
        name = SlotName(disk.memory.supervisor, self.port)
        shop = self.shop
        command = processes.worker_command(home, name, log, shop.lease_s, shop.beat_s, shop.keys_file, shop.secrets)
        try:
            self.process = processes.start(command, cwd=home, log=log, env=self.shop.environment)
        except OSError as error:
            return slot.StartFailed(f"{error.strerror or error} ({error.filename or command[0]})")
        self.oom_kills = OomKills(self.process.pid)
        self._remember(WorkerRecord(topology, self.process.identity, restarts=self.slot.restarts))
        logger.info("slot %d: started worker %d of %s", self.port, self.process.pid, topology)
        return slot.Started(self.process.pid)

    def adopt(self, process: Process, record: WorkerRecord, now: float) -> None:
        """Take over a worker that an earlier supervisor started."""
        self.process = process
        self.exclusive = is_exclusive(self.shop.disk.home(record.topology))
        self.oom_kills = OomKills(process.pid)
        self._remember(record)
        self.feed(slot.Adopted(record.topology, process.pid), now)

    def _remember(self, record: WorkerRecord | None) -> None:
        if record is None:
            self.shop.disk.memory.workers.pop(self.port, None)
        else:
            self.shop.disk.memory.workers[self.port] = record
        self.shop.remember()

    def process_ended(self, now: float) -> None:
        """The process is gone: end what it left, and let the machine decide."""
        assert self.process is not None
        pid = self.process.pid
        end = self._reap(self.process)
        self.process.close()
        self.process = None
        if self.progress is not None:
            self.progress.close()
        self.progress = self.pulse = self.stacks = None
        expected = self.slot.state is State.STOPPING
        if not expected and (self.beat is None or self.beat.pid != pid or self.beat.state is not WorkerState.CRASHED):
            patience_s = LAST_BEAT_S if end.code in CRASHED_CODES else 0.0
            self._record_end(pid, self.slot.cause if self.slot.killed else end.cause, now + patience_s)
            self._take_unexplained(now)
        self.feed(slot.Exited(pid, end.cause, end.from_outside, end.code == NEVER_RAN_CODE), now)
        if self.process is None:
            self._remember(None)
        if expected:
            self.beat = None

    def _reap(self, process: Process) -> Exit:
        """How it ended, also when that was for want of memory."""
        end = process.reap()
        if end.from_outside and not self.slot.killed and self.oom_kills is not None and self.oom_kills.more():
            return replace(end, cause=f"{end.cause}, {WORDS}")
        return end

    def _record_end(self, pid: int, cause: str, due: float) -> None:
        """An end without a word of the worker itself, told in its place; after a crash its word may be under way."""
        text = f"worker {pid} on {self.shop.host}:{self.port} ended: {cause}"
        words = self._last_words() if self.slot.topology else ""
        record = ErrorRecord(SYSTEM, 0, self.shop.host, self.port, self.shop.wall(), text, words)
        self.unexplained[pid] = (due, record)

    def _take_unexplained(self, now: float) -> None:
        for pid, (due, record) in list(self.unexplained.items()):
            if now >= due:
                self.errors.append(record)
                del self.unexplained[pid]

    def _last_words(self) -> str:
        with contextlib.suppress(OSError, Refused):
            with self.shop.disk.log(self.slot.topology or "", self.port).open("rb") as log:
                log.seek(max(0, log.seek(0, 2) - LAST_WORDS_BYTES))
                return log.read().decode(errors="replace")
        return ""

    def look_at_lease(self, now: float) -> None:
        """Kill a worker that should have ended with the lease, or given up tasks at the word of Nimbus, and has not."""
        if self.process is not None and self.exclusive and self.shop.overdue():
            self.feed(slot.Stalled(self.process.pid, UNCONFIRMED), now)
        assignment = self.shop.assignment(self.slot.topology or "")
        if assignment is None or not assignment.leaving or not self._is_left(assignment) or not self.behind():
            self.taken_at = math.inf
            return
        self.taken_at = min(self.taken_at, now)
        if self.process is not None and now >= self.taken_at + self.shop.limits.shutdown_s:
            self.feed(slot.Stalled(self.process.pid, NOT_GIVEN_UP), now)

    def _is_left(self, assignment: Assignment) -> bool:
        """Whether tasks have to end here before they may begin elsewhere."""
        name = SlotName(self.shop.disk.memory.supervisor, self.port)
        return any(left.slot == name for left in assignment.leaving)

    def look(self, now: float) -> None:
        """Once a second: is the worker only slow?"""
        self._take_unexplained(now)
        if self.process is None or self.slot.state is not State.RUNNING:
            return
        if self.oom_kills is not None:
            self.oom_kills = self.oom_kills.follow()
        if self.pulse is None:
            self.pulse = Pulse(self.shop.worker_timeout_s, now)
        if self.progress is None:
            with contextlib.suppress(OSError):
                self.progress = Progress(self.shop.disk.home(self.slot.topology or ""), self.port)
        passes = self.beats + (self.progress.read()[0] if self.progress is not None else 0)
        sample = processes.look(self.process.identity, passes)
        reason = self.pulse.look(sample, now) if sample is not None else ""
        standstill = self.pulse.standstill(now)
        if standstill:
            self.stacks = self.stacks or StacksRequest(now - STACKS_ASK_S)
            self.stacks.standstill = standstill
            self.stacks.turn = self.progress.turn[0] if self.progress is not None else 0
        if reason:
            self.feed(slot.Stalled(self.process.pid, reason), now)

    # What the worker says

    def hear(self, message: FromWorker, now: float) -> None:
        match message:
            case Hello(pid=pid, incarnation=incarnation):
                self._greet(pid, incarnation)
            case Beat(beat=beat):
                self._take_beat(beat, now)
            case StacksText(text=text):
                self._take_stacks(text)

    def _greet(self, pid: int, incarnation: int) -> None:
        record = self.shop.disk.memory.workers.get(self.port)
        if self.process is None or pid != self.process.pid or record is None:
            self.shop.send(self.port, Stop(drain=False))
            return
        if record.incarnation != incarnation:
            self._remember(msgspec.structs.replace(record, incarnation=incarnation))
        if self.slot.state is State.STOPPING:
            self._ask_stop()
            return
        assignment = self.shop.assignment(record.topology)
        self.shop.tell_of_the_dead(self.port, record.topology)
        if assignment is not None:
            self.shop.send(self.port, Assign(assignment))

    def _take_beat(self, beat: WorkerBeat, now: float) -> None:
        self.errors = [*self.errors, *beat.errors][-ERRORS_KEPT_MAX:]
        if beat.state is WorkerState.CRASHED:
            self.unexplained.pop(beat.pid, None)
        if beat.pid != self.slot.pid and beat.state is not WorkerState.CRASHED:
            return
        last, self.beat = self.beat, with_positions_of(self.beat, msgspec.structs.replace(beat, errors=()))
        self.beats += 1
        self.idle_beats = self.idle_beats + 1 if beat.pending == 0 and beat.in_flight == 0 else 0
        still_news = 0 < self.idle_beats <= IDLE_BEATS_TOLD
        self.changed |= bool(beat.errors) or last is None or news_in(last) != news_in(beat) or still_news
        if beat.state is WorkerState.RUNNING:
            self.feed(slot.Ready(beat.pid), now)

    # What Nimbus is told

    def report(self, errors_bytes_max: int = ERRORS_BYTES_MAX) -> WorkerBeat | None:
        """The worker's last word, or in its place why there is none. None for a slot with nothing to say."""
        current = self.slot
        topology = current.topology or current.wanted
        told, later = first_errors([*self.errors_sent, *self.errors][-ERRORS_KEPT_MAX:], errors_bytes_max)
        self.errors_sent, self.errors = list(told), list(later)
        if topology is None or current.state is State.STOPPING:
            return None
        beat = self.beat
        if beat is None or beat.topology_id != topology:
            if not (current.cause or self.errors_sent):
                return None
            beat = WorkerBeat(topology, self.port, current.pid, 0, 0, WorkerState.CRASHED)
        state = beat.state if beat.pid == current.pid else WorkerState.CRASHED
        return msgspec.structs.replace(
            beat, state=state, errors=tuple(self.errors_sent), restarts=current.restarts, note=current.cause
        )

    def behind(self) -> bool:
        """Whether a process is here that may still run what this supervisor's assignment gives to others."""
        if self.process is None:
            return False
        beat, assignment = self.beat, self.shop.assignment(self.slot.topology or "")
        if beat is None or assignment is None or self.slot.state is State.STOPPING:
            return True
        current = (beat.pid, beat.epoch, beat.version) == (self.process.pid, assignment.epoch, assignment.version)
        return not current or beat.leaving > 0

    def told(self) -> None:
        """Nimbus has what `report` last said."""
        self.errors_sent = []

    # Stacks

    def ask_stacks(self, now: float) -> None:
        if self.process is not None and self.beat is not None:
            self.stacks = self.stacks or StacksRequest(now)
            self.stacks.asked = True
            self.shop.send(self.port, AskStacks())

    def _take_stacks(self, text: str) -> None:
        request, self.stacks = self.stacks, None
        if request is None:
            return
        if request.asked:
            self.shop.collect_stacks(self.port, text)
        if request.standstill:
            self._record_standstill(request, text)

    def _record_standstill(self, request: StacksRequest, text: str) -> None:
        """Say which task does not come back, and where it is."""
        plan = read_plan(self.shop.disk.home(self.slot.topology or ""))
        component = plan.component_of.get(request.turn, SYSTEM) if plan is not None else SYSTEM
        who = f"component '{component}', task {request.turn}: {request.standstill}"
        logger.warning("slot %d: worker %d of %s: %s\n%s", self.port, self.slot.pid, self.slot.topology, who, text)
        where = component, request.turn, self.shop.host, self.port
        self.errors.append(ErrorRecord(*where, self.shop.wall(), request.standstill, text[-STACKS_CHARS_MAX:]))
        self.changed = True

    def look_for_stacks(self, now: float) -> None:
        """A worker too busy to answer is made to write them by a signal, which even a long C call lets through."""
        if self.stacks is None or self.process is None:
            return
        path = stacks_path(self.shop.disk.home(self.slot.topology or ""), self.port)
        if not self.stacks.dumped and now >= self.stacks.at + STACKS_ASK_S:
            with contextlib.suppress(OSError):
                path.write_bytes(b"")
            self.process.send_signal(signal.SIGUSR1)
            self.stacks.at, self.stacks.dumped = now, True
        elif self.stacks.dumped and now >= self.stacks.at + STACKS_DUMP_S:
            text = ""
            with contextlib.suppress(OSError):
                text = path.read_text(errors="replace")
            self._take_stacks(text or "the worker did not answer")

    def close(self) -> None:
        """Let go of everything; the worker goes on."""
        self.release()
        if self.process is not None:
            self.process.close()
        if self.progress is not None:
            self.progress.close()


def behind(stations: Iterable[Station]) -> dict[str, tuple[int, ...]]:
    """The ports, by topology, where something may still run that was taken away."""
    found: dict[str, tuple[int, ...]] = {}
    for station in stations:
        if station.behind():
            topology = station.slot.topology or ""
            found[topology] = (*found.get(topology, ()), station.port)
    return found


def is_exclusive(home: Path) -> bool:
    """Whether the topology may never run in two places at once."""
    plan = read_plan(home)
    return plan is not None and bool(plan.config.get("topology.exclusive", False))


def with_positions_of(last: WorkerBeat | None, beat: WorkerBeat) -> WorkerBeat:
    """`beat`, with what the one before told of tasks that have not left since: not each beat has all positions."""
    if last is None or last.incarnation != beat.incarnation or not last.positions:
        return beat
    here = {count.task for count in beat.tasks}
    kept = {task: position for task, position in last.positions.items() if task in here}
    return msgspec.structs.replace(beat, positions={**kept, **beat.positions})


def news_in(beat: WorkerBeat) -> tuple[object, ...]:
    """What Nimbus should hear of without waiting for the next heartbeat."""
    return (beat.pid, beat.state, beat.epoch, beat.version, beat.drained, beat.paused, beat.leaving)
