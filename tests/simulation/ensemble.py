"""A small ZooKeeper in virtual time, and a Nimbus's line to it: sessions expire, answers get lost, writes come late.

The real ZooKeeperStore and Campaign run on top; `SimKeeper` stands for their connection. A call is made at one instant
of the heap; how long it took is put on the clock of the *actor* that made it, who does nothing until that is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec
from kazoo import exceptions as zk
from kazoo.handlers.threading import KazooTimeoutError

from rainband.cluster.campaign import Campaign
from rainband.cluster.keeper import LOST, Keeper, Place
from rainband.cluster.zookeeper import FORMAT, Facts, Large, ZooKeeperStore
from simulation.disks import Disk

if TYPE_CHECKING:
    from simulation.chief import NimbusProcess
    from simulation.world import World

ADDRESS = "zk"
SLOW_TICKS = 0.1
AGAIN_S = 0.3
LATE_S = 6.0
T = TypeVar("T")


class Node:
    """`owner` is the session of an ephemeral node, 0 for one that stays."""

    def __init__(self, data: bytes, owner: int = 0) -> None:
        self.data = data
        self.version = 0
        self.owner = owner


class Ensemble:
    """The servers: one truth. `disk` mirrors the entries, for those who look at the state of the cluster."""

    def __init__(self, world: World, disk: Disk) -> None:
        self.world = world
        self.disk = disk
        self.rng = Random(f"ensemble {world.options.seed}")
        facts = msgspec.json.encode(Facts(FORMAT, disk.cluster_id))
        plain = (f"is-{disk.cluster_id}", "entries", "large", "election")
        self.nodes: dict[str, Node] = {"facts": Node(facts), **{name: Node(b"") for name in plain}}
        self.sequence = 0
        self.sessions: dict[int, float] = {}
        self.watches: list[tuple[str, Line, Callable[[object], None]]] = []
        self.down = False
        self.flaky = 0.0
        self.slow_s = 0.0

    # Sessions: their end is decided here.

    def open(self) -> int:
        session = len(self.sessions) + 1
        self.sessions[session] = 0.0
        self.touch(session, self.world.time)
        return session

    def alive(self, session: int) -> bool:
        return session in self.sessions and self.sessions[session] != float("-inf")

    def touch(self, session: int, at: float) -> None:
        """A sign of life at `at`; the servers round the end of the session up to their next tick."""
        session_s = self.world.options.session_s
        ends = at + session_s * (1.0 + SLOW_TICKS * self.rng.random())
        if self.alive(session) and ends > self.sessions[session]:
            self.sessions[session] = ends
            self.world.at(ends, self._look, session)

    def left(self, session: int) -> None:
        """Whoever it belongs to is gone: calls that it was busy with count no more."""
        latest = self.world.time + self.world.options.session_s * (1.0 + SLOW_TICKS)
        if self.alive(session) and self.sessions[session] > latest:
            self.sessions[session] = latest
            self.world.at(latest, self._look, session)

    def _look(self, session: int) -> None:
        if not self.down and self.alive(session) and self.sessions[session] <= self.world.time:
            self.expire(session)

    def expire(self, session: int) -> None:
        if self.alive(session):
            self.sessions[session] = float("-inf")
            self.world.note(f"session {session} expires")
            for path in [path for path, node in self.nodes.items() if node.owner == session]:
                self.delete(path)

    def set_down(self, down: bool) -> None:
        """Without a quorum nothing is answered and no session ends; afterwards each has its whole time again."""
        self.down = down
        if not down:
            for session in sorted(self.sessions):
                self.touch(session, self.world.time)

    # Nodes

    def find(self, path: str) -> Node:
        if path not in self.nodes:
            raise zk.NoNodeError
        return self.nodes[path]

    def children(self, path: str) -> list[str]:
        if not path:
            return sorted({name.partition("/")[0] for name in self.nodes})
        self.find(path)
        return sorted(name[len(path) + 1 :] for name in self.nodes if name.startswith(f"{path}/"))

    def create(self, path: str, data: bytes, session: int = 0) -> None:
        if session:
            if not self.alive(session):
                raise zk.SessionExpiredError
            path = f"{path}{self.sequence:010d}"
            self.sequence += 1
        if path in self.nodes:
            raise zk.NodeExistsError
        self.nodes[path] = Node(data, session)
        self._changed(path)

    def write(self, path: str, data: bytes, version: int = -1) -> None:
        node = self.find(path)
        if version not in (-1, node.version):
            raise zk.BadVersionError
        node.data = data
        node.version += 1

    def delete(self, path: str) -> None:
        self.find(path)
        del self.nodes[path]
        self._changed(path)

    def _changed(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        rung = [watch for watch in self.watches if watch[0] == parent]
        self.watches = [watch for watch in self.watches if watch[0] != parent]
        for _, line, ring in rung:
            self.world.after(self.world.options.delay_s, line.rung, ring)

    # Batches

    def commit(self, writer: NimbusProcess, parts: Sequence[tuple[str, str, Any]], decided_at: float) -> None:
        """All or nothing. Raises the reason."""
        self._check(parts)
        before = dict(self.disk.values)
        for kind, path, given in parts:
            if kind == "create":
                self.create(path, given)
            elif kind == "set":
                self.write(path, given[0])
            elif kind == "delete":
                self.delete(path)
        facts = msgspec.json.decode(self.nodes["facts"].data, type=Facts) if "facts" in self.nodes else None
        if facts is None:
            return
        self._mirror({path for _, path, _ in parts if path.startswith("entries/")})
        self.disk.cluster_id, self.disk.epoch, self.disk.version = facts.cluster_id, facts.epoch, facts.version
        self.world.laws.written(writer, facts.epoch, before, dict(self.disk.values), decided_at)

    def _check(self, parts: Sequence[tuple[str, str, Any]]) -> None:
        for kind, path, given in parts:
            if kind == "create" and path in self.nodes:
                raise zk.NodeExistsError
            if kind in ("check", "set", "delete"):
                node = self.find(path)
                wanted = given[1] if kind == "set" else given if kind == "check" else -1
                if wanted not in (-1, node.version):
                    raise zk.BadVersionError

    def _mirror(self, paths: set[str]) -> None:
        for path in sorted(paths):
            key = path.removeprefix("entries/").replace(":", "/")
            node = self.nodes.get(path)
            if node is None:
                self.disk.values.pop(key, None)
            elif node.data[:1] == b"L":
                large = msgspec.json.decode(node.data[1:], type=Large)
                self.disk.values[key] = b"".join(self.nodes[f"large/{name}"].data for name in large.names())
            else:
                self.disk.values[key] = node.data[1:]

    def put(self, key: str, value: bytes) -> None:
        """Somebody else writes an entry, past every Nimbus."""
        self.nodes[f"entries/{key.replace('/', ':')}"] = Node(b"V" + value)
        self.disk.values[key] = value


class ActorClock:
    """The clock of one thread of a Nimbus: that of its machine, plus what its calls took in this turn."""

    def __init__(self, process: NimbusProcess) -> None:
        self.process = process
        self.spent_s = 0.0
        self.busy_until = 0.0

    def begin(self) -> None:
        self.spent_s = 0.0

    def end(self) -> None:
        self.busy_until = self.process.world.time + self.spent_s

    def now(self) -> float:
        return self.process.local(self.process.world.time + self.spent_s)

    def wall(self) -> float:
        return self.process.world.wall(self.process.address) + self.spent_s

    def spend(self, seconds: float) -> None:
        self.spent_s += max(0.0, seconds)


class Line:
    """One process's connection: what kazoo keeps. `lost` is called when it learns that its session has ended."""

    def __init__(self, process: NimbusProcess, ensemble: Ensemble) -> None:
        self.process = process
        self.world = process.world
        self.ensemble = ensemble
        self.session = 0
        self.connected = False
        self.lost: Callable[[], None] = lambda: None
        self.unsent: list[Callable[[], object]] = []

    def beat(self) -> None:
        """Connect or stay connected; again and again for as long as the process lives."""
        if not self.process.alive:
            return
        if not self.process.stopped:
            self.look()
        self.world.after(self.world.options.session_s / 6 if self.connected else AGAIN_S, self.beat)

    def look(self) -> None:
        passes = self.world.wires.passes
        address, ensemble = self.process.address, self.ensemble
        if ensemble.down or not passes(address, ADDRESS) or not passes(ADDRESS, address):
            self.connected = False
            return
        if not ensemble.alive(self.session):
            if self.session:
                self.world.note(f"nimbus {self.process.number} learns that its session is over")
                self.lost()
            self.session = ensemble.open()
        if not self.connected:  # what waits in kazoo's queue is sent now, and answered
            self.connected = True
            self.world.after(0.0, self.process.get_on)
        ensemble.touch(self.session, self.world.time)
        unsent, self.unsent = self.unsent, []
        for act in unsent:
            self._late(act)

    def rung(self, ring: Callable[[object], None]) -> None:
        if self.process.alive and self.connected:
            ring(None)

    def _late(self, act: Callable[[], object]) -> None:
        with suppress(zk.KazooException):
            act()

    def call(self, clock: ActorClock, until: float, act: Callable[[], T], writes: bool) -> T:
        """Do `act` on the servers, as far as it gets there and the answer comes back."""
        world, ensemble = self.world, self.ensemble
        left_s = until - clock.now()
        if left_s <= 0:
            raise KazooTimeoutError("no time left")
        latency_s = 2 * world.options.delay_s + ensemble.slow_s * ensemble.rng.random()
        out = not ensemble.down and world.wires.passes(self.process.address, ADDRESS)
        trouble = ensemble.flaky > 0 and ensemble.rng.random() < ensemble.flaky
        kind = ensemble.rng.randrange(4) if trouble else 0
        if not self.connected or not out or latency_s > left_s or kind == 3:
            clock.spend(left_s)
            if writes and self.connected and out:
                world.after(min(latency_s, left_s) + LATE_S * ensemble.rng.random(), self._late, act)
            elif writes and ensemble.rng.random() < 0.5:
                self.unsent.append(act)
            raise KazooTimeoutError("no answer in time")
        if kind == 1:
            clock.spend(latency_s)
            raise zk.ConnectionLoss("never sent")
        if not ensemble.alive(self.session):
            self.connected = False
            clock.spend(latency_s)
            raise zk.SessionExpiredError
        ensemble.touch(self.session, world.time + clock.spent_s)
        if kind == 2 or not world.wires.passes(ADDRESS, self.process.address):
            self._late(act)
            clock.spend(min(left_s, world.options.session_s / 3))
            raise zk.ConnectionLoss("the answer got lost")
        clock.spend(latency_s)
        return act()


class SimKeeper(Keeper):
    """The Keeper of one actor."""

    def __init__(self, line: Line, clock: ActorClock) -> None:
        self.line = line
        self.ensemble = line.ensemble
        self.clock = self.actor = clock
        self.place = Place(ADDRESS, "/sim")
        self._closed = False

    @property
    def session_s(self) -> float:  # type: ignore[override]
        return self.line.world.options.session_s if self.line.session else 0.0

    def ask(self, *parts: str, until: float) -> Any:
        return lambda: self._read("/".join(parts))

    def _read(self, path: str) -> tuple[bytes, Any]:
        node = self.ensemble.find(path)
        return node.data, node

    def wait(self, result: Any, until: float) -> Any:
        return self.line.call(self.actor, until, result, writes=False)

    def get(self, *parts: str, until: float) -> tuple[bytes, int]:
        data, node = self.wait(self.ask(*parts, until=until), until)
        return data, int(node.version)

    def get_held(self, *parts: str, until: float) -> tuple[bytes, bool]:
        data, node = self.wait(self.ask(*parts, until=until), until)
        return data, node.owner != 0

    def get_synced(self, *parts: str, until: float) -> tuple[bytes, int]:
        return self.get(*parts, until=until)

    def children(self, *parts: str, until: float, watch: Callable[[object], None] | None = None) -> list[str]:
        path = "/".join(parts)
        found: list[str] = self.wait(lambda: self.ensemble.children(path), until)
        if watch is not None:
            self.ensemble.watches.append((path, self.line, watch))
        return found

    def create(self, *parts: str, data: bytes, until: float, candidate: bool = False) -> None:
        def act() -> None:
            self.ensemble.create("/".join(parts), data, self.line.session if candidate else 0)

        self._write(act, until)

    def set(self, *parts: str, data: bytes, until: float) -> None:
        self._write(lambda: self.ensemble.write("/".join(parts), data), until)

    def delete(self, *parts: str) -> Any:
        def act() -> None:
            self.ensemble.delete("/".join(parts))

        if parts[0] == "large":  # nobody waits for these
            with suppress(*LOST, zk.KazooException):
                self._write(act, self.clock.now() + 0.001)
        return act

    def make_root(self, until: float) -> None:
        """It is there."""

    def check_acl(self, until: float) -> None:
        """Nobody else is there."""

    def batch(self) -> Any:
        return SimBatch(self)

    def pause(self, until: float) -> None:
        left_s = until - self.clock.now()
        if left_s <= 0:
            raise KazooTimeoutError("no answer in time")
        self.actor.spend(min(left_s, 0.02 if self.line.connected else 0.5))

    def close(self) -> None:
        self._closed = True

    def _write(self, act: Callable[[], T], until: float) -> T:
        return self.line.call(self.actor, until, act, writes=True)


class SimBatch:
    """One transaction; its parts are (kind, path, what is given)."""

    def __init__(self, keeper: SimKeeper) -> None:
        self.keeper = keeper
        self.parts: list[tuple[str, str, Any]] = []

    def create(self, *parts: str, data: bytes) -> None:
        self.parts.append(("create", "/".join(parts), data))

    def set(self, *parts: str, data: bytes, version: int = -1) -> None:
        self.parts.append(("set", "/".join(parts), (data, version)))

    def delete(self, *parts: str) -> None:
        self.parts.append(("delete", "/".join(parts), None))

    def check(self, *parts: str, version: int = -1) -> None:
        self.parts.append(("check", "/".join(parts), version))

    def commit(self, until: float) -> Exception | None:
        keeper = self.keeper
        process = keeper.line.process
        decided_at = process.world.time

        def act() -> None:
            keeper.ensemble.commit(process, self.parts, decided_at)

        try:
            keeper._write(act, until)
        except LOST:
            raise
        except zk.KazooException as error:
            reason: Exception = error
            return reason
        return None


class SimCampaign(Campaign):
    """The real one, whose thread is a row of events."""

    def __init__(self, keeper: Keeper, prepare: Callable[[float], object], process: NimbusProcess) -> None:
        super().__init__(keeper, prepare)
        self.process = process
        self.turns = 0
        self._bell = cast(Any, self)

    def begin(self, address: str, wake: Callable[[], None]) -> None:
        self._address, self._wake = address, wake
        self.set()

    def set(self) -> None:
        """The bell rings."""
        self.plan(0.0)

    def plan(self, seconds: float) -> None:
        world = self.process.world
        self.turns += 1
        at = max(world.time + seconds, cast(ActorClock, self._clock).busy_until)
        world.at(at, self.due, self.turns)

    def due(self, turn: int) -> None:
        process, clock = self.process, cast(ActorClock, self._clock)
        if turn != self.turns or not process.alive or process.stopped or self._closing or self._fatal:
            return
        process.turns += 1
        clock.begin()
        rest_s = self.turn()
        clock.end()
        process.world.laws.believers()
        if rest_s is not None:
            self.plan(clock.spent_s + rest_s)

    def close(self) -> None:
        with self._lock:
            self._closing = True
            self._lease.end()
        clock = cast(ActorClock, self._clock)
        if self.process.alive and not self.process.stopped:
            clock.begin()
            self._leave()
            clock.end()


class SharedStore(ZooKeeperStore):
    """The real one over a Line; another actor than the service may borrow it."""

    def __init__(self, process: NimbusProcess, line: Line) -> None:
        self.process = process
        self.line = line
        super().__init__("", "", clock=process.clock)

    def _connect(self, url: str, credentials: str, session_s: float) -> tuple[Keeper, Campaign]:
        process = self.process
        campaign = SimKeeper(self.line, ActorClock(process))
        self.line.lost = self._session_lost

        def prepare(until: float) -> object:
            with self.lent_to(campaign):
                return self._facts(until)

        return SimKeeper(self.line, process.clock), SimCampaign(campaign, prepare, process)

    @contextmanager
    def lent_to(self, keeper: Keeper) -> Iterator[None]:
        own, self._keeper = self._keeper, keeper
        try:
            yield
        finally:
            self._keeper = own

    def keeper_for(self, clock: ActorClock) -> Keeper:
        """For one more actor."""
        return SimKeeper(self.line, clock)

    def get_on(self) -> None:
        """The election need not wait any longer for what it waited for."""
        clock = self._campaign._clock
        assert isinstance(clock, ActorClock)
        clock.busy_until = min(clock.busy_until, self.process.world.time)
        self.ring()

    def ring(self) -> None:
        """The process goes on after it stood still."""
        self._campaign._bell.set()
