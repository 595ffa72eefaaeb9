"""The plan: all that Nimbus, the scheduler, workers and people need to know of a topology, without its code.

Components and custom groupings are named by the SHA-256 of their pickles, which travel in the bundle.
Only workers unpickle them. Task ids are numbered from 1 by sorted component id, system components included
(Storm's rule); the tasks of a component are split into contiguous executors whose sizes differ by at most one.
"""

from __future__ import annotations

import hashlib
from functools import cached_property

import msgspec

from rainband.errors import InvalidTopology
from rainband.records import Executor

ACKER = "__acker"
PLAN_FORMAT = 1


class StreamPlan(msgspec.Struct, frozen=True):
    """Fields of one output stream; `direct` streams are emitted to a named task."""

    fields: tuple[str, ...]
    direct: bool = False


class InputPlan(msgspec.Struct, frozen=True):
    """One subscription: `kind` is shuffle, fields, partial_key, all, global, none, direct, local_or_shuffle or custom.

    `fields` for fields and partial_key; `custom` is the digest of a pickled CustomGrouping. `cyclic` edges take
    no credit.
    """

    component: str
    stream: str
    kind: str
    fields: tuple[str, ...] = ()
    custom: str = ""
    cyclic: bool = False


class ComponentPlan(msgspec.Struct, frozen=True):
    """One spout, bolt or system component. `digest` names its pickle in the bundle ('' for system components).

    `key_groups` is G of the fields grouping into this component: a power of two >= 64 x tasks.
    `guarantee` (spouts): "replays", "own fail()", "reports only" or "untracked".
    `level` is the distance to the farthest sink, for running those nearest the sinks first.
    """

    id: str
    kind: str
    streams: dict[str, StreamPlan]
    inputs: tuple[InputPlan, ...]
    executors: int
    tasks: int
    key_groups: int
    config: dict[str, object] = {}
    digest: str = ""
    type_name: str = ""
    guarantee: str = ""
    level: int = 0


class Plan(msgspec.Struct, frozen=True, dict=True):
    """A validated topology. `bundle` is the SHA-256 of its code bundle, '' when the code is already in this process."""

    name: str
    components: dict[str, ComponentPlan]
    config: dict[str, object] = {}
    bundle: str = ""
    python: str = ""
    packages: dict[str, str] = {}
    hash_version: int = 1
    format: int = PLAN_FORMAT

    @cached_property
    def tasks(self) -> dict[str, range]:
        """Task ids by component."""
        ids: dict[str, range] = {}
        first = 1
        for name in sorted(self.components):
            count = self.components[name].tasks
            ids[name] = range(first, first + count)
            first += count
        return ids

    @cached_property
    def component_of(self) -> dict[int, str]:
        """Component by task id."""
        return {task: name for name, ids in self.tasks.items() for task in ids}

    @cached_property
    def spout_tasks(self) -> list[int]:
        """The task ids of all spouts, sorted; a root id carries the place of its spout task in this list."""
        return [t for name, ids in self.tasks.items() if self.components[name].kind == "spout" for t in ids]

    @property
    def levels(self) -> int:
        return 1 + max((component.level for component in self.components.values()), default=0)

    @property
    def workers(self) -> int:
        value = self.config.get("topology.workers", 1)
        assert isinstance(value, int)
        return value

    def executors(self) -> tuple[Executor, ...]:
        """All executors, sorted."""
        return tuple([
            e
            for name in sorted(self.components)
            for e in split(name, self.tasks[name], self.components[name].executors)
        ])

    def downstream(self, component: str) -> frozenset[str]:
        """Every component that tuples of `component` can reach, itself only when it is on a cycle."""
        return self._downstream[component]

    @cached_property
    def _downstream(self) -> dict[str, frozenset[str]]:
        direct: dict[str, set[str]] = {name: set() for name in self.components}
        for name, component in self.components.items():
            for source in component.inputs:
                direct[source.component].add(name)
        reach: dict[str, frozenset[str]] = {}
        for name in self.components:
            seen: set[str] = set()
            todo = list(direct[name])
            while todo:
                target = todo.pop()
                if target not in seen:
                    seen.add(target)
                    todo.extend(direct[target])
            reach[name] = frozenset(seen)
        return reach

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @staticmethod
    def decode(data: bytes) -> Plan:
        """Raises InvalidTopology when the bytes are not a plan of this format."""
        try:
            plan = msgspec.msgpack.decode(data, type=Plan)
        except msgspec.DecodeError as error:
            raise InvalidTopology(f"not a topology plan: {error}") from None
        if plan.format != PLAN_FORMAT:
            raise InvalidTopology(
                f"plan format {plan.format} is not {PLAN_FORMAT}", "Use the same rainband on both sides"
            )
        return plan

    def digest(self) -> str:
        """SHA-256 over plan and bundle."""
        return hashlib.sha256(self.encode()).hexdigest()


def split(component: str, tasks: range, executors: int) -> list[Executor]:
    """Contiguous near-even split of `tasks` over min(executors, tasks) executors; the first ones get the remainder."""
    count = min(executors, len(tasks))
    if count == 0:
        return []
    size, extra = divmod(len(tasks), count)
    result = []
    first = tasks.start
    for index in range(count):
        last = first + size + (index < extra) - 1
        result.append(Executor(component, first, last))
        first = last + 1
    return result
