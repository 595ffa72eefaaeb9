"""From a declaration to a plan: compares what was declared with what is there, and reports every problem at once."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import msgspec

from rainband.build import VERSION
from rainband.config import Config
from rainband.errors import InvalidTopology, did_you_mean
from rainband.groupings.hashing import HASH_VERSION
from rainband.groupings.specs import DIRECT, KEYED_KINDS
from rainband.topology.declared import Declaration, Declared, Subscription
from rainband.topology.inspection import UNTRACKED
from rainband.topology.order import cycles, levels, part_of
from rainband.topology.plan import ACKER, ComponentPlan, InputPlan, Plan, StreamPlan
from rainband.topology.streams import NAME_RULE, is_name

PARALLELISM_MAX = 10_000
TASKS_MAX = 100_000
COMPONENTS_MAX = 10_000
KEY_GROUPS_PER_TASK = 64
TICK = "topology.tick.tuple.freq.secs"


def plan_of(declaration: Declaration) -> Plan:
    """The plan of a valid declaration. Raises InvalidTopology with all problems, in the order of the declarations."""
    problems = list(_problems(declaration))
    if problems:
        raise InvalidTopology(problems)
    config = Config(declaration.config)
    plans = {declared.id: _component(declared, config) for declared in declaration.components}
    if config["topology.acker.executors"]:
        count = config["topology.acker.executors"]
        plans[ACKER] = ComponentPlan(ACKER, "system", {}, (), count, count, key_groups(count))
    total = sum(component.tasks for component in plans.values())
    if total > TASKS_MAX:
        raise InvalidTopology(f"the topology has {total:,} tasks, more than {TASKS_MAX:,}")
    return Plan(
        name=declaration.name,
        components={name: plans[name] for name in sorted(_with_order(plans))},
        config=config.plain(),
        python=platform.python_version(),
        packages={"cloudpickle": cloudpickle.__version__, "msgspec": msgspec.__version__, "rainband": VERSION},
        hash_version=HASH_VERSION,
    )


def warnings_of_cycles(plan: Plan) -> list[str]:
    """One line for each edge on a cycle."""
    return [
        f"'{source.component}' -> '{name}' lies on a cycle: it takes no credit, so limit by yourself what goes round"
        for name, component in plan.components.items()
        for source in component.inputs
        if source.cyclic
    ]


def warnings_of(declaration: Declaration, plan: Plan) -> list[str]:
    """What is allowed but may not be meant. `plan` is the plan of the declaration."""
    warnings = warnings_of_cycles(plan)
    for declared in declaration.components:
        component = plan.components[declared.id]
        if declared.turns and component.executors > plan.workers:
            warnings.append(
                f"'{declared.id}' has {component.executors} executors on {plan.workers} worker(s), taking turns: for "
                "more cores set topology.workers, for calls that wait use async def or blocking = True"
            )
    reached = {target for name, c in plan.components.items() if c.kind == "spout" for target in plan.downstream(name)}
    for declared in declaration.components:
        if declared.kind == "bolt" and declared.id not in reached and not declared.ticks:
            warnings.append(f"'{declared.id}' is reached by no spout")
    return warnings


def key_groups(tasks: int) -> int:
    """The number of key groups of a component: the power of two at or above 64 per task."""
    return 1 << (KEY_GROUPS_PER_TASK * tasks - 1).bit_length()


def _problems(declaration: Declaration) -> Iterator[str]:
    yield from problems_of_name(declaration.name)
    if len(declaration.components) > COMPONENTS_MAX:
        yield f"the topology has {len(declaration.components):,} components, more than {COMPONENTS_MAX:,}"
        return
    known: dict[str, Declared] = {}
    for declared in declaration.components:
        yield from _problems_of_id(declared, known)
    if not any(declared.kind == "spout" for declared in declaration.components):
        yield "the topology has no spout: add one with set_spout(...)"
    for declared in declaration.components:
        yield from _problems_of_counts(declared)
        if declared.ticks and declared.config.get(TICK, declaration.config.get(TICK)) is None:
            yield f"{_named(declared)} has tick() but no interval: set {TICK}{_at(declared.site)}"
        seen: dict[tuple[object, object], Subscription] = {}
        for subscription in declared.subscriptions:
            yield from _problems_of_subscription(declared, subscription, known, seen)
        if declared.kind == "bolt" and not declared.subscriptions and not declared.ticks:
            fix = 'say where its tuples come from, as in .shuffle_grouping("lines")'
            yield f"{_named(declared)} has no input: {fix}{_at(declared.site)}"


def problems_of_name(name: object) -> Iterator[str]:
    """Why a topology cannot have this name."""
    if not is_name(name):
        yield f"the topology name {_shown(name)} must match {NAME_RULE}"


def _problems_of_id(declared: Declared, known: dict[str, Declared]) -> Iterator[str]:
    if isinstance(declared.id, str) and declared.id.startswith("__"):
        yield f"the component id {_shown(declared.id)} is reserved: begin it without '__'{_at(declared.site)}"
    elif not is_name(declared.id):
        yield f"the component id {_shown(declared.id)} must match {NAME_RULE}{_at(declared.site)}"
    elif declared.id in known:
        first = known[declared.id]
        both = f"by a {first.kind}{_at(first.site)} and a {declared.kind}{_at(declared.site)}"
        yield f"the component id '{declared.id}' is used twice: {both}"
    else:
        known[declared.id] = declared


def _problems_of_counts(declared: Declared) -> Iterator[str]:
    parallelism, tasks = declared.parallelism, declared.tasks
    head, tail = _named(declared), _at(declared.site)
    rule = f"must be a whole number from 1 to {PARALLELISM_MAX:,}"
    if not _whole(parallelism):
        yield f"{head}: parallelism {rule}, not {_shown(parallelism)}{tail}"
    if tasks is not None and not _whole(tasks):
        yield f"{head}: tasks {rule}, not {_shown(tasks)}{tail}"
    elif tasks is not None and _whole(parallelism) and tasks < parallelism:
        yield f"{head}: tasks={tasks} is less than parallelism={parallelism}, and each executor needs a task{tail}"


def _whole(value: object) -> bool:
    return type(value) is int and 1 <= value <= PARALLELISM_MAX


def _problems_of_subscription(
    declared: Declared,
    subscription: Subscription,
    known: Mapping[str, Declared],
    seen: dict[tuple[object, object], Subscription],
) -> Iterator[str]:
    head = f"{_named(declared)}, {subscription.kind}_grouping({_shown(subscription.source)})"
    tail = _at(subscription.site)
    if subscription.problem:
        yield f"{head}: {subscription.problem}{tail}"
    source = known.get(subscription.source) if isinstance(subscription.source, str) else None
    if source is None:
        hint = did_you_mean(subscription.source, known) or f"Known: {_listed(known)}"
        yield f"{head}: no component {_shown(subscription.source)}. {hint}{tail}"
        return
    stream = source.streams.get(subscription.stream) if isinstance(subscription.stream, str) else None
    if stream is None:
        hint = did_you_mean(subscription.stream, source.streams) or (
            f"Its streams: {_listed(source.streams)}" if source.streams else "It emits nothing: set its outputs"
        )
        yield f"{head}: '{source.id}' has no stream {_shown(subscription.stream)}. {hint}{tail}"
        return
    key = (subscription.source, subscription.stream)
    if key in seen:
        first = f", first at {seen[key].site}" if seen[key].site else ""
        yield f"{head}: stream '{subscription.stream}' is subscribed to twice{first}{tail}"
    seen[key] = subscription
    yield from (f"{head}: {problem}{tail}" for problem in _problems_of_fit(subscription, stream))


def _problems_of_fit(subscription: Subscription, stream: StreamPlan) -> Iterator[str]:
    if stream.direct != (subscription.kind == DIRECT):
        if stream.direct:
            yield f"stream '{subscription.stream}' is a DirectStream, which only direct_grouping can read"
        else:
            yield f"stream '{subscription.stream}' is not direct: declare it in outputs as DirectStream(...)"
    if subscription.problem or subscription.kind not in KEYED_KINDS:
        return
    for field in subscription.fields:
        if field not in stream.fields:
            hint = did_you_mean(field, stream.fields) or f"Its fields: {_listed(stream.fields)}"
            yield f"no field {_shown(field)} in stream '{subscription.stream}'. {hint}"


def _component(declared: Declared, config: Config) -> ComponentPlan:
    layered = Config.layer(config.plain(), declared.config)
    cap = layered["topology.max.task.parallelism"]
    executors = min(declared.parallelism, cap) if cap else declared.parallelism
    tasks = executors if declared.tasks is None else declared.tasks
    tracked = config["topology.acker.executors"] != 0
    return ComponentPlan(
        id=declared.id,
        kind=declared.kind,
        streams=declared.streams,
        inputs=tuple([
            InputPlan(s.source, s.stream, s.kind, tuple(s.fields), s.custom.digest if s.custom else "")
            for s in declared.subscriptions
        ]),
        executors=executors,
        tasks=tasks,
        key_groups=key_groups(tasks),
        config=Config(declared.config).plain(),
        digest=declared.snapshot.digest,
        type_name=declared.type_name,
        guarantee=declared.guarantee if tracked or not declared.guarantee else UNTRACKED,
    )


def _with_order(plans: dict[str, ComponentPlan]) -> dict[str, ComponentPlan]:
    """Sets in `plans` the level of each component and marks the edges on cycles."""
    targets: dict[str, list[str]] = {name: [] for name in plans}
    for name, plan in plans.items():
        for source in plan.inputs:
            targets[source.component].append(name)
    parts = cycles(targets)
    number = part_of(parts)
    level = levels(targets, parts)
    for name, plan in list(plans.items()):
        inputs = tuple([
            msgspec.structs.replace(source, cyclic=number[source.component] == number[name]) for source in plan.inputs
        ])
        plans[name] = msgspec.structs.replace(plan, level=level[name], inputs=inputs)
    return plans


def _named(declared: Declared) -> str:
    return f"{declared.kind} {_shown(declared.id)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    first = [f"'{name}'" for name in list(names)[:10]]
    return ", ".join(first) + (" ..." if len(names) > 10 else "") if first else "none"


def _at(site: str) -> str:
    return f" ({site})" if site else ""
