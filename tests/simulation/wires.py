"""The network between worker processes, and its temper: frames take time, get lost, come twice, meet cuts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulation.world import World

LOCAL_DELAY_S = 0.0003
BOX_MAX = 20_000
TINY_S = 1e-7


class Box:
    """Where frames for one process arrive; `generation` counts the processes at its address."""

    def __init__(self, address: str, generation: int) -> None:
        self.address = address
        self.generation = generation
        self.frames: deque[bytes] = deque()
        self.wake_process: Callable[[], None] = _nobody


class Wires:
    """Everything between processes. Rates come from the options, `loss` and the like are set by faults on top."""

    def __init__(self, world: World) -> None:
        options = world.options
        self.world = world
        self.rng = Random(f"wires {options.seed}")
        self.boxes: dict[str, Box] = {}
        self.generations: dict[str, int] = {}
        self.loss = options.loss
        self.repeats = options.repeats
        self.jitter_s = options.jitter_s
        self.fifo = options.fifo
        self.blocked: dict[tuple[str, str], bool] = {}
        self.held: dict[tuple[str, str], list[tuple[str, str, bytes]]] = {}
        self.cuts: dict[tuple[str, str], int] = {}
        self.refusing: dict[tuple[str, str], float] = {}
        self.arrival: dict[tuple[str, str], float] = {}
        self.pairs: dict[tuple[str, str], tuple[str, str]] = {}
        self.sent = 0
        self.lost = 0

    def heal(self) -> None:
        """No fault from now on; what was held is delivered."""
        self.loss = self.repeats = self.jitter_s = 0.0
        self.fifo = True
        self.refusing.clear()
        for pair in sorted(self.blocked):
            self.unblock(*pair)

    # Faults between hosts

    def block(self, source: str, target: str, hold: bool) -> None:
        """Nothing passes from host `source` to host `target`; with `hold` it arrives when the way opens again."""
        self.blocked[source, target] = hold

    def unblock(self, source: str, target: str) -> None:
        self.blocked.pop((source, target), None)
        for sender, address, frame in self.held.pop((source, target), []):
            self._travel(sender, address, frame)

    def cut(self, first: str, second: str, until: float) -> None:
        """The connections between two hosts break: what is on its way is lost, none comes up until then."""
        for pair in ((first, second), (second, first)):
            self.cuts[pair] = self.cuts.get(pair, 0) + 1
            self.refusing[pair] = until
            self.held.pop(pair, None)

    def passes(self, source: str, target: str) -> bool:
        """Whether a request from host to host (Nimbus and clients are hosts too) arrives, if it is not lost."""
        return (source, target) not in self.blocked and self.world.time >= self.refusing.get((source, target), 0.0)

    # What networks do

    def bind(self, address: str) -> Box:
        generation = self.generations.get(address, 0) + 1
        self.generations[address] = generation
        self.boxes[address] = Box(address, generation)
        return self.boxes[address]

    def leave(self, box: Box) -> None:
        if self.boxes.get(box.address) is box:
            del self.boxes[box.address]

    def send(self, source: str, target: str, frame: bytes) -> bool:
        """False: there is no connection."""
        pair = self.pairs.get((source, target))
        if pair is None:
            pair = self.pairs[source, target] = (host_of(source), host_of(target))
        if target not in self.boxes or (self.refusing and self.world.time < self.refusing.get(pair, 0.0)):
            return False
        self.sent += 1
        if pair not in self.blocked:
            self._travel(source, target, frame)
        elif self.blocked[pair]:
            self.held.setdefault(pair, []).append((source, target, frame))
        else:
            self.lost += 1
        return True

    def _travel(self, source: str, target: str, frame: bytes) -> None:
        copies = 1
        if self.loss and self.rng.random() < self.loss:
            copies = 0
            self.lost += 1
        if self.repeats and self.rng.random() < self.repeats:
            copies += 1
        for _ in range(copies):
            self._post(source, target, frame)

    def _post(self, source: str, target: str, frame: bytes) -> None:
        world = self.world
        way = (source, target)
        pair = self.pairs[way]
        at = world.time + (LOCAL_DELAY_S if pair[0] == pair[1] else world.options.delay_s)
        if self.jitter_s:
            at += self.jitter_s * self.rng.random() ** 3
        if self.fifo:
            earliest = self.arrival.get(way, 0.0) + TINY_S
            if at < earliest:
                at = earliest
            self.arrival[way] = at
        world.at(at, self._arrive, pair, self.cuts.get(pair, 0), self.generations.get(target, 0), target, frame)

    def _arrive(self, pair: tuple[str, str], cut: int, generation: int, target: str, frame: bytes) -> None:
        box = self.boxes.get(target)
        if box is None or cut != self.cuts.get(pair, 0) or len(box.frames) >= BOX_MAX:
            self.lost += 1
            return
        if generation != box.generation and not self.world.options.stale_frames:
            self.lost += 1
            return
        box.frames.append(frame)
        box.wake_process()


class WireNetwork:
    """One process's end: what a Worker takes for its Network."""

    def __init__(self, wires: Wires, address: str) -> None:
        self.wires = wires
        self.address = address
        self.box = wires.bind(address)
        self.closed = False

    def send(self, address: str, frame: bytes) -> bool:
        return not self.closed and self.wires.send(self.address, address, frame)

    def receive(self, limit: int = 256) -> list[bytes]:
        found = self.box.frames
        return [found.popleft() for _ in range(min(limit, len(found)))]

    def wait(self, timeout_s: float) -> None:
        raise AssertionError("nobody waits in virtual time")

    def wake(self) -> None:
        """Nothing sleeps here."""

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.wires.leave(self.box)


def _nobody() -> None:
    """A box whose process is not up yet."""


def host_of(address: str) -> str:
    return address.rpartition(":")[0]
