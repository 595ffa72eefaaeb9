"""Nimbus processes over a disk that forgets what was not synced, and the client with its wishes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rainband.cluster.blobs import MemoryBlobs
from rainband.cluster.store import Change, Put, State, check_changes, stale
from rainband.errors import StoreError
from rainband.nimbus.core import Nimbus
from rainband.records import Activate, Done, Failure, Heartbeat, Kill, Progress, Request, Response, Submit

if TYPE_CHECKING:
    from simulation.world import World

MONITOR_S = 1.0
STILL_S = 5.0
ADDRESS = "nimbus"
Answer = Callable[[Response | None], None]


class Crash(BaseException):
    """The process dies in the middle of a write."""


class Disk:
    """`values` as programs see them, `durable` as they are after a crash of the machine's one user of them."""

    def __init__(self, cluster_id: str) -> None:
        self.cluster_id = cluster_id
        self.values: dict[str, bytes] = {}
        self.durable: dict[str, bytes] = {}
        self.epoch = 0
        self.version = 0
        self.full = False

    def sync(self) -> None:
        self.durable = dict(self.values)

    def crash(self) -> None:
        self.values = dict(self.durable)


class SimStore:
    """A Store on a Disk: each write is one transaction, synced before it returns."""

    def __init__(self, process: NimbusProcess, disk: Disk) -> None:
        self.process = process
        self.disk = disk
        self.cluster_id = disk.cluster_id

    def lead(self) -> int:
        self.disk.epoch += 1
        return self.disk.epoch

    def read_all(self) -> State:
        disk = self.disk
        return State(disk.cluster_id, disk.epoch, disk.version, dict(disk.values))

    def write(self, epoch: int, changes: Sequence[Change]) -> None:
        checked = check_changes(changes)
        disk = self.disk
        self.check_epoch(epoch)
        if disk.full:
            raise StoreError("no space left", "Make some")
        if self.process.dies == "before":
            raise Crash
        before = dict(disk.values)
        for change in checked:
            if isinstance(change, Put):
                disk.values[change.key] = bytes(change.value)
            else:
                disk.values.pop(change.key, None)
        disk.version += 1
        self.commit()
        self.process.world.laws.written(self.process, epoch, before, dict(disk.values))
        if self.process.dies == "after":
            raise Crash

    def check_epoch(self, epoch: int) -> None:
        if epoch == 0 or epoch != self.disk.epoch:
            raise stale(epoch, self.disk.epoch)

    def commit(self) -> None:
        self.disk.sync()

    def close(self) -> None:
        """Nothing to let go of."""


class NimbusProcess:
    """A Nimbus and its shell. `heard` is when which supervisor was heard, for the laws."""

    def __init__(self, world: World, number: int, offset: float) -> None:
        self.world = world
        self.number = number
        self.offset = offset
        self.alive = True
        self.stopped = False
        self.dies = ""
        self.inbox: list[tuple[Request, Answer]] = []
        self.heard: dict[str, float] = {}
        self.ports: dict[str, tuple[int, ...]] = {}
        self.paused_s = 0.0
        self.started = world.time
        self.last = self.now()
        self.token = 0
        settings = {"nimbus.supervisor.timeout.secs": world.options.lease_s, "nimbus.task.launch.secs": 600}
        self.nimbus = Nimbus(SimStore(self, world.disk), MemoryBlobs(), settings, self.now(), require_bundle=False)
        self._plan()

    def now(self) -> float:
        return self.world.time + self.offset

    def _plan(self) -> None:
        self.token += 1
        at = min(self.now() + MONITOR_S, max(self.nimbus.next_deadline(), self.now() + 0.01)) - self.offset
        self.world.at(at, self._due, self.token)

    def _due(self, token: int) -> None:
        if self.alive and not self.stopped and token == self.token:
            self.turn()

    def set_stopped(self, stopped: bool) -> None:
        self.stopped = stopped
        if not stopped and self.alive:
            self.turn()

    def arrive(self, request: Request, answer: Answer) -> None:
        if self.alive:
            self.inbox.append((request, answer))
            if not self.stopped:
                self.turn()

    def turn(self) -> None:
        """One round of the service: requests, then what time brings."""
        now = self.now()
        if now - self.last > MONITOR_S + STILL_S:
            self.paused_s += now - self.last
            self.nimbus.paused(now - self.last)
        self.last = now
        inbox, self.inbox = self.inbox, []
        try:
            for request, answer in inbox:
                if isinstance(request, Heartbeat):
                    self.heard[request.supervisor] = self.world.time
                    self.ports[request.supervisor] = request.ports
                answer(self.nimbus.handle(request, now, self.world.time))
            for supervisor in self.nimbus.tick(now):
                self.world.push(supervisor, Progress())
        except Crash:
            self.kill()
            return
        self._plan()

    def kill(self) -> None:
        if self.alive:
            self.alive = False
            if not any(other.alive for other in self.world.nimbuses):
                self.world.disk.crash()
            self.world.note(f"nimbus {self.number} dies")


class Client:
    """Keeps asking until what it wants of each topology is done."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.queue: dict[str, list[Request]] = {}
        self.busy: set[str] = set()
        self.refused = 0

    def want(self, name: str, *requests: Request, lane: str = "") -> None:
        """Ask one after the other; lanes of one topology race each other."""
        self.queue.setdefault(name + lane, []).extend(requests)
        self._next(name + lane)

    @property
    def idle(self) -> bool:
        return not any(self.queue.values())

    def _next(self, name: str) -> None:
        waiting = self.queue.get(name)
        if waiting and name not in self.busy:
            self.busy.add(name)
            request = waiting[0]
            self.world.ask("client", request, lambda reply: self._answered(name, request, reply), 4.0)

    def _answered(self, name: str, request: Request, reply: Response | None) -> None:
        waiting = self.queue[name]
        done = isinstance(reply, Done)
        if isinstance(reply, Failure):
            self.refused += 1
            if isinstance(request, Submit):
                done = reply.code == "topology_exists" and self.world.is_submitted(request.name)
            else:
                done = not isinstance(request, (Activate, Kill)) or reply.code == "topology_not_found"
            self.world.note(f"refused {type(request).__name__} {name} {reply.code}")
        if done:
            waiting.pop(0)
            self.world.note(f"done {type(request).__name__} {name}")
            self.world.after(0.001, self._again, name)
        else:
            self.world.after(0.5, self._again, name)

    def _again(self, name: str) -> None:
        self.busy.discard(name)
        self._next(name)
