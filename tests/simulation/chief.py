"""Nimbus processes: the real Service, whose sockets, threads and clock are the simulation's.

Alone on a disk of its own, or one of several over an Ensemble with elections.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

from rainband.cluster.election import Alone
from rainband.config import Config
from rainband.errors import ClusterUnavailable, RainbandError
from rainband.messaging.rpc import failure
from rainband.nimbus.copies import UPKEEP_S, Copies
from rainband.nimbus.service import Service
from rainband.nimbus.state import Opened
from rainband.records import Failure, Heartbeat, Progress, Request, Response
from simulation.disks import Crash, SimBlobs, SimStore
from simulation.ensemble import ActorClock, Line, SharedStore

if TYPE_CHECKING:
    from simulation.world import World

MONITOR_S = 1.0
EXPIRY_S = 8.0
Answer = Callable[[Response | None], None]


class SimServer:
    """What the Service takes for its RpcServer. A peer is the name of who asked, a request id finds the way back."""

    def __init__(self, process: NimbusProcess) -> None:
        self.process = process
        self.address = process.address
        self.answers: dict[int, Answer] = {}

    def reply(self, peer: bytes, request_id: int, response: Response) -> bool:
        process = self.process
        if isinstance(response, Failure) and response.code == "error":
            process.world.wrong("X0", f"nimbus {process.number}: {response.message}")
        process.world.after(process.clock.spent_s, self.answers.pop(request_id), response)
        return True

    def push(self, peer: bytes, progress: Progress) -> bool:
        self.process.world.push(self.process.address, peer.decode(), progress)
        return True

    def wake(self) -> None:
        self.process.wake()

    def close(self) -> None:
        """Nothing to let go of."""


class Peer:
    """The line of one Nimbus's copies to another Nimbus, which answers while the caller waits."""

    def __init__(self, process: NimbusProcess, address: str) -> None:
        self.process = process
        self.address = address

    def call(self, request: Request) -> Response:
        world = self.process.world
        other = next((p for p in world.living_nimbuses() if p.address == self.address and not p.stopped), None)
        wires = world.wires
        if other is None or not wires.passes(self.process.address, self.address):
            raise ClusterUnavailable(f"{self.address} does not answer")
        response = other.service.answer_peer(request)
        if not wires.passes(self.address, self.process.address):
            raise ClusterUnavailable(f"{self.address} does not answer")
        if isinstance(response, Failure):
            raise failure(response)
        return response


class SimCopies(Copies):
    """The real pushing and fetching of bundles, without the thread."""

    def __init__(self, process: NimbusProcess, others: Any, wake: Callable[[], None]) -> None:
        self.process = process
        self._store = process.store
        self._blobs = process.blobs
        self._depot = None
        self._others = others
        self._wake = wake
        self._found: list[Any] = []
        self.looks = 0
        self.look(0)

    def _tell(self, news: Any) -> None:
        self._found.append(news)
        self._wake()

    def take(self) -> list[Any]:
        found, self._found = self._found, []
        return found

    def push(self, digest: str) -> None:
        self.process.world.after(0.05, self.copy, digest)

    def copy(self, digest: str) -> None:
        if self.process.alive and not self.process.stopped:
            self._tell(self._push(digest))

    def upkeep(self) -> None:
        self.looks += 1
        self.process.world.after(0.01, self.look, self.looks)

    def look(self, number: int) -> None:
        process = self.process
        if process.alive and number == self.looks:
            self.looks += 1
            process.world.after(UPKEEP_S, self.look, self.looks)
            store = process.store
            if not process.stopped and isinstance(store, SharedStore):
                clock = ActorClock(process)
                with contextlib.suppress(RainbandError), store.lent_to(store.keeper_for(clock)):
                    self._look()

    @contextlib.contextmanager
    def _connected(self, address: str) -> Iterator[Any]:
        yield Peer(self.process, address)

    def close(self) -> None:
        """Nothing runs."""


class SimService(Service):
    """The real one, put together of other parts."""

    def __init__(self, process: NimbusProcess, config: Config, opened: Opened, server: SimServer) -> None:
        self.process = process
        self._assemble(config, process.clock, opened, cast(Any, server), self._copies_of)

    def _copies_of(self, others: Any, wake: Callable[[], None]) -> Copies:
        return SimCopies(self.process, others, wake)

    def wait_s(self) -> float:
        return max(0.01, min(MONITOR_S, self._wait_s(self.clock.now())))

    def answer_peer(self, request: Request) -> Response:
        return self._answer(request, b"")

    def _begin(self, now: float) -> None:
        self.process.begins()
        super()._begin(now)
        if self._nimbus is not None:
            self.process.leads(self._nimbus.epoch)

    def _answer(self, request: Request, peer: bytes) -> Response:
        if isinstance(request, Heartbeat) and self.leads:
            self.process.hears(request)
        return super()._answer(request, peer)


class NimbusProcess:
    """A Nimbus and its shell. `heard` is when which supervisor was heard by it as a leader, for the laws."""

    def __init__(self, world: World, number: int, machine: int) -> None:
        self.world = world
        self.number = number
        self.machine = machine
        self.address = f"n{machine}"
        self.offset = world.offsets[0] + 1000.0 * machine
        self.rate = world.rates[machine]
        self.alive = True
        self.stopped = False
        self.dies = ""
        self.inbox: list[tuple[bytes, int, Request]] = []
        self.requests = 0
        self.turns = 0
        self.heard: dict[str, float] = {}
        self.ports: dict[str, tuple[int, ...]] = {}
        self.paused_s = 0.0
        self.started = self.born = world.time
        self.token = 0
        self.clock = ActorClock(self)
        self.last = self.clock.now()
        self.wait_s = 0.0
        self.blobs: SimBlobs = world.blobs[machine]
        self.line: Line | None = None
        self.server = SimServer(self)
        self.service = self._make()
        self.clock.end()
        self._plan()

    def _make(self) -> SimService:
        options = self.world.options
        settings = {
            "nimbus.supervisor.timeout.secs": options.lease_s,
            "nimbus.task.launch.secs": 600,
            "nimbus.upload.expiry.secs": EXPIRY_S,
            "nimbus.monitor.freq.secs": MONITOR_S,
        }
        election: Any = Alone()
        self.store: Any = SimStore(self, self.world.disk)
        if self.world.ensemble is not None:
            self.line = Line(self, self.world.ensemble)
            self.store = election = SharedStore(self, self.line)
            self.line.beat()
        opened = Opened(self.store, self.blobs, election, shared=self.line is not None)
        return SimService(self, Config.layer(settings), opened, self.server)

    # Time

    def local(self, at: float) -> float:
        """What the clock of this machine shows at the true time `at`."""
        return self.offset + at * self.rate

    def _plan(self) -> None:
        self.wait_s = self.service.wait_s()
        self._wake_at(self.clock.busy_until + self.wait_s / self.rate)

    def _wake_at(self, at: float) -> None:
        self.token += 1
        self.world.at(max(at, self.world.time, self.clock.busy_until), self._due, self.token)

    def wake(self) -> None:
        """There is something to do."""
        self._wake_at(self.world.time)

    def _due(self, token: int) -> None:
        if self.alive and not self.stopped and token == self.token:
            self.turn()

    def set_stopped(self, stopped: bool) -> None:
        self.stopped = stopped
        if not stopped and self.alive:
            self.wake()
            if isinstance(self.store, SharedStore):
                self.store.ring()

    def get_on(self) -> None:
        """Whatever it was waiting for is answered."""
        self.clock.busy_until = min(self.clock.busy_until, self.world.time)
        self.wake()
        if isinstance(self.store, SharedStore):
            self.store.get_on()

    def arrive(self, source: str, request: Request, answer: Answer) -> None:
        if self.alive:
            self.requests += 1
            self.server.answers[self.requests] = answer
            self.inbox.append((source.encode(), self.requests, request))
            self.wake()

    def turn(self) -> None:
        """One round of the service."""
        self.turns += 1
        self.clock.begin()
        now = self.clock.now()
        inbox, self.inbox = self.inbox, []
        late_s = now - self.last - self.wait_s
        self.paused_s += late_s if late_s > MONITOR_S else 0.0
        self.last = now
        try:
            self.service.turn(inbox, now, late_s)
        except Crash:
            self.kill()
            return
        self.clock.end()
        if self.line is not None:
            self.world.laws.believers()
        self._plan()

    # What it is for the laws

    def begins(self) -> None:
        """It takes the lead: nobody was heard yet."""
        self.started = self.world.time
        self.heard.clear()
        self.ports.clear()
        self.paused_s = 0.0

    def leads(self, epoch: int) -> None:
        self.world.note(f"nimbus {self.number} leads with epoch {epoch}")

    def hears(self, beat: Heartbeat) -> None:
        self.heard[beat.supervisor] = self.world.time
        self.ports[beat.supervisor] = beat.ports

    def believes(self) -> bool:
        """Whether it would act as the leader if it ran now."""
        store = self.store
        return isinstance(store, SharedStore) and store.standing(self.local(self.world.time)).leads

    # The end

    def close(self) -> None:
        """It is told to end, and makes way."""
        if self.alive:
            self.service.close()
            self.kill()

    def kill(self) -> None:
        if self.alive:
            self.alive = False
            self.blobs.crash()
            if self.line is not None:
                self.line.ensemble.left(self.line.session)
            if self.line is None and not any(other.alive for other in self.world.nimbuses):
                self.world.disk.crash()
            self.world.note(f"nimbus {self.number} dies")
