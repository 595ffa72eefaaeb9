"""A topology: a valid plan, snapshots of its components, and their pickles. Immutable: changes make a new one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rainband.config import COMPONENT, TOPOLOGY, Config, select, validated
from rainband.errors import InvalidTopology, UsageError, did_you_mean
from rainband.groupings.specs import CustomGrouping
from rainband.topology import snapshot
from rainband.topology.declared import Declaration, Declared, Snapshot
from rainband.topology.plan import Plan
from rainband.topology.sources import fixed_rows
from rainband.topology.validate import plan_of, warnings_of

log = logging.getLogger("rainband.topology")


def checked(topology: object) -> Topology:
    """The topology that was passed. Raises InvalidTopology when it is something else."""
    if isinstance(topology, Topology):
        return topology
    builder = hasattr(topology, "create_topology")
    raise InvalidTopology(
        f"{topology!r:.80} is no topology", "Pass what its create_topology() returns" if builder else "Build one first"
    )


class Topology:
    """What `TopologyBuilder.create_topology()` returns and every cluster takes.

    `warnings` are lines for people; `project` is the directory whose code goes to the cluster with it, if known.
    """

    def __init__(self, declaration: Declaration, project: Path | None = None) -> None:
        """Raises InvalidTopology with all problems."""
        self._declaration = declaration
        self.plan: Plan = plan_of(declaration)
        self.warnings: tuple[str, ...] = tuple(warnings_of(declaration, self.plan))
        self.project = project
        self._snapshots: dict[str, Snapshot] = {d.id: d.snapshot for d in declaration.components}
        self._groupings: dict[str, Snapshot] = {
            s.custom.digest: s.custom for d in declaration.components for s in d.subscriptions if s.custom is not None
        }

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def components(self) -> dict[str, object]:
        """The snapshots by component id: to look at, not to run or change."""
        return {name: taken.original for name, taken in sorted(self._snapshots.items())}

    @property
    def pickles(self) -> dict[str, bytes]:
        """Pickles of all components and custom groupings by SHA-256."""
        taken = [*self._snapshots.values(), *self._groupings.values()]
        return {one.digest: one.pickle for one in sorted(taken, key=lambda one: one.digest)}

    def parts(self) -> list[object]:
        """Everything of the user's that travels as a pickle: to look at, not to run or change."""
        return [taken.original for taken in (*self._snapshots.values(), *self._groupings.values())]

    def digest(self) -> str:
        """SHA-256 of the plan, and through it of every component: equal for equal topologies."""
        return self.plan.digest()

    def load(self, component: str) -> Any:
        """A fresh, independent copy of a component, for one task. Raises UsageError for an unknown one."""
        if component not in self._snapshots:
            raise UsageError(f"no component {component!r}", did_you_mean(component, self._snapshots))
        taken = self._snapshots[component]
        return snapshot.duplicate(taken.original, taken.pickle)

    def custom_grouping(self, digest: str) -> CustomGrouping:
        """A fresh copy of a custom grouping, for one emitting task."""
        taken = self._groupings[digest]
        grouping = snapshot.duplicate(taken.original, taken.pickle)
        assert isinstance(grouping, CustomGrouping)
        return grouping

    def with_config(self, config: Mapping[str, object]) -> Topology:
        """The same topology with other settings on top; daemon settings in `config` are left out.

        `topology.name` renames it. Raises InvalidConfig or InvalidTopology.
        """
        checked = select(validated(config), TOPOLOGY, COMPONENT)
        merged = Config.layer(self._declaration.config, checked).plain()
        return Topology(named(replace(self._declaration, config=merged)), self.project)

    def with_sources(self, sources: Mapping[str, Sequence[Sequence[object]] | Mapping[str, Any]]) -> Topology:
        """The same topology with spouts that emit given rows, then finish.

        `sources` maps spout ids to the rows of the default stream, or to a mapping of streams to rows. Rows are
        tracked, with their index as message id, and spread evenly over the tasks; a ReliableSpout still replays.
        Raises InvalidTopology.
        """
        problems: list[str] = []
        spouts = {d.id: d for d in self._declaration.components if d.kind == "spout"}
        replaced: dict[str, Declared] = {}
        if not isinstance(sources, Mapping):
            fix = f"Write rows by spout, as in {{{next(iter(spouts), 'spout')!r}: [...]}}"
            raise InvalidTopology(f"sources is {sources!r:.80}", fix)
        for name, rows in sources.items():
            if name not in spouts:
                fix = did_you_mean(name, spouts) or f"There is {sorted(spouts)}"
                problems.append(f"sources: no spout {name!r:.80}. {fix}")
                continue
            try:
                replaced[name] = fixed_rows(spouts[name], rows)
            except InvalidTopology as error:
                problems += error.problems
        if problems:
            raise InvalidTopology(problems)
        components = tuple([replaced.get(d.id, d) for d in self._declaration.components])
        return Topology(replace(self._declaration, components=components), self.project)

    def __repr__(self) -> str:
        return f"Topology({self.name!r}: {', '.join(self._snapshots)})"


def named(declaration: Declaration) -> Declaration:
    """The declaration with `topology.name` taken out of its config and used as its name."""
    config = dict(declaration.config)
    name = config.pop("topology.name", None)
    return replace(declaration, config=config, name=declaration.name if name is None else name)
