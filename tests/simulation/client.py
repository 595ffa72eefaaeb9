"""Those who ask Nimbus: the way from seed to seed, and the client with its wishes and its bundles."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from rainband.records import (
    Activate,
    Done,
    Failure,
    Kill,
    ListTopologies,
    Request,
    Response,
    Submit,
    Topologies,
    Upload,
)
from simulation.history import Operation

if TYPE_CHECKING:
    from simulation.hosts import Supervisor
    from simulation.world import World

REST_S = 0.2
ASK_S = 4.0
READ_S = 0.7
Answer = Callable[[Response | None], None]


class Caller:
    """What RpcClient is: asks the leader it knows, follows the word of those that do not lead, repeats nothing else."""

    def __init__(self, world: World, source: str) -> None:
        self.world = world
        self.source = source
        self.leader = ""

    def ask(self, request: Request, answer: Answer, timeout_s: float, asker: Supervisor | None = None) -> None:
        """Exactly one answer follows, None when there is none in time; `asker` goes on asking while it lives."""
        Call(self, request, answer, timeout_s, asker).go("")


class Call:
    """One request on its way."""

    def __init__(
        self, caller: Caller, request: Request, answer: Answer, timeout_s: float, asker: Supervisor | None
    ) -> None:
        self.caller = caller
        self.asker = asker
        self.world = caller.world
        self.address = self.world.address_of(caller.source)
        self.request = request
        self.answer: Answer | None = answer
        self.until = self.world.time + timeout_s
        self.asked: set[str] = set()
        self.world.after(timeout_s, self.silent)

    def silent(self) -> None:
        if self.answer is not None:
            self.caller.leader = ""
            self.finish(None)

    def finish(self, reply: Response | None) -> None:
        answer, self.answer = self.answer, None
        if answer is not None:
            answer(reply)

    def go(self, hint: str) -> None:
        """To the leader as far as known, else to one that was not asked yet."""
        world, asker = self.world, self.asker
        if self.answer is None or (asker is not None and not asker.running):
            return
        if asker is not None and asker.stopped:
            world.after(REST_S, self.go, hint)
            return
        there = [p for p in world.living_nimbuses() if world.wires.passes(self.address, p.address)]
        fresh = [p for p in there if p.address not in self.asked]
        known = [p for p in fresh if p.address == (hint or self.caller.leader)]
        if not fresh:
            self.asked.clear()
            if world.time + REST_S < self.until:
                world.after(REST_S, self.go, "")
            return
        target = world.rpc.choice(known or fresh)
        self.asked.add(target.address)
        if not world.loses():
            world.after(world.delay(), target.arrive, self.caller.source, self.request, self.replied(target.address))

    def replied(self, address: str) -> Answer:
        world = self.world

        def travels(reply: Response | None) -> None:
            if world.wires.passes(address, self.address) and not world.loses():
                world.after(world.delay(), self.came, address, reply)

        return travels

    def came(self, address: str, reply: Response | None) -> None:
        if self.answer is None:
            return
        if isinstance(reply, Failure) and reply.code == "not_leader":
            self.go(reply.leader)
            return
        self.caller.leader = address
        self.finish(reply)


class Client:
    """Keeps asking until what it wants of each topology is done. `history` is all it asked and heard, by name."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.queue: dict[str, list[Request]] = {}
        self.busy: set[str] = set()
        self.refused = 0
        self.history: dict[str, list[Operation]] = {name: [] for name in world.loads}

    def want(self, name: str, *requests: Request, lane: str = "") -> None:
        """Ask one after the other; lanes of one topology race each other."""
        self.queue.setdefault(name + lane, []).extend(requests)
        self._next(name + lane)

    @property
    def idle(self) -> bool:
        return not any(self.queue.values())

    def _next(self, lane: str) -> None:
        waiting = self.queue.get(lane)
        if waiting and lane not in self.busy:
            self.busy.add(lane)
            request = waiting[0]
            if isinstance(request, Submit):
                self._upload(lane, request)
            else:
                self._ask(lane, request)

    def _upload(self, lane: str, request: Submit) -> None:
        """The bundle first, in two pieces."""
        data = self.world.bundle_of(request.name)
        digest = hashlib.sha256(data).hexdigest()
        half = len(data) // 2

        def second(reply: Response | None) -> None:
            if isinstance(reply, Done):
                piece = Upload(digest, half, data[half:], True)
                self.world.ask("client", piece, third, ASK_S)
            else:
                self._rest(lane)

        def third(reply: Response | None) -> None:
            if isinstance(reply, Done):
                self._ask(lane, request)
            else:
                self._rest(lane)

        self.world.ask("client", Upload(digest, 0, data[:half], False), second, ASK_S)

    def _ask(self, lane: str, request: Request) -> None:
        operation = Operation(request, self.world.time)
        self.history[lane.partition(" ")[0]].append(operation)
        self.world.ask("client", request, lambda reply: self._answered(lane, request, operation, reply), ASK_S)

    def _answered(self, lane: str, request: Request, operation: Operation, reply: Response | None) -> None:
        operation.ends(reply, self.world.time)
        waiting = self.queue[lane]
        done = isinstance(reply, Done)
        if isinstance(reply, Failure):
            self.refused += 1
            if isinstance(request, Submit):
                done = reply.code == "topology_exists" and self.world.is_submitted(request.name)
            else:
                done = not isinstance(request, (Activate, Kill)) or reply.code == "topology_not_found"
            self.world.note(f"refused {type(request).__name__} {lane} {reply.code}")
        if done:
            waiting.pop(0)
            self.world.note(f"done {type(request).__name__} {lane}")
            self.world.after(0.001, self._again, lane)
        else:
            self._rest(lane)

    def _rest(self, lane: str) -> None:
        self.world.after(0.5, self._again, lane)

    def _again(self, lane: str) -> None:
        self.busy.discard(lane)
        self._next(lane)

    def read(self) -> None:
        """Look at the list of topologies now and then."""
        operations = {name: Operation(ListTopologies(), self.world.time) for name in self.history}

        def answered(reply: Response | None) -> None:
            if isinstance(reply, Topologies):
                for name, operation in operations.items():
                    operation.ends(reply, self.world.time)
                    self.history[name].append(operation)

        self.world.ask("client", ListTopologies(), answered, ASK_S)
        self.world.after(READ_S, self.read)
