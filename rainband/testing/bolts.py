"""`run_bolt`: give one bolt some rows and see what it emits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rainband.config import Config
from rainband.errors import InvalidTopology
from rainband.local.cluster import LocalCluster, LocalRunning
from rainband.local.engine import Engine
from rainband.records import ErrorRecord
from rainband.testing.completion import ERRORS_MAX, LOOK_S, TIMEOUT_S, complete, tasks_of, trial
from rainband.topology import inspection
from rainband.topology.builder import streams_of
from rainband.topology.components import Bolt, overrides
from rainband.topology.declared import Declaration, Declared, Snapshot, Subscription
from rainband.topology.graph import Topology
from rainband.topology.plan import StreamPlan
from rainband.topology.sources import FixedRows
from rainband.topology.streams import DEFAULT

BOLT = "bolt"
TICK = "topology.tick.tuple.freq.secs"
NEVER_S = 86400.0 * 365
BOUND = ("emit", "emit_many", "emit_direct", "ack", "fail", "reset_timeout")


class BoltRun(list[tuple[Any, ...]]):
    """What the bolt emitted on its default stream, as a list of tuples; and what else there is to know."""

    def __init__(self, running: LocalRunning, errors: tuple[ErrorRecord, ...]) -> None:
        super().__init__(running.emitted(BOLT) if DEFAULT in running.plan.components[BOLT].streams else ())
        self._running = running
        self.errors = errors
        """Errors of user code, with `raise_errors=False`."""

    def emitted(self, stream: str = "default") -> list[tuple[Any, ...]]:
        """Every tuple that was emitted on one stream."""
        return self._running.emitted(BOLT, stream)

    @property
    def acked(self) -> list[tuple[Any, ...]]:
        """The rows whose tuples the bolt acked, in that order."""
        return self._running.acked(BOLT)

    @property
    def failed(self) -> list[tuple[Any, ...]]:
        """The rows whose tuples the bolt failed, in that order."""
        return self._running.failed(BOLT)


def run_bolt(
    bolt: Bolt,
    rows: Sequence[Sequence[object]],
    *,
    fields: Sequence[str] | None = None,
    component: str = "source",
    ticks: int = 0,
    config: Mapping[str, object] | None = None,
    timeout_s: float = TIMEOUT_S,
    raise_errors: bool = True,
    check_values: bool = True,
    seed: int = 0,
    secrets: Mapping[str, str] | None = None,
) -> BoltRun:
    """Give `rows` to this very instance, as tuples of `fields` (default: value0, value1 ...) emitted by `component`.

    It is prepared, executes all rows, is ticked `ticks` times and cleaned up, in virtual time. Returns what it emitted
    on its default stream: `run_bolt(Split(), [["a b"]], fields=["line"]) == [("a",), ("b",)]`. Raises InvalidTopology
    for what could not be part of a topology, and the first error of the bolt unless `raise_errors=False`.
    """
    topology = around(bolt, [list(row) for row in check_rows(rows)], fields, component, config or {})
    source = topology.load(component)
    with trial(
        timeout_s, seed=seed, raise_errors=raise_errors, check_values=check_values, secrets=secrets
    ) as (cluster, watch):
        try:
            cluster.do(lambda engine: engine.submit(topology, {component: source, BOLT: bolt}.__getitem__))
            running = LocalRunning(cluster, topology.name)
            completed = complete(cluster, watch, running, timeout_s, lambda: tick(cluster, running, ticks))
        finally:
            for name in BOUND:
                vars(bolt).pop(name, None)
        return BoltRun(running, completed.errors())


def check_rows(rows: Any) -> Sequence[Sequence[object]]:
    """Raises InvalidTopology unless `rows` is a sequence of sequences of values."""
    if isinstance(rows, (str, bytes)) or not isinstance(rows, Sequence):
        raise InvalidTopology(f"rows is {rows!r:.80}", "Write a list of rows, as in [['a b']]")
    for number, row in enumerate(rows):
        if isinstance(row, (str, bytes, bytearray, memoryview)) or not isinstance(row, Sequence):
            raise InvalidTopology(f"row {number} is {row!r:.80}", f"Write [{row!r:.80}]")
    return rows


def around(
    bolt: Bolt,
    rows: list[list[object]],
    fields: Sequence[str] | None,
    component: str,
    config: Mapping[str, object],
) -> Topology:
    """A topology of a spout that emits `rows`, and `bolt`; neither needs to pickle."""
    if isinstance(fields, (str, bytes)):
        raise InvalidTopology(f"fields is {fields!r:.80}", f"Write [{fields!r:.80}]")
    names = tuple(fields) if fields is not None else tuple([f"value{n}" for n in range(len(rows[0]) if rows else 1)])
    width = len(names)
    problems = [f"row {n} has {len(row)} values for {list(names)}" for n, row in enumerate(rows) if len(row) != width]
    problems += inspection.problems_of_kind(bolt, Bolt)
    if problems:
        raise InvalidTopology(problems[:10])
    streams, problems = streams_of(bolt)
    problems += inspection.problems_of(bolt)
    if problems:
        raise InvalidTopology(problems)
    ticks = overrides(bolt, "tick")
    settings: dict[str, object] = {TICK: NEVER_S} if ticks else {}
    settings |= {"topology.max.error.report.per.interval": ERRORS_MAX, **config}
    source = FixedRows([("default", tuple(row)) for row in rows], names)
    return Topology(
        Declaration(
            "run-bolt",
            Config(settings).plain(),
            (
                declared(component, "spout", source, {"default": StreamPlan(names)}),
                declared(BOLT, "bolt", bolt, streams, (Subscription(component, "default", "shuffle"),), ticks),
            ),
        )
    )


def declared(
    name: str,
    kind: str,
    original: object,
    streams: dict[str, StreamPlan],
    subscriptions: tuple[Subscription, ...] = (),
    ticks: bool = False,
) -> Declared:
    """A component that nobody will copy or pickle."""
    snapshot = Snapshot(original, b"", "")
    type_name = f"{type(original).__module__}:{type(original).__qualname__}"
    guarantee = inspection.REPORTS_ONLY if kind == "spout" else ""
    return Declared(name, kind, snapshot, streams, 1, None, {}, type_name, guarantee, True, ticks, subscriptions)


def tick(cluster: LocalCluster, running: LocalRunning, times: int) -> None:
    """Tick the bolt, and let it finish what it emits then."""
    topology_id = running.summary().topology_id

    def once(engine: Engine) -> None:
        for made in tasks_of(engine, topology_id):
            if made.component == BOLT:
                for _, worker in engine.workers(topology_id):
                    worker.tick(made)

    for _ in range(times):
        cluster.do(once)
        cluster.run(LOOK_S, lambda engine: engine.drained(topology_id))
        cluster.raise_error()
