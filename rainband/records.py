"""The frozen facts that processes exchange: typed, validated at the border by msgspec, never pickled.

Times are seconds. `*_at` is wall time (for people), ages and durations are monotonic differences. Ids are ints.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Union

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=False, omit_defaults=True):
    """Base of all records: immutable, compared by value."""


class Slot(Record, frozen=True, order=True):
    """A place where one worker may run. `port` is also its data port."""

    supervisor: str
    port: int


class Executor(Record, frozen=True, order=True):
    """Tasks `first`..`last` (inclusive) of one component: the unit of placement."""

    component: str
    first: int
    last: int


class Placement(Record, frozen=True):
    """Where an executor runs. `number` grows only when it moves or its worker is replaced by Nimbus."""

    executor: Executor
    slot: Slot
    number: int


class Leaving(Record, frozen=True):
    """A task of a `topology.exclusive` topology that was taken from `slot` in (epoch, version) `since`.

    It may still run there, and does not run where it is placed by now until the supervisor there has said that it has
    ended, or its lease is over.
    """

    task: int
    slot: Slot
    since: tuple[int, int]


class Status(StrEnum):
    """Life of a topology. WAITING: accepted, but fewer slots free than it needs."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"
    REBALANCING = "REBALANCING"
    KILLED = "KILLED"
    WAITING = "WAITING"


class Assignment(Record, frozen=True):
    """All placements of one topology. `version` grows with every change; `hosts` gives each supervisor's address.

    `status` other than ACTIVE pauses the spouts. A worker applies only a larger (epoch, version). `positions` (encoded,
    by task) are where ReliableSpouts that moved here go on, unless this host knows better. Tasks that are still
    `leaving` another slot run nowhere else yet, and what is for them waits.
    """

    topology_id: str
    version: int
    status: Status
    placements: tuple[Placement, ...]
    hosts: dict[str, str]
    epoch: int = 0
    keys: dict[str, str] = {}
    positions: dict[int, bytes] = {}
    leaving: tuple[Leaving, ...] = ()

    def slots(self) -> list[Slot]:
        """Slots in use, sorted."""
        return sorted({p.slot for p in self.placements})

    def on(self, slot: Slot) -> tuple[Placement, ...]:
        """The placements on one slot."""
        return tuple([p for p in self.placements if p.slot == slot])

    def homes(self) -> dict[int, Placement]:
        """Where each task runs. Without those that are still leaving another slot."""
        waiting = {left.task for left in self.leaving}
        return {
            task: placement
            for placement in self.placements
            for task in range(placement.executor.first, placement.executor.last + 1)
            if task not in waiting
        }

    def address(self, slot: Slot) -> str:
        """The data address `host:port` of a slot."""
        return f"{self.hosts[slot.supervisor]}:{slot.port}"


class ErrorRecord(Record, frozen=True):
    """An error of user code (or of a tuple's way), as shown by `rainband errors`."""

    component: str
    task: int
    host: str
    port: int
    at: float
    error: str
    traceback: str = ""
    tuple: str = ""
    count: int = 1


class StreamCount(Record, frozen=True):
    """Tuples on one stream of one component."""

    component: str
    stream: str
    emitted: int = 0
    transferred: int = 0


class EdgeCount(Record, frozen=True):
    """Seconds the sources waited for the targets of one edge: who causes back-pressure."""

    source: str
    stream: str
    target: str
    blocked_s: float = 0.0


class TaskCount(Record, frozen=True):
    """Exact counters of one task since its worker started. Durations are sums of seconds."""

    task: int
    component: str
    emitted: int = 0
    transferred: int = 0
    executed: int = 0
    acked: int = 0
    failed: int = 0
    timed_out: int = 0
    replayed: int = 0
    dead_letters: int = 0
    errors: int = 0
    pending: int = 0
    queued: int = 0
    second_acks: int = 0
    execute_s: float = 0.0
    complete_s: float = 0.0
    finished: bool = False
    tracked: int = 0


class LinkCount(Record, frozen=True):
    """Frames of one link to the process `peer` (0: not known yet) at `address`, since the two know each other."""

    address: str
    peer: int
    sent: int
    received: int


class WorkerState(StrEnum):
    """STARTING until every open and prepare has returned; DRAINING while told to stop."""

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    DRAINING = "DRAINING"
    CRASHED = "CRASHED"


class WorkerBeat(Record, frozen=True):
    """What one worker says of itself, each second and on each change of state.

    `in_flight`: tuples queued here or in a call. `idle`: none, and nothing that is still to be sent. `drained`: idle,
    its spouts have finished, and its peers have confirmed all. `leaving`: tasks that moved away, with a call under way.
    It works by the assignment (`epoch`, `version`).
    """

    topology_id: str
    port: int
    pid: int
    incarnation: int
    version: int
    state: WorkerState
    uptime_s: float = 0.0
    pending: int = 0
    in_flight: int = 0
    idle: bool = False
    drained: bool = False
    paused: bool = False
    tasks: tuple[TaskCount, ...] = ()
    streams: tuple[StreamCount, ...] = ()
    edges: tuple[EdgeCount, ...] = ()
    links: tuple[LinkCount, ...] = ()
    errors: tuple[ErrorRecord, ...] = ()
    counters: dict[str, int] = {}
    rss_bytes: int = 0
    compiled: bool = False
    restarts: int = 0
    note: str = ""
    positions: dict[int, bytes] = {}
    leaving: int = 0
    epoch: int = 0


class Heartbeat(Record, frozen=True, tag="heartbeat"):
    """A supervisor and all its workers. `known` maps topology ids to (epoch, assignment version) already applied.

    `stacks` answers a Progress(stacks=True): topology id to {"host:port pid N": text}. `cluster_id` is the cluster it
    works for, '' while it has no work. `leader` is the cluster whose leaders it has heard, and their highest epoch.
    `behind` are the ports, by topology id, with a process that may still run what `known` has taken away.
    """

    supervisor: str
    host: str
    incarnation: int
    ports: tuple[int, ...]
    workers: tuple[WorkerBeat, ...] = ()
    known: dict[str, tuple[int, int]] = {}
    python: str = ""
    packages: dict[str, str] = {}
    public_key: str = ""
    stopping: bool = False
    stacks: dict[str, dict[str, str]] = {}
    cluster_id: str = ""
    leader: tuple[str, int] = ("", 0)
    behind: dict[str, tuple[int, ...]] = {}


class HeartbeatReply(Record, frozen=True, tag="heartbeat_reply"):
    """Assignments that changed for this supervisor, and every topology id it should still run.

    `lacking` are digests of bundles that this Nimbus has lost, and that the supervisor may have.
    """

    assignments: tuple[Assignment, ...] = ()
    wanted: tuple[str, ...] = ()
    epoch: int = 0
    cluster_id: str = ""
    lacking: tuple[str, ...] = ()


class Upload(Record, frozen=True, tag="upload"):
    """One piece of a blob (a bundle), addressed by its SHA-256; `offset` in bytes; `done` on the last piece.

    `here`: a copy for the Nimbus that is asked, whether it leads or not.
    """

    digest: str
    offset: int
    data: bytes
    done: bool
    here: bool = False


class Download(Record, frozen=True, tag="download"):
    """Ask for `length` bytes of a blob from `offset`; `here`: of the Nimbus that is asked, whether it leads or not."""

    digest: str
    offset: int
    length: int
    here: bool = False


class Piece(Record, frozen=True, tag="piece"):
    """Answer to Download: `size` is the whole blob's size in bytes."""

    data: bytes
    size: int


class Submit(Record, frozen=True, tag="submit"):
    """Start a topology. `plan` is the encoded Plan, whose bundle must have been uploaded before.

    One that comes again with the `token` of the one that was accepted gets the same answer.
    """

    name: str
    plan: bytes
    config: dict[str, object] = {}
    active: bool = True
    token: Annotated[str, msgspec.Meta(max_length=64)] = ""


class Kill(Record, frozen=True, tag="kill"):
    """Stop spouts, wait until nothing is pending (at most `wait_s`; None = the message timeout), remove."""

    name: str
    wait_s: float | None = None


class Activate(Record, frozen=True, tag="activate"):
    name: str


class Deactivate(Record, frozen=True, tag="deactivate"):
    name: str


class Rebalance(Record, frozen=True, tag="rebalance"):
    """Move to `workers` workers and `parallelism` executors per component; waits as Kill does."""

    name: str
    wait_s: float | None = None
    workers: int | None = None
    parallelism: dict[str, int] = {}


class ListTopologies(Record, frozen=True, tag="list"):
    pass


class GetStatistics(Record, frozen=True, tag="get_statistics"):
    name: str


class GetErrors(Record, frozen=True, tag="get_errors"):
    name: str
    component: str | None = None


class GetTopology(Record, frozen=True, tag="get_topology"):
    name: str


class GetStacks(Record, frozen=True, tag="get_stacks"):
    """Ask the workers of a topology for the Python stacks of their threads."""

    name: str


class GetCluster(Record, frozen=True, tag="get_cluster"):
    pass


Request = Union[
    Heartbeat, Upload, Download, Submit, Kill, Activate, Deactivate, Rebalance,
    ListTopologies, GetStatistics, GetErrors, GetTopology, GetStacks, GetCluster,
]


class Done(Record, frozen=True, tag="done"):
    """The request was carried out; `topology_id` where one was made."""

    topology_id: str = ""
    note: str = ""


class Failure(Record, frozen=True, tag="failure"):
    """The request was refused; raised at the caller as the RainbandError with this `code`."""

    code: str
    message: str
    fix: str = ""
    leader: str = ""


class TopologySummary(Record, frozen=True, tag="topology"):
    """One row of `rainband list`."""

    name: str
    topology_id: str
    status: Status
    workers: int
    executors: int
    tasks: int
    uptime_s: float
    slots_missing: int = 0
    due_s: float | None = None
    workers_running: int = 0
    plan: bytes = b""
    assignment: Assignment | None = None


class Topologies(Record, frozen=True, tag="topologies"):
    topologies: tuple[TopologySummary, ...] = ()


class ComponentStatistics(Record, frozen=True):
    """Sums over the tasks of one component, over all incarnations of its workers that Nimbus heard of.

    `emitted` has untracked tuples too; `executed` of a spout are its calls of next_tuple.
    """

    component: str
    emitted: int = 0
    transferred: int = 0
    executed: int = 0
    acked: int = 0
    failed: int = 0
    errors: int = 0
    execute_s: float = 0.0
    queued: int = 0
    tasks: int = 0


class Statistics(Record, frozen=True, tag="statistics"):
    """What a running topology did so far. emitted = acked + failed + pending + lost counts tracked roots of all spouts.

    What a spout emits untracked is in `components` and `transferred` only. `executed` are tuples, by all bolts.
    `lost`: their spout's process died before their verdict, and the spout does not go on where it was (one that does
    reads them again: counters["read_again"]).
    """

    name: str
    topology_id: str = ""
    status: Status = Status.ACTIVE
    emitted: int = 0
    acked: int = 0
    failed: int = 0
    timed_out: int = 0
    replayed: int = 0
    dead_letters: int = 0
    pending: int = 0
    executed: int = 0
    transferred: int = 0
    errors: int = 0
    lost: int = 0
    drained: bool = False
    complete_s: float = 0.0
    uptime_s: float = 0.0
    workers_wanted: int = 0
    workers_running: int = 0
    slots_missing: int = 0
    restarts: int = 0
    components: dict[str, ComponentStatistics] = {}
    workers: tuple[WorkerBeat, ...] = ()
    counters: dict[str, int] = {}


class Errors(Record, frozen=True, tag="errors"):
    errors: tuple[ErrorRecord, ...] = ()


class Stacks(Record, frozen=True, tag="stacks"):
    """Python stacks as text, by `host:port pid N`."""

    stacks: dict[str, str] = {}


class SupervisorSummary(Record, frozen=True):
    supervisor: str
    host: str
    ports: tuple[int, ...]
    used: tuple[int, ...]
    alive: bool
    uptime_s: float = 0.0
    heard_s: float = 0.0


class ClusterSummary(Record, frozen=True, tag="cluster"):
    """Nimbuses (address of the leader first), supervisors and slots."""

    leader: str
    nimbuses: tuple[str, ...]
    supervisors: tuple[SupervisorSummary, ...]
    cluster_id: str = ""
    state: str = ""
    version: str = ""
    python: str = ""


Response = Union[
    Done, Failure, HeartbeatReply, Piece, Topologies, TopologySummary, Statistics, Errors, Stacks, ClusterSummary,
]


class Progress(Record, frozen=True, tag="progress"):
    """Pushed by Nimbus to a supervisor: ask for your assignments now."""

    topology_id: str = ""
    stacks: bool = False
