"""The process around a worker: its loop, its log, its line to the supervisor, its end.

    python -m rainband.worker --home DIR --supervisor ID --port N --log FILE [--lease SECONDS] [--beat SECONDS]
        [--keys FILE] [--secrets DIR]

The loop steps the Worker, shows progress in shared memory, answers the supervisor and sleeps until something comes.
A worker needs no supervisor to go on: when that is gone it keeps working and looks for a new one in the control file
beside its home. It ends by itself when its home or its place in the assignment is gone, when told to (SIGTERM means the
same as Stop: finish what is here, then close), and with exit code 70 when it could not start: user code that cannot be
imported, a raise in open or prepare. By that code alone its supervisor knows that nothing was lost with it. A worker of
a topology that is `topology.exclusive` also ends when its supervisor has had no answer of Nimbus for most of a lease.
"""

from __future__ import annotations

import atexit
import faulthandler
import logging
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType
from typing import NoReturn

import msgspec

from rainband.build import compiled
from rainband.clock import SystemClock
from rainband.cluster.positions import PositionStore
from rainband.errors import RainbandError, Refused, StoreError, UsageError
from rainband.groupings.specs import CustomGrouping
from rainband.messaging.control import NEVER_RAN_CODE, AskStacks, Assign, Beat, Gone, Hello, StacksText, Stop
from rainband.messaging.keys import Keys
from rainband.messaging.network import ZmqNetwork
from rainband.messaging.portions import first_errors
from rainband.messaging.value_types import trust_code
from rainband.records import Assignment, ErrorRecord, Slot, WorkerBeat, WorkerState
from rainband.topology import imports
from rainband.topology.bundle import check_component, load_component
from rainband.topology.home import (
    CODE,
    POSITIONS,
    Progress,
    is_placed,
    open_lease,
    read_assignment,
    read_lease,
    read_plan,
    stacks_path,
)
from rainband.topology.plan import Plan
from rainband.topology.secrets import Secrets
from rainband.worker import leash
from rainband.worker.guard import Guard
from rainband.worker.lanes import AsyncLane, ThreadLane
from rainband.worker.line import SupervisorLine
from rainband.worker.logfile import LogFile, capture
from rainband.worker.lookout import Lookout
from rainband.worker.watch import Watch
from rainband.worker.worker import Worker

logger = logging.getLogger("rainband.worker")

LOOK_S = 1.0
BUSY_SHARE = 0.2
FOLLOWING_BEATS = 3  # as soon as those at work: that all is done takes more than one look to be sure of
SERVE_S = 0.01
DRAIN_S = 1.0
ANSWER_S = 2.0
ERRORS_KEPT_MAX = 100
SYSTEM = "__system"
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Arguments(msgspec.Struct, frozen=True):
    """The command line of a worker."""

    home: Path
    slot: Slot
    log: Path
    lease_s: float = 30.0
    beat_s: float = 1.0
    keys: Path | None = None
    secrets: Path | None = None

    @staticmethod
    def parse(words: list[str]) -> Arguments:
        """Raises UsageError."""
        given = dict(zip(words[::2], words[1::2], strict=False))
        needed = {"--home", "--supervisor", "--port", "--log"}
        try:
            if len(words) % 2 or not needed <= set(given) <= needed | {"--keys", "--lease", "--beat", "--secrets"}:
                raise ValueError
            slot = Slot(given["--supervisor"], int(given["--port"]))
            keys, secrets = (Path(given[name]) if name in given else None for name in ("--keys", "--secrets"))
            lease_s, beat_s = float(given.get("--lease", 30.0)), float(given.get("--beat", 1.0))
            return Arguments(Path(given["--home"]), slot, Path(given["--log"]), lease_s, beat_s, keys, secrets)
        except ValueError:
            fix = "Use `rainband supervisor`"
            raise UsageError("workers are started by their supervisor, not by hand", fix) from None


class WorkerProcess:
    """Everything a worker process has besides its Worker. `run` returns the exit code."""

    def __init__(self, arguments: Arguments, log: LogFile) -> None:
        self.home = arguments.home
        self.slot = arguments.slot
        self.port = arguments.slot.port
        self.keys = arguments.keys
        self.secrets = Secrets(directory=arguments.secrets, env=os.environ)
        self.lease_s = arguments.lease_s
        self.beat_s = arguments.beat_s
        self.busy_beat_s = arguments.beat_s * BUSY_SHARE
        self.log = log
        self.clock = SystemClock()
        self.incarnation = _random_id()
        self.loading = SYSTEM
        self.stop_wanted = False
        self.stop_at = float("inf")
        self.passed_at = self.clock.since_boot()
        self.leased_until = float("inf")
        self.beat_at = 0.0
        self.look_at = 0.0
        self.said_at = 0.0
        self.serve_at = 0.0
        self.worked = False
        self.ran = False
        self.answered = False
        self.heard = False
        self.followed = 0
        self.errors: tuple[ErrorRecord, ...] = ()

    def run(self) -> int:
        """Work until told to stop or until there is no reason to go on. Raises RainbandError when it cannot begin."""
        plan, assignment = self._read_home()
        if plan.config.get("topology.exclusive", False):
            self.lease = open_lease(self.home.parent)
            self.leased_until = read_lease(self.lease)
            leash.start(self.lease, self.lease_s, self.clock.since_boot)
        self.compiled = compiled()
        hello = Hello(self.port, os.getpid(), self.incarnation, assignment.topology_id)
        self.line = SupervisorLine(self.home.parent, hello)
        keys = Keys.load(self.keys) if self.keys else None
        self.host = assignment.hosts[self.slot.supervisor]
        self.network = ZmqNetwork(self.host, self.port, keys)
        self.line.watched_by(self.network)
        self.lookout = Lookout(self.home.parent, keys, plan.name, self.slot, self.network.wake)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        try:
            self.progress = Progress(self.home, self.port, write=True)
            self._enter_code()
            self.guard = Guard(self._lane_threads)
            self.worker = self._make_worker(plan, assignment)
            self.worker.agenda.turn = self.progress.turn
            self.watch = Watch(self.worker.timeout_s)
            self.loading = SYSTEM
            self._beat(self.clock.now())
            self.worker.step(self.clock.now())
            if self.worker.state is WorkerState.CRASHED:
                return self._end(NEVER_RAN_CODE)
            self._beat(self.clock.now())
            self._await_answer()
            self.ran = True
            return self._loop()
        except BaseException as error:
            self._crash(assignment, error)
            return 1 if self.ran else NEVER_RAN_CODE
        finally:
            self.line.close()

    def _read_home(self) -> tuple[Plan, Assignment]:
        plan, assignment = read_plan(self.home), read_assignment(self.home)
        if plan is None or assignment is None:
            raise Refused(f"{self.home} is not the home of a topology", "Workers are started by their supervisor")
        if not assignment.on(self.slot):
            raise Refused(f"nothing of {assignment.topology_id} belongs on {self.slot.supervisor}:{self.port}")
        return plan, assignment

    def _enter_code(self) -> None:
        """The topology's own modules come before all that is installed and its files are here, as where it was written.

        Nothing is compiled into its home: with an open umask others could write there what the next worker runs.
        """
        sys.dont_write_bytecode = True
        code = self.home / CODE
        os.chdir(code)
        imports.enter(str(code))
        trust_code(str(code))

    def _make_worker(self, plan: Plan, assignment: Assignment) -> Worker:
        def load(component: str) -> object:
            self.loading = component
            loaded = load_component(self.home, plan.components[component].digest)
            check_component(loaded, plan.components[component])
            return loaded

        def custom(digest: str) -> CustomGrouping:
            grouping = load_component(self.home, digest)
            assert isinstance(grouping, CustomGrouping)
            return grouping

        return Worker(
            plan,
            assignment,
            self.slot,
            incarnation=self.incarnation,
            network=self.network,
            load=load,
            custom=custom,
            seed=_random_id(),
            clock=self.clock,
            positions=Positions(PositionStore(self.home / POSITIONS)),
            secrets=self.secrets,
            pid=os.getpid(),
        )

    # The loop

    def _loop(self) -> int:
        worker, network, clock, progress = self.worker, self.network, self.clock, self.progress
        now, self.passed_at = clock.now(), clock.since_boot()
        while True:
            awake = clock.since_boot()
            if awake - self.passed_at > self.lease_s:
                self._ask_before_going_on(awake)
            if awake >= self.leased_until:
                self._look_at_lease(awake, now)
            if self.stop_at <= now:
                return self._end(0)
            self.passed_at = awake
            deadline = worker.step(now)
            progress.write(worker.passes, int(now * 1e9))
            if worker.state is WorkerState.CRASHED:
                return self._end(1)
            if deadline <= now:
                self.worked = True
            if now >= self.serve_at or deadline > now:
                self._serve(now, idle=deadline > now)
                if self._finished(now):
                    return self._end(0)
            if deadline > now:
                leased_until = now + (self.leased_until - awake)
                network.wait(min(deadline, self.beat_at, self.look_at, self.stop_at, leased_until) - clock.now())
            now = clock.now()

    def _serve(self, now: float, *, idle: bool) -> None:
        """What the supervisor said; a look around, and a beat, when they are due or the last work is done."""
        self.serve_at = now + SERVE_S
        for message in self.line.receive():
            self._obey(message, now)
        if now >= self.look_at:
            self.look_at = now + LOOK_S
            self.log.check()
            self.line.renew()
            self.network.tend(self.worker.links.by_address.keys())
            if not self._still_wanted():
                self.stop_wanted = True
            self.lookout.look(now, self.heard, self.worker.assignment)
        if self.lookout.unwanted and self.stop_at > now:
            logger.info("%s while no supervisor was there: the worker ends", self.lookout.unwanted)
            self.stop_wanted = True
            self.stop_at = now
        if self.stop_wanted and self.stop_at == float("inf"):
            self.worker.life.set_active(False)
            self.stop_at = now + DRAIN_S
        if now >= self.beat_at or (idle and self.worked and now >= self.said_at + self.busy_beat_s):
            self._beat(now)

    def _await_answer(self) -> None:
        """Until the supervisor has answered our hello: who has died before is known before the first tuple leaves."""
        until = self.clock.now() + ANSWER_S
        while self.line.found and not self.stop_wanted and self.clock.now() < until:
            for message in self.line.receive():
                self._obey(message, self.clock.now())
            if self.answered:
                return
            self.network.wait(0.02)

    def _obey(self, message: object, now: float) -> None:
        self.answered |= isinstance(message, Assign | Stop)
        if isinstance(message, Assign):
            self._take_assignment(message.assignment, now)
        elif isinstance(message, Gone):
            self.worker.peer_gone(message.slot, message.incarnation, now, message.age_s)
        elif isinstance(message, AskStacks):
            self.line.send(StacksText("\n".join((stacks(), *self._lane_stacks()))))
        elif isinstance(message, Stop):
            self.stop_wanted = True
            if not message.drain:
                self.stop_at = now

    def _take_assignment(self, assignment: Assignment, now: float) -> None:
        """Apply it, or end when it gives this host another address: a worker cannot move its socket to that."""
        self.beat_at = now
        host = assignment.hosts.get(self.slot.supervisor, "") or self.host
        if host != self.host and assignment.on(self.slot):
            if self.stop_at > now:
                logger.warning("this host is now %s, the worker listens on %s: it ends", host, self.host)
            self.stop_wanted = True
            self.stop_at = now
            return
        self.worker.apply(assignment, now)
        if not assignment.on(self.slot):
            self.stop_wanted = True

    def _still_wanted(self) -> bool:
        """False once the supervisor has taken the topology away, even if nobody is left to say so."""
        return is_placed(self.home, self.slot)

    def _finished(self, now: float) -> bool:
        if self.stop_at == float("inf"):
            return False
        if now >= self.stop_at:
            return True
        beat = self.worker.beat(now)
        self.errors += beat.errors
        return beat.pending == 0 and beat.in_flight == 0

    def _look_at_lease(self, awake: float, now: float) -> None:
        """End an exclusive worker at the end of its lease, without a further call of user code but close."""
        self.leased_until = read_lease(self.lease)
        if awake >= self.leased_until and self.stop_at > now:
            logger.warning("it is exclusive, and Nimbus has not confirmed it in time: it ends")
            self.stop_wanted = True
            self.stop_at = now

    def _ask_before_going_on(self, awake: float) -> None:
        """This process stood still for longer than its lease: its work may be somebody else's by now."""
        logger.warning("stood still for %.0f s; asking whether to go on", awake - self.passed_at)
        if not self._still_wanted():
            self.stop_wanted = True
        self.line.renew()
        self.line.greet()
        self.answered = False
        self._await_answer()

    def _end(self, code: int) -> int:
        now = self.clock.now()
        if code == 0:
            self.worker.stop(now)
        self._beat(now)
        self.network.close()
        return code

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop_wanted = True
        self.network.wake()

    def _lane_threads(self) -> list[threading.Thread]:
        lanes = self.worker.sides.lanes.values()
        return [lane.thread for lane in lanes if isinstance(lane, ThreadLane | AsyncLane)]

    def _lane_stacks(self) -> list[str]:
        """Where coroutines wait: they have no thread that would show it."""
        sides = self.worker.sides
        components = {made.component for task, made in self.worker.wiring.tasks.items() if task in sides.lane_of}
        lanes = [lane for lane in sides.lanes.values() if isinstance(lane, AsyncLane)]
        found = [(name, text) for lane in lanes for name in sorted(components) if (text := lane.stack(name))]
        return [f"Coroutines of {name}:\n{text}" for name, text in found]

    # Reports

    def _beat(self, now: float) -> None:
        self.said_at = now
        self.followed = 0 if self.worked else self.followed + 1
        self.beat_at = now + (self.busy_beat_s if self.followed < FOLLOWING_BEATS else self.beat_s)
        self.worked = False
        beat = self.worker.beat(now)
        for error in beat.errors:
            text = error.traceback or error.error
            logger.error("component %s, task %d, tuple %s\n%s", error.component, error.task, error.tuple or "-", text)
        self.guard.look(self.worker.wiring.tasks.values())
        for line in self.watch.lines(self.worker.wiring.tasks.values(), self.worker.links, now):
            logger.warning(line)
        waiting = self.errors + beat.errors + self._noticed(now)
        errors, later = first_errors(waiting)
        self.errors = later[-ERRORS_KEPT_MAX:]
        if self.log.dropped:
            beat.counters["log_bytes_dropped"] = self.log.dropped
        beat = msgspec.structs.replace(beat, errors=errors, rss_bytes=_rss_bytes(), compiled=self.compiled)
        self.heard = self.line.send(Beat(beat))
        if not self.heard:
            self.errors = waiting[-ERRORS_KEPT_MAX:]

    def _noticed(self, now: float) -> tuple[ErrorRecord, ...]:
        """Records that name the bolts beside the loop that do not come back, with their stacks, and those that leak."""
        records = []
        tasks = self.worker.wiring.tasks.values()
        stuck, lane_of = self.watch.stuck(tasks, now), self.worker.sides.lane_of
        found = [(made, text, lane_of[made.task].stack(made.component)) for made, text in stuck]
        found += [(made, text, "") for made, text in self.watch.leaking(tasks, now)]
        for made, text, stack in found:
            logger.warning("component '%s', task %d: %s\n%s", made.component, made.task, text, stack)
            where = made.component, made.task, self.host, self.port
            records.append(ErrorRecord(*where, self.clock.wall(), text, stack[-8000:]))
        return tuple(records)

    def _crash(self, assignment: Assignment, error: BaseException) -> None:
        """Tell of an error outside every task: user code that cannot be imported, or a fault of our own."""
        text = "".join(traceback.format_exception(error))
        logger.error("the worker ends\n%s", text)
        host = assignment.hosts[self.slot.supervisor]
        message = f"{type(error).__name__}: {error}"
        record = ErrorRecord(self.loading, 0, host, self.port, self.clock.wall(), message[:2000], text[-8000:])
        version, state = assignment.version, WorkerState.CRASHED
        beat = WorkerBeat(assignment.topology_id, self.port, os.getpid(), self.incarnation, version, state)
        beat = msgspec.structs.replace(beat, errors=(*self.errors, record), note=message[:2000])
        for _ in range(50):
            if self.line.send(Beat(beat)):
                return
            self.network.wait(0.02)


class Positions:
    """Positions that a disk may refuse: then more is replayed after a death, and the topology runs on."""

    def __init__(self, store: PositionStore) -> None:
        self._store = store
        self._failing = False

    def get(self, component: str, task_index: int) -> bytes | None:
        return self._store.get(component, task_index)

    def put_many(self, positions: dict[tuple[str, int], bytes]) -> None:
        try:
            self._store.put_many(positions)
            self._failing = False
        except StoreError as error:
            if not self._failing:
                logger.warning("positions of spouts are not stored: %s", error)
            self._failing = True


def stacks() -> str:
    """The Python stacks of all threads of this process."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        parts.append(f"Thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}")
    return "\n".join(parts)


def stacks_file(arguments: Arguments) -> int:
    """Where the process writes its stacks on SIGUSR1. Raises Refused when there is no home to write to."""
    try:
        path = stacks_path(arguments.home, arguments.slot.port)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Refused(f"{arguments.home} cannot be used: {error.strerror}") from None


def _random_id() -> int:
    """63 random bits from the operating system, never 0."""
    return int.from_bytes(os.urandom(8), "little") >> 1 or 1


def _rss_bytes() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * PAGE_BYTES
    except OSError:
        return 0


def main(words: list[str]) -> NoReturn:
    """Run a worker process and end it, whatever threads user code has left behind."""
    faulthandler.enable(2)
    try:
        arguments = Arguments.parse(words)
        log = capture(arguments.log)
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        faulthandler.register(signal.SIGUSR1, stacks_file(arguments), all_threads=True)
        code = WorkerProcess(arguments, log).run()
    except RainbandError as error:
        sys.stderr.write(f"error: {error}\n")
        code = error.exit_code
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
