"""Where users say what their topology is made of."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from rainband.config import COMPONENT, TOPOLOGY, Config, validated
from rainband.errors import InvalidTopology
from rainband.groupings import specs
from rainband.groupings.specs import CustomGrouping, Grouping
from rainband.topology import inspection, snapshot, streams
from rainband.topology.components import Bolt, Component, ReliableSpout, Spout, overrides
from rainband.topology.declared import Declaration, Declared, Snapshot, Subscription
from rainband.topology.graph import Topology, log, named
from rainband.topology.plan import StreamPlan
from rainband.topology.validate import TICK, warnings_of_cycles

HERE = os.path.dirname(os.path.abspath(__file__))


class BoltDeclarer:
    """Returned by `set_bolt`: each grouping subscribes the bolt to one stream, and returns this for the next."""

    def __init__(self, builder: TopologyBuilder, position: int) -> None:
        self._builder = builder
        self._position = position

    def shuffle_grouping(self, component: str, *, stream: str = "default") -> Self:
        """Tuples are spread evenly over the tasks, those that lag behind passed over."""
        return self._subscribe(component, stream, specs.SHUFFLE)

    def fields_grouping(self, component: str, fields: Sequence[str], *, stream: str = "default") -> Self:
        """Tuples with equal values of `fields` go to one task."""
        return self._subscribe(component, stream, specs.FIELDS, fields)

    def partial_key_grouping(self, component: str, fields: Sequence[str], *, stream: str = "default") -> Self:
        """As fields_grouping, but each key has two tasks, of which the less used is taken: for skewed keys."""
        return self._subscribe(component, stream, specs.PARTIAL_KEY, fields)

    def all_grouping(self, component: str, *, stream: str = "default") -> Self:
        """Every task gets every tuple."""
        return self._subscribe(component, stream, specs.ALL)

    def global_grouping(self, component: str, *, stream: str = "default") -> Self:
        """The task with the lowest id gets every tuple."""
        return self._subscribe(component, stream, specs.GLOBAL)

    def none_grouping(self, component: str, *, stream: str = "default") -> Self:
        """It does not matter; at present the same as shuffle."""
        return self._subscribe(component, stream, specs.NONE)

    def direct_grouping(self, component: str, *, stream: str = "default") -> Self:
        """The emitter names the task, with emit_direct on a DirectStream."""
        return self._subscribe(component, stream, specs.DIRECT)

    def local_or_shuffle_grouping(self, component: str, *, stream: str = "default") -> Self:
        """Spread over the tasks in the emitter's own worker if there are any, else over all."""
        return self._subscribe(component, stream, specs.LOCAL_OR_SHUFFLE)

    def custom_grouping(self, component: str, grouping: CustomGrouping, *, stream: str = "default") -> Self:
        """A rule of your own. Each emitting task has its own copy of `grouping`."""
        return self._subscribe(component, stream, specs.CUSTOM, (), grouping)

    def _subscribe(self, component: str, stream: str, kind: str, fields: Any = (), custom: Any = None) -> Self:
        problem, taken = "", None
        try:
            fields = _names(fields)
            Grouping(kind, fields, custom)
        except InvalidTopology as error:
            problem = str(error)
        if custom is not None and not problem:
            taken, problem = snapshot.take(custom)
            problem = f"{type(custom).__name__}: {problem}" if problem else ""
        subscription = Subscription(component, stream, kind, fields, taken, problem, _site())
        self._builder._subscribe(self._position, subscription)
        return self


class TopologyBuilder:
    """Collects spouts and bolts; `create_topology` checks them against each other.

    `config` is for the whole topology, and raises InvalidConfig at once.
    """

    def __init__(self, name: str, config: Mapping[str, object] | None = None) -> None:
        self._name = name
        self._config = Config(validated(config or {}, where="config of the topology", scope=TOPOLOGY)).plain()
        self._components: list[Declared] = []

    def set_spout(
        self,
        component_id: str,
        spout: Spout,
        parallelism: int = 1,
        *,
        tasks: int | None = None,
        config: Mapping[str, object] | None = None,
    ) -> None:
        """Add a spout, as it is now, with `parallelism` executors running `tasks` tasks (by default one each).

        Raises InvalidTopology for what is wrong with the component itself, InvalidConfig for its config.
        """
        self._add(component_id, "spout", Spout, spout, parallelism, tasks, config)

    def set_bolt(
        self,
        component_id: str,
        bolt: Bolt,
        parallelism: int = 1,
        *,
        tasks: int | None = None,
        config: Mapping[str, object] | None = None,
    ) -> BoltDeclarer:
        """Add a bolt, as it is now; say where its tuples come from on what is returned. Raises as set_spout does."""
        self._add(component_id, "bolt", Bolt, bolt, parallelism, tasks, config)
        return BoltDeclarer(self, len(self._components) - 1)

    def create_topology(self) -> Topology:
        """Raises InvalidTopology, whose `problems` holds everything that is wrong."""
        declaration = Declaration(self._name, self._config, tuple(self._components))
        topology = Topology(named(declaration))
        for warning in warnings_of_cycles(topology.plan):
            log.warning("%s: %s", topology.name, warning)
        return topology

    def _add(
        self,
        component_id: str,
        kind: str,
        wanted: type[Component],
        component: Any,
        parallelism: Any,
        tasks: Any,
        config: Any,
    ) -> None:
        settings = validated(config or {}, where=f"config of {kind} {component_id!r:.80}", scope=COMPONENT)
        problems = inspection.problems_of_kind(component, wanted)
        declared: dict[str, StreamPlan] = {}
        taken: Snapshot | None = None
        if not problems:
            problems = inspection.problems_of(component) + self._problems_of_tick(component, kind, settings)
            declared, wrong = streams_of(component)
            taken, problem = snapshot.take(component)
            problems += wrong + ([problem] if problem else [])
        if problems or taken is None:
            site = _site()
            raise InvalidTopology([f"{kind} {component_id!r:.80}: {problem} ({site})" for problem in problems])
        is_async = inspection.is_async(component)
        self._components.append(
            Declared(
                id=component_id,
                kind=kind,
                snapshot=taken,
                streams=declared,
                parallelism=parallelism,
                tasks=tasks,
                config=Config(settings).plain(),
                type_name=f"{type(component).__module__}:{type(component).__qualname__}",
                guarantee=inspection.guarantee_of(component) if kind == "spout" else "",
                turns=not component.blocking and not is_async,
                ticks=kind == "bolt" and overrides(component, "tick"),
                site=_site(),
            )
        )

    def _problems_of_tick(self, component: Component, kind: str, settings: Mapping[str, Any]) -> list[str]:
        ticks = kind == "bolt" and overrides(component, "tick") and callable(getattr(component, "tick", None))
        if ticks and settings.get(TICK, self._config.get(TICK)) is None:
            return [f"it has tick() but no interval: set config={{'{TICK}': 10}}"]
        if not ticks and settings.get(TICK) is not None:
            return [f"it has {TICK} but no tick(): " + ("define tick(self)" if kind == "bolt" else "only bolts tick")]
        return []

    def _subscribe(self, position: int, subscription: Subscription) -> None:
        declared = self._components[position]
        self._components[position] = replace(declared, subscriptions=(*declared.subscriptions, subscription))


def streams_of(component: object) -> tuple[dict[str, StreamPlan], list[str]]:
    """The streams a component can emit to, those it has from the runtime included, and what is wrong with them."""
    declared, problems = streams.normalise(getattr(component, "outputs", ()))
    if isinstance(component, ReliableSpout):
        if streams.DEAD_LETTERS in declared:
            problems.append(f"outputs has the stream '{streams.DEAD_LETTERS}', which a ReliableSpout has already")
        declared[streams.DEAD_LETTERS] = StreamPlan(streams.DEAD_LETTER_FIELDS)
    return dict(sorted(declared.items())), problems


def _names(fields: Any) -> tuple[str, ...]:
    """The names in `fields`. Raises InvalidTopology unless it is a list or tuple of distinct strings."""
    if isinstance(fields, (str, bytes)):
        kind = type(fields).__name__
        raise InvalidTopology(f"{fields!r:.80} is a {kind}, not a sequence of names", f"write [{fields!r:.80}]")
    if not isinstance(fields, (list, tuple)) or not all(isinstance(field, str) for field in fields):
        raise InvalidTopology(f"{fields!r:.80} is not a list of field names", 'write, say, ["word"]')
    if len(set(fields)) < len(fields):
        raise InvalidTopology(f"{list(fields)!r:.80} names a field more than once")
    return tuple(fields)


def _site() -> str:
    """file:line of the nearest caller outside this room."""
    frame = sys._getframe(1)
    while frame.f_back is not None and os.path.dirname(os.path.abspath(frame.f_code.co_filename)) == HERE:
        frame = frame.f_back
    path = frame.f_code.co_filename
    short = os.path.relpath(path) if os.path.isabs(path) and path.startswith(os.getcwd() + os.sep) else path
    return f"{short}:{frame.f_lineno}"
