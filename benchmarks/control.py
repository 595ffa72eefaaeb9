"""The control plane: placing many executors, and hearing from many supervisors."""

from __future__ import annotations

import platform
import statistics
import struct
import time
from collections.abc import Iterator

import msgspec
import zmq

from benchmarks import harness
from benchmarks.harness import Cluster, Wish, cpu_of, status_mb
from benchmarks.results import Result, WrongCount, histogram, percentiles, result
from rainband.messaging.sockets import endpoint, split_address
from rainband.nimbus.scheduler import place
from rainband.records import (
    Assignment,
    Executor,
    Heartbeat,
    HeartbeatReply,
    Response,
    Slot,
    TaskCount,
    WorkerBeat,
    WorkerState,
)
from rainband.topology.bundle import load_topology

SUPERVISORS = 1000
SLOTS = 10
TOPOLOGIES = 100
WORKERS = 100
COMPONENTS = 10
EXECUTORS = 10_000
SETTLE_S = 60.0
NUMBER = struct.Struct("<Q")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Response).decode


def scheduler(cluster: Cluster, wish: Wish) -> Result:
    """Seconds to place 10,000 executors on slots of 1,000 supervisors, and to replace a lost supervisor."""
    each = EXECUTORS // COMPONENTS
    executors = [Executor(f"component-{c}", c * each + n, c * each + n) for c in range(COMPONENTS) for n in range(each)]
    slots = [Slot(f"supervisor-{s:04}", 6700 + n) for s in range(SUPERVISORS) for n in range(SLOTS)]
    began = time.perf_counter()
    placed = place(executors, wish.workers, {}, slots)
    first_s = time.perf_counter() - began
    gone = next(iter(placed.slots.values())).supervisor
    left = [slot for slot in slots if slot.supervisor != gone]
    began = time.perf_counter()
    again = place(executors, wish.workers, placed.slots, left)
    lost_s = time.perf_counter() - began
    moved = [executor for executor in executors if placed.slots[executor] != again.slots[executor]]
    if {placed.slots[executor].supervisor for executor in moved} != {gone} or len(again.slots) != EXECUTORS:
        raise WrongCount("the scheduler moved more than it had to, or placed less")
    return result(
        "scheduler", workers=wish.workers, acking=wish.acking, lost=0, duplicated=0,
        executors=EXECUTORS, supervisors=SUPERVISORS,
        placed_s=round(first_s, 3), supervisor_lost_s=round(lost_s, 3), executors_moved=len(moved),
    )  # fmt: skip


class Supervisor:
    """What a supervisor says to Nimbus, and nothing behind it."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, number: int) -> None:
        self.name = f"simulated-{number:04}"
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(endpoint(*split_address(address)))
        self.ports = tuple(range(6700, 6700 + SLOTS))
        self.assignments: dict[str, Assignment] = {}
        self.workers: list[tuple[Slot, Assignment]] = []
        self.sent_at = 0.0
        self.beats = 0

    def beat(self, now: float) -> None:
        self.beats += 1
        known = {name: (found.epoch, found.version) for name, found in self.assignments.items()}
        beats = tuple(self.worker(slot, assignment) for slot, assignment in self.workers)
        message = Heartbeat(self.name, "127.0.0.1", 1, self.ports, beats, known, python=platform.python_version())
        self.sent_at = now
        self.socket.send_multipart([NUMBER.pack(self.beats), _encode(message)])

    def worker(self, slot: Slot, assignment: Assignment) -> WorkerBeat:
        tasks = tuple(
            TaskCount(task, place.executor.component, emitted=self.beats, executed=self.beats)
            for place in assignment.on(slot)
            for task in range(place.executor.first, place.executor.last + 1)
        )
        return WorkerBeat(
            assignment.topology_id, slot.port, 1, 1, assignment.version, WorkerState.RUNNING, float(self.beats),
            tasks=tasks,
        )  # fmt: skip

    def heard(self) -> float | None:
        """Seconds its last heartbeat took to be answered, once it is."""
        try:
            parts = self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        if parts[0] == bytes(NUMBER.size):
            return None
        reply = _decode(parts[1])
        if not isinstance(reply, HeartbeatReply):
            raise WrongCount(f"Nimbus answered {reply}")
        taken = time.monotonic() - self.sent_at
        self.sent_at = 0.0
        if reply.assignments:
            for assignment in reply.assignments:
                self.assignments[assignment.topology_id] = assignment
            self.workers = [
                (slot, assignment)
                for assignment in self.assignments.values()
                for slot in assignment.slots()
                if slot.supervisor == self.name
            ]
        return taken

    def close(self) -> None:
        self.socket.close()


def beating(crowd: list[Supervisor], seconds: float) -> Iterator[float]:
    """Each of them beats once a second, evenly spread; yields how long each answer took."""
    began = time.monotonic()
    waiting: list[Supervisor] = []
    sent = 0
    while True:
        now = time.monotonic()
        if now - began > seconds and not waiting:
            return
        while now - began <= seconds and sent < (now - began) * len(crowd):
            one = crowd[sent % len(crowd)]
            sent += 1
            if one.sent_at == 0.0:
                one.beat(now)
                waiting.append(one)
        for one in waiting[:]:
            taken = one.heard()
            if taken is not None:
                waiting.remove(one)
                yield taken
        time.sleep(0.0005)


def nimbus(cluster: Cluster, wish: Wish) -> Result:
    """Share of one core that Nimbus uses to hear from 1,000 supervisors with 10,000 workers each second."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    context.max_sockets = 2 * SUPERVISORS
    crowd = [Supervisor(context, cluster.daemons.address, number) for number in range(SUPERVISORS)]
    pid = cluster.daemons.children["nimbus"].pid
    try:
        for _ in beating(crowd, wish.warm_up_s):
            pass
        began = time.monotonic()
        topology = load_topology(harness.TOPOLOGIES / "crowd.py", "topology", [str(WORKERS)])
        for number in range(wish.workers // WORKERS):
            config = {"topology.workers": WORKERS}
            cluster.client.submit(topology, config=config, name=f"crowd-{number}")
        submitted_s = time.monotonic() - began
        until = time.monotonic() + SETTLE_S
        while sum(len(one.workers) for one in crowd) < wish.workers:
            if time.monotonic() > until:
                raise WrongCount(f"{sum(len(one.workers) for one in crowd)} of {wish.workers} workers were assigned")
            for _ in beating(crowd, 1.0):
                pass
        before, began = cpu_of([pid])[pid], time.monotonic()
        taken = list(beating(crowd, wish.seconds))
        share = (cpu_of([pid])[pid] - before) / (time.monotonic() - began)
        if len(taken) < 0.9 * wish.seconds * SUPERVISORS:
            raise WrongCount(f"only {len(taken)} heartbeats were answered")
        rss = status_mb(pid, "VmRSS")
    finally:
        for one in crowd:
            one.close()
        context.term()
    return result(
        "nimbus", workers=wish.workers, acking=wish.acking, lost=0, duplicated=0, rss_mb_max=round(rss, 1),
        supervisors=SUPERVISORS, topologies=wish.workers // WORKERS, submitted_s=round(submitted_s, 2),
        heartbeats_per_s=round(len(taken) / wish.seconds), nimbus_cpu_share=round(share, 3),
        answer_ms=percentiles(histogram(taken)), answer_ms_mean=round(statistics.mean(taken) * 1e3, 3),
    )  # fmt: skip
