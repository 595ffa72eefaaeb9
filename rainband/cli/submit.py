"""`rainband submit`: load, pack, send, then watch until every worker is up and the first tuple is acked."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from rainband.cli import options
from rainband.cli.output import answer, complain, note, one_line, say
from rainband.clock import Clock, SystemClock
from rainband.errors import NotReached, UsageError

if TYPE_CHECKING:
    from rainband.nimbus.client import Running
    from rainband.records import Statistics
    from rainband.topology.graph import Topology

FIRST_ACK_S = 5.0
WAITING_S = 5.0


def load(target: str, arguments: tuple[str, ...], settings: dict[str, Any], name: str | None) -> Topology:
    """The topology that FILE[:NAME] describes, with the settings given on the way. Raises what its loading raises.

    Its `warnings` are for the caller to tell.
    """
    from rainband.topology.bundle import load_topology

    file, colon, attribute = target.rpartition(":")
    if not colon or not attribute.isidentifier():
        file, attribute = target, "topology"
    if not file:
        raise UsageError(f"{target!r} names no file", "Write FILE or FILE:NAME")
    with unlogged("rainband.topology"):
        topology = load_topology(file, attribute, list(arguments))
    if name is not None:
        settings = {**settings, "topology.name": name}
    return topology.with_config(settings) if settings else topology


@contextlib.contextmanager
def unlogged(name: str) -> Iterator[None]:
    """Drop what is logged under `name` meanwhile."""
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def tell_warnings(topology: Topology) -> None:
    """One line each, on stderr."""
    for warning in topology.warnings:
        note(one_line(f"warning: {warning}"))


def quiet_users(as_json: bool) -> contextlib.AbstractContextManager[object]:
    """With --json stdout is for the answer: what user code prints goes to stderr."""
    return contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()


def topology_settings(config_file: str | None, settings: tuple[str, ...], workers: int | None) -> dict[str, Any]:
    """The settings among those given that are about topologies, not daemons."""
    from rainband.config import COMPONENT, TOPOLOGY, select

    return select(options.load_settings(config_file, settings, topology_workers=workers), TOPOLOGY, COMPONENT)


@click.command("submit")
@click.argument("target", metavar="FILE[:NAME]")
@click.argument("arguments", metavar="[-- ARGS]", nargs=-1, type=click.UNPROCESSED)
@click.option("--name", help="Name to run under (default: the topology's own).")
@options.workers_option
@options.settings_options
@options.nimbus_option
@options.timeout_option(120.0, "Wait at most this long for the workers.")
@options.json_option
@options.verbose_option
def submit_command(
    target: str,
    arguments: tuple[str, ...],
    name: str | None,
    workers: int | None,
    config_file: str | None,
    settings: tuple[str, ...],
    seeds: tuple[str, ...],
    timeout_s: float,
    as_json: bool,
    verbose: bool,
) -> int:
    """Run the topology NAME (default: topology) of FILE on the cluster.

    NAME is a Topology, or a function of ARGS that returns one. FILE's directory travels to the workers. Returns when
    all workers run and every open and prepare has returned; 6 when that does not happen in time.
    """
    with quiet_users(as_json):
        topology = load(target, arguments, topology_settings(config_file, settings, workers), name)
    client = options.connect(seeds, config_file, settings)
    tell = unheard if as_json else say
    spouts = [c for _, c in sorted(topology.plan.components.items()) if c.kind == "spout"]
    clock = SystemClock()
    began = clock.now()
    running = client.submit(topology)
    tell(f"{running.name} accepted after {clock.now() - began:.1f} s")
    for spout in spouts:
        tell(f"spout {spout.id}: {spout.guarantee}")
    if not as_json:
        tell_warnings(topology)
    document: dict[str, object] = {
        "name": running.name,
        "spouts": {spout.id: spout.guarantee for spout in spouts},
        "warnings": topology.warnings,
    }
    code = 0
    try:
        statistics = wait_for_workers(running, timeout_s, unheard if as_json else note)
        document["workers_running_s"] = round(clock.now() - began, 3)
        tell(
            f"{statistics.workers_running} of {statistics.workers_wanted} workers run after {clock.now() - began:.1f} s"
        )
        if any(spout.guarantee != "untracked" for spout in spouts):
            document["first_ack_s"] = first_ack(running, began, clock)
            tell(f"first tuple acked after {document['first_ack_s']} s" if document["first_ack_s"] else "no ack yet")
        tell(f"next: rainband monitor {running.name}")
    except NotReached as error:
        code = complain(error, as_json)
    statistics = running.statistics()
    document["crashing"] = told_crashes(running.name, statistics, unheard if as_json else note)
    for key in ("topology_id", "status", "workers_wanted", "workers_running", "slots_missing"):
        document[key] = getattr(statistics, key)
    if as_json:
        answer(document)
    return code


def wait_for_workers(running: Running, timeout_s: float, tell: Callable[[str], None]) -> Statistics:
    """Until all workers run; errors in open and prepare are told as they come. Raises NotReached when it takes longer.

    With too few slots it does not wait for long.
    """
    told = 0

    def placed(statistics: Statistics) -> bool:
        return statistics.slots_missing == 0 and statistics.status != "WAITING"

    def running_all(statistics: Statistics) -> bool:
        nonlocal told
        if statistics.errors > told:
            told = statistics.errors
            for error in running.errors()[-1:]:
                tell(one_line(f"{error.component} task {error.task}: {error.error}"))
        return placed(statistics) and statistics.workers_running == statistics.workers_wanted

    try:
        running.wait_until(placed, min(WAITING_S, timeout_s))
    except NotReached:
        missing = running.statistics().slots_missing
        raise NotReached(
            f"{running.name} is WAITING: {missing} {'slot is' if missing == 1 else 'slots are'} missing",
            f"It starts when there are enough: rainband supervisor --slots {missing}",
        ) from None
    return running.wait_until(running_all, timeout_s, "not every worker runs")


def told_crashes(name: str, statistics: Statistics, tell: Callable[[str], None]) -> str:
    """Tell, and return, why workers crash again and again; '' when they do not."""
    from rainband.nimbus.running import crash_loop

    cause = crash_loop(statistics)
    if cause:
        tell(one_line(f"{name} is CRASHING, {statistics.restarts} restarts: {cause}; see: rainband errors {name} -v"))
    return cause


def unheard(text: str) -> None:
    """With --json only the answer is told."""


def first_ack(running: Running, began: float, clock: Clock) -> float | None:
    """Seconds since `began` until the first ack was seen; None when none came in time."""
    try:
        running.wait_until(lambda s: s.acked > 0, FIRST_ACK_S)
    except NotReached:
        return None
    return round(clock.now() - began, 3)
