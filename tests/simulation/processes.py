"""The process table: worker processes that can be killed, stopped and slowed, each a Worker in a shell of its own.

The shell does what rainband.worker.process does: beats, obeying the supervisor, draining when told to stop, asking
before going on after a gap longer than the lease, ending at the end of its lease when its topology is exclusive.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import msgspec

from rainband.messaging.control import NEVER_RAN_CODE, Assign, Beat, Gone, Hello, Stop, ToWorker
from rainband.records import Assignment, Slot, WorkerState
from rainband.supervisor.processes import Exit, Identity
from rainband.worker.routes import EdgeIds
from rainband.worker.worker import Worker
from simulation.desk import Desk
from simulation.wires import WireNetwork

if TYPE_CHECKING:
    from simulation.hosts import Host
    from simulation.world import World

BEAT_S = 1.0
IDLE_BEAT_S = 0.2
FOLLOWING_BEATS = 3
DRAIN_S = 1.0
LEASE_S = 30.0
ANSWER_S = 2.0
CONTROL_S = 0.0005
NEVER = float("inf")


class HostClock:
    """The clock of one host: virtual time with an offset of its own."""

    def __init__(self, world: World, address: str, offset: float) -> None:
        self.world = world
        self.address = address
        self.offset = offset

    def now(self) -> float:
        return self.world.time + self.offset

    def wall(self) -> float:
        return self.world.wall(self.address)


class NarrowIds(EdgeIds):
    """Ids of 8 bits: they collide all the time."""

    def again(self, state: int) -> EdgeIds:
        return NarrowIds(state)

    def next(self) -> int:
        return super().next() & 0xFF or 1


class WorkerProcess:
    """One process on `slot`. Its Worker exists once the interpreter is up, `spawn_s` after the start."""

    def __init__(self, host: Host, port: int, topology_id: str, pid: int) -> None:
        self.host = host
        self.world = host.world
        self.slot = Slot(host.name, port)
        self.port = port
        self.topology_id = topology_id
        self.pid = pid
        self.identity = Identity(pid, int(1000 * self.world.time), host.name)
        self.address = f"{host.address}:{port}"
        self.incarnation = self.world.draw_id()
        self.worker: Worker | None = None
        self.desk: Desk | None = None
        self.network: WireNetwork | None = None
        self.alive = True
        self.stopped = False
        self.stood: list[tuple[float, float]] = []
        self.stood_since = 0.0
        self.signalled = 0
        self.pass_s = self.world.options.pass_s
        self.next_at = NEVER
        self.token = 0
        self.stepped_at = 0.0
        self.booted_at = float("inf")
        self.placed_at = float("inf")
        self.passed_at = 0.0
        self.passes = 0
        self.received = 0
        self.said: list[ToWorker] = []
        self.greeted = 0
        self.beat_at = self.said_at = 0.0
        self.worked = False
        self.followed = 0
        self.stop_wanted = False
        self.stop_at = NEVER
        self.asking_until = 0.0
        self.answered = False
        self.exit = Exit(None, "", False)

    # Time

    def wake(self, at: float = 0.0) -> None:
        """Run a pass at `at` or as soon as may be."""
        if at < self.world.time:
            at = self.world.time
        if at < self.stepped_at + self.pass_s:
            at = self.stepped_at + self.pass_s
        if at < self.next_at and self.alive:
            self.next_at = at
            self.token += 1
            self.world.at(at, self._due, self.token)

    def _due(self, token: int) -> None:
        if token == self.token and self.alive:
            self.next_at = NEVER
            if not self.stopped:
                self.run()

    def set_stopped(self, stopped: bool) -> None:
        if stopped and not self.stopped:
            self.stood_since = self.world.time
        elif self.stopped and not stopped:
            self.stood.append((self.stood_since, self.world.time))
        self.stopped = stopped
        if not stopped:
            self.wake()

    def ran_s(self) -> float:
        """For how long it has run in all, not counting when it stood still."""
        stood_s = sum(end - begin for begin, end in self.stood if begin >= self.booted_at)
        if self.stopped:
            stood_s += self.world.time - max(self.booted_at, self.stood_since)
        return self.world.time - self.booted_at - stood_s

    # Begin

    def boot(self) -> None:
        """The interpreter is up: read the home, build the worker."""
        if not self.alive:
            return
        if self.stopped:
            self.world.after(0.1, self.boot)
            return
        assignment = self.host.homes.get(self.topology_id)
        if assignment is None or not assignment.on(self.slot):
            self.end(2, "its home is gone")
            return
        guest = self.world.guests[self.topology_id]
        self.network = WireNetwork(self.world.wires, self.address)
        self.network.box.wake_process = self.wake
        self.desk = Desk(guest.oracle, self)
        load = guest.load.topology
        self.worker = Worker(
            load.plan, assignment, self.slot, incarnation=self.incarnation, network=self.network, load=load.load,
            custom=load.custom_grouping, seed=self.world.draw_id(), clock=self.host.clock,
            positions=self.host.positions_of(self.topology_id), instruments=self.desk, virtual=True, alone=False,
            pid=self.pid,
        )  # fmt: skip
        self.desk.worker = self.worker
        if self.world.options.id_bits < 62:
            self.worker.agenda.ids = NarrowIds(self.worker.agenda.ids.state)
        self.booted_at = self.placed_at = self.world.time
        self.passed_at = self.host.clock.now()
        self.beat(self.passed_at)
        self.run()

    # The loop

    def run(self) -> None:
        """One turn of the loop of a real worker process."""
        worker = self.worker
        if worker is None:
            return
        self.stepped_at = self.world.time
        now = self.host.clock.now()
        if self.asking_until:
            self._wait_for_answer(now)
            return
        if now - self.passed_at > LEASE_S:
            self._ask(now)
            return
        if self.world.options.exclusive and now >= self.host.lease_until:
            self.end(0, "not confirmed, and exclusive")
            return
        self.passed_at = now
        before = worker.state
        deadline = worker.step(now)
        self.passes += 1
        self.world.steps += 1
        if worker.state is WorkerState.CRASHED:
            self.beat(now)
            self.end(NEVER_RAN_CODE if self.passes == 1 else 1, "exit code")
            return
        if deadline <= now:
            self.worked = True
        self.serve(now, deadline > now or worker.state is not before)
        if worker.state is not before and not self.answered:
            self.asking_until = now + ANSWER_S
        if self.stop_at != NEVER and self.alive and self.finished(now):
            self.end(0, "exit code 0")
        if self.alive:
            until = min(deadline, self.beat_at, self.stop_at, now + BEAT_S)
            self.wake(until - self.host.clock.offset)
            self.world.bounds.passed(self)

    def serve(self, now: float, idle: bool) -> None:
        said, self.said = self.said, []
        for message in said:
            self.obey(message, now)
        due = now >= self.beat_at
        if due:
            self.greet()
            if not self.still_wanted():
                self.stop_wanted = True
        if self.stop_wanted and self.stop_at == NEVER:
            assert self.worker is not None
            self.worker.life.set_active(False)
            self.stop_at = now + DRAIN_S
        if due or (idle and self.worked and now >= self.said_at + IDLE_BEAT_S):
            self.beat(now)

    def obey(self, message: ToWorker, now: float) -> None:
        assert self.worker is not None
        self.answered |= isinstance(message, Assign | Stop)
        if isinstance(message, Assign):
            self.world.note(f"apply {self.slot.supervisor}:{self.port} {message.assignment.version}")
            before = self.worker.assignment
            self.worker.apply(message.assignment, now)
            after = self.worker.assignment
            if after is not before:
                self.placed_at = self.world.time
            if (after.epoch, after.version) < (before.epoch, before.version):
                self.world.wrong("A1", f"{self.address} goes back from version {before.version} to {after.version}")
            if not message.assignment.on(self.slot):
                self.stop_wanted = True
            self.beat_at = now
        elif isinstance(message, Gone):
            self.worker.peer_gone(message.slot, message.incarnation, now, message.age_s)
        elif isinstance(message, Stop):
            self.stop_wanted = True
            if not message.drain:
                self.stop_at = now
        if self.desk is not None:
            self.desk.placed()

    def still_wanted(self) -> bool:
        assignment: Assignment | None = self.host.homes.get(self.topology_id)
        return assignment is not None and bool(assignment.on(self.slot))

    def finished(self, now: float) -> bool:
        if self.stop_at == NEVER:
            return False
        if now >= self.stop_at:
            return True
        assert self.worker is not None
        beat = self.worker.beat(now)
        self.world.hear_errors(beat)
        return beat.pending == 0 and beat.in_flight == 0

    def _ask(self, now: float) -> None:
        """It stood still for longer than its lease: its work may be somebody else's by now."""
        self.asking_until = now + ANSWER_S
        if not self.still_wanted():
            self.stop_wanted = True
        self.greeted = 0
        self.answered = False
        self.greet()
        self.wake(self.world.time + 0.02)

    def _wait_for_answer(self, now: float) -> None:
        said, self.said = self.said, []
        for message in said:
            self.obey(message, now)
        if self.answered or self.stop_wanted or now >= self.asking_until:
            self.asking_until = 0.0
            self.passed_at = now
        self.wake(self.world.time + 0.02)

    # The line to the supervisor

    def greet(self) -> None:
        """Say hello to a supervisor that has not heard of this process."""
        supervisor = self.host.supervisor
        if supervisor is not None and self.greeted != supervisor.incarnation:
            self.greeted = supervisor.incarnation
            supervisor.told(self.port, Hello(self.port, self.pid, self.incarnation, self.topology_id))

    def beat(self, now: float) -> None:
        assert self.worker is not None
        self.said_at = now
        self.followed = 0 if self.worked else self.followed + 1
        self.beat_at = now + (IDLE_BEAT_S if self.followed < FOLLOWING_BEATS else BEAT_S)
        self.worked = False
        beat = self.worker.beat(now)
        self.world.hear_errors(beat)
        self.greet()
        supervisor = self.host.supervisor
        if supervisor is not None:
            supervisor.told(self.port, Beat(msgspec.structs.replace(beat, errors=())))

    def tell(self, message: ToWorker) -> None:
        """The supervisor says something."""
        if self.alive:
            self.said.append(message)
            if self.worker is not None:
                self.wake()

    # The end

    def end(self, code: int, cause: str) -> None:
        """It ends by itself."""
        if code == 0 and self.worker is not None:
            now = self.host.clock.now()
            self.worker.stop(now)
            self.beat(now)
        self._gone(Exit(code, cause, False))

    def kill(self, from_outside: bool, cause: str = "killed by SIGKILL") -> None:
        """Gone at once; nothing is closed."""
        if self.alive:
            self._gone(Exit(-9, cause, from_outside))

    def _gone(self, how: Exit) -> None:
        self.alive = False
        self.exit = how
        if self.network is not None:
            self.network.close()
        if self.worker is not None:
            self.worker.sides.close()
        self.world.disturb()
        self.world.laws.process_gone(self, how)
        self.world.deaths.setdefault(self.address, []).append(self.world.time)
        self.host.process_gone(self)
        self.world.note(f"gone {self.host.name}:{self.port} {how.cause}")


class Handle:
    """What a supervisor holds of a process; stands for rainband.supervisor.processes.Process."""

    def __init__(self, process: WorkerProcess, child: bool) -> None:
        self.process = process
        self.child = child
        self.identity = process.identity
        self.pid = process.pid
        self.signalled = 0

    def alive(self) -> bool:
        return self.process.alive

    def send_signal(self, number: int) -> None:
        if not self.process.alive:
            return
        self.signalled = number
        if number == signal.SIGTERM:
            self.process.stop_wanted = True
            self.process.wake()

    def kill(self) -> None:
        self.signalled = signal.SIGKILL
        self.process.kill(from_outside=False)

    def reap(self, timeout_s: float = 5.0) -> Exit:
        if not self.child:
            return Exit(None, "gone while nobody watched it", True)
        return self.process.exit

    def close(self) -> None:
        """Nothing to let go of."""
