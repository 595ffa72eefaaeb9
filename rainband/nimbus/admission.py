"""May this run here? Checks of what clients send, before anything is decided. The same ones on every path.

A plan is checked again although the client built it with the same rules: Nimbus believes nobody.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from rainband.config import DEFAULTS, OPTIONS, TOPOLOGY, check, validated
from rainband.errors import InvalidTopology, RainbandError, Refused, UsageError, VersionMismatch, did_you_mean
from rainband.nimbus.rows import Entry, Reshape
from rainband.records import Heartbeat
from rainband.topology.plan import ComponentPlan, Plan
from rainband.topology.streams import NAME_RULE, is_name

COMPONENTS_MAX = 10_000
TASKS_MAX = 100_000
WAIT_MAX_S = 7 * 86400.0
SYSTEM = "__"


def check_name(name: str) -> str:
    """`name`, when it may name a topology; else UsageError."""
    if not is_name(name):
        raise UsageError(f"{name[:80]!r} cannot name a topology", f"A name must match {NAME_RULE}")
    return name


def check_wait(wait_s: float | None, timeout_s: float) -> float:
    """The wait in seconds; None means the topology's message timeout."""
    if wait_s is None:
        return timeout_s
    if not (math.isfinite(wait_s) and 0 <= wait_s <= WAIT_MAX_S):
        raise UsageError(f"cannot wait {wait_s} s", f"A wait is a number of seconds from 0 to {WAIT_MAX_S:g}")
    return float(wait_s)


def admit(name: str, data: bytes, config: Mapping[str, object]) -> Plan:
    """The plan to run under `name`, its config overridden by `config`. Raises InvalidTopology with all problems."""
    plan = Plan.decode(data)
    plan = msgspec.structs.replace(plan, name=check_name(name), config={**plan.config, **config})
    problems = list(problems_of(plan))
    if problems:
        raise InvalidTopology(problems)
    return plan


def problems_of(plan: Plan) -> Iterator[str]:
    if len(plan.components) > COMPONENTS_MAX:
        yield f"{len(plan.components)} components are more than {COMPONENTS_MAX}"
        return
    if not any(component.kind == "spout" for component in plan.components.values()):
        yield "topology has no spout"
    if sum(max(0, component.tasks) for component in plan.components.values()) > TASKS_MAX:
        yield f"more than {TASKS_MAX} tasks"
    yield from config_problems(plan.config, "topology", TOPOLOGY)
    for name, component in plan.components.items():
        yield from component_problems(plan, name, component)


def component_problems(plan: Plan, name: str, component: ComponentPlan) -> Iterator[str]:
    """What is wrong with one component, or with what it subscribes to."""
    if component.id != name or not (is_name(name) or (name.startswith(SYSTEM) and is_name(name[len(SYSTEM) :]))):
        yield f"{name[:80]!r} cannot name a component"
    if not 1 <= component.executors <= component.tasks:
        yield f"{name}: {component.executors} executors for {component.tasks} tasks"
    if not name.startswith(SYSTEM):
        yield from config_problems(component.config, name, "component")
    for source in component.inputs:
        known = plan.components.get(source.component)
        if known is None:
            yield f"{name}: subscribes to {source.component[:80]!r}, which is no component"
        elif source.stream not in known.streams:
            yield f"{name}: {source.component} has no stream {source.stream[:80]!r}"
        elif missing := set(source.fields) - set(known.streams[source.stream].fields):
            yield f"{name}: {source.component}/{source.stream} has no field {', '.join(sorted(missing))[:80]}"


def config_problems(config: Mapping[str, object], where: str, scope: str) -> Iterator[str]:
    try:
        validated(config, where=where, scope=scope)
    except RainbandError as error:
        yield str(error)


def fits(plan: Plan, supervisor: Heartbeat) -> bool:
    """Whether workers there have the interpreter (minor version) and packages the topology was built with."""
    return not differences(plan, supervisor)


def differences(plan: Plan, supervisor: Heartbeat) -> list[str]:
    """What differs, as 'python 3.11 here, 3.12 there'."""
    result = []
    if plan.python and supervisor.python and minor(plan.python) != minor(supervisor.python):
        result.append(f"python {plan.python} here, {supervisor.python} there")
    for package in sorted(plan.packages.keys() & supervisor.packages.keys()):
        if plan.packages[package] != supervisor.packages[package]:
            result.append(f"{package} {plan.packages[package]} here, {supervisor.packages[package]} there")
    return result


def minor(version: str) -> tuple[str, ...]:
    return tuple(version.split(".")[:2])


def check_versions(plan: Plan, supervisors: Iterable[Heartbeat]) -> None:
    """VersionMismatch when there are supervisors, and none of them fits."""
    all_of_them = sorted(supervisors, key=lambda heartbeat: heartbeat.supervisor)
    if all_of_them and not any(fits(plan, supervisor) for supervisor in all_of_them):
        first = all_of_them[0]
        raise VersionMismatch(
            f"{plan.name} cannot run on supervisor {first.supervisor}: {', '.join(differences(plan, first))}",
            "Submit with the interpreter and packages the supervisors have",
        )


def check_reshape(plan: Plan, workers: int | None, parallelism: Mapping[str, int]) -> Reshape:
    """What a rebalance may ask of this plan. Raises InvalidConfig, UsageError or Refused, naming the limit."""
    if workers is not None:
        check(OPTIONS["topology.workers"], workers)
    for name, executors in parallelism.items():
        component = plan.components.get(name)
        if component is None:
            known = sorted(other for other in plan.components if not other.startswith(SYSTEM))
            fix = did_you_mean(name, known) or f"It has {', '.join(known)}"
            raise Refused(f"{plan.name} has no component {name[:80]!r}", fix)
        if executors < 1:
            raise UsageError(f"{name} cannot have {executors} executors", "At least 1")
        if executors > component.tasks:
            raise Refused(
                f"{name} cannot have {executors} executors: its {component.tasks} tasks were fixed at submit",
                f"Ask for at most {component.tasks}, or submit it again with tasks={executors}",
            )
    return Reshape(workers, dict(parallelism))


def reshaped(plan: Plan, reshape: Reshape) -> Plan:
    """The plan with the workers and executors a rebalance asked for."""
    components = {
        name: msgspec.structs.replace(component, executors=reshape.parallelism.get(name, component.executors))
        for name, component in plan.components.items()
    }
    config = plan.config if reshape.workers is None else {**plan.config, "topology.workers": reshape.workers}
    return msgspec.structs.replace(plan, components=components, config=config)


def timeout_s(entry: Entry) -> float:
    """The topology's message timeout: the default wait of kill and rebalance, whatever else is in its config."""
    value = entry.plan.config.get("topology.message.timeout.secs")
    return float(value if isinstance(value, (int, float)) else DEFAULTS["topology.message.timeout.secs"])
