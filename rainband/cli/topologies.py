"""Commands that list topologies or change one: list, activate, deactivate, rebalance, kill."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from rainband.cli import options
from rainband.cli.output import answer, duration, one_line, say, table
from rainband.clock import SystemClock
from rainband.errors import TopologyNotFound

if TYPE_CHECKING:
    from rainband.nimbus.client import Client
    from rainband.records import ClusterSummary, TopologySummary


@click.command("list")
@options.cluster_options
@options.json_option
@options.verbose_option
def list_command(client: Client, as_json: bool, verbose: bool) -> None:
    """Show the topologies of the cluster, its supervisors and its slots."""
    topologies, cluster = client.topologies(), client.cluster()
    crashing = {t.topology_id: told for t in topologies if (told := _crashes(client, t))}
    if as_json:
        rows = [{**_row(t), "crashing": crashing.get(t.topology_id, "")} for t in topologies]
        answer({"topologies": rows, "cluster": cluster})
        return
    header = ("name", "status", "uptime", "workers", "executors", "tasks", "missing slots")
    if topologies:
        say(table([_cells(t, t.topology_id in crashing) for t in topologies], header))
    else:
        say("no topologies; run one with: rainband submit FILE")
    for t in topologies:
        if t.topology_id in crashing:
            say(f"{t.name} keeps crashing: {one_line(crashing[t.topology_id])}; see: rainband errors {t.name} -v")
    say(f"\n{_describe(cluster)}")
    if verbose:
        supervisors = [
            (s.supervisor, s.host, len(s.ports), len(s.used), "alive" if s.alive else "lost")
            for s in cluster.supervisors
        ]
        say(table(supervisors, ("supervisor", "host", "slots", "used", "state")))


def _row(topology: TopologySummary) -> dict[str, object]:
    names = ("name", "topology_id", "status", "uptime_s", "workers", "workers_running", "executors", "tasks")
    return {name: getattr(topology, name) for name in (*names, "slots_missing", "due_s")}


def _crashes(client: Client, topology: TopologySummary) -> str:
    """Why its workers crash again and again: the last error, or how they ended; '' when they do not."""
    from rainband.nimbus.running import crash_loop

    if topology.workers_running >= topology.workers:
        return ""
    try:
        running = client.topology(topology.name)
        cause = crash_loop(running.statistics())
        errors = running.errors()[-1:] if cause else ()
    except TopologyNotFound:  # killed meanwhile
        return ""
    return next((f"{error.component} task {error.task}: {error.error}" for error in errors), cause)


def _cells(topology: TopologySummary, crashing: bool) -> tuple[object, ...]:
    t = topology
    workers = f"{t.workers_running}/{t.workers}"
    status = f"{t.status} CRASHING" if crashing else str(t.status)
    return t.name, status, duration(t.uptime_s), workers, t.executors, t.tasks, t.slots_missing


def _describe(cluster: ClusterSummary) -> str:
    alive = [s for s in cluster.supervisors if s.alive]
    slots, used = sum(len(s.ports) for s in alive), sum(len(s.used) for s in alive)
    return f"nimbus {cluster.leader}: {len(alive)} supervisors, {used} of {slots} slots used"


def _report(as_json: bool, name: str, did: str, **more: object) -> None:
    if as_json:
        answer({"name": name, "done": did, **more})
    else:
        say(f"{name} {did}" + "".join(f", {key} {value}" for key, value in more.items()))


@click.command("activate")
@click.argument("name")
@options.cluster_options
@options.json_option
@options.verbose_option
def activate_command(name: str, client: Client, as_json: bool, verbose: bool) -> None:
    """Let the spouts of topology NAME go on."""
    client.topology(name).activate()
    _report(as_json, name, "activated")


@click.command("deactivate")
@click.argument("name")
@options.cluster_options
@options.json_option
@options.verbose_option
def deactivate_command(name: str, client: Client, as_json: bool, verbose: bool) -> None:
    """Pause the spouts of topology NAME; what is under way is finished."""
    client.topology(name).deactivate()
    _report(as_json, name, "deactivated")


@click.command("rebalance")
@click.argument("name")
@options.wait_option
@options.workers_option
@options.parallelism_option
@options.cluster_options
@options.timeout_option(None, "Wait at most this long for it to run so (default: the wait and 30 s).")
@options.json_option
@options.verbose_option
def rebalance_command(
    name: str,
    wait_s: float | None,
    workers: int | None,
    parallelism: tuple[str, ...],
    client: Client,
    timeout_s: float | None,
    as_json: bool,
    verbose: bool,
) -> None:
    """Give topology NAME other workers or executors, or spread it anew, without losing or replaying a tuple."""
    clock = SystemClock()
    began = clock.now()
    wanted = options.parse_parallelism(parallelism)
    running = client.topology(name)
    running.rebalance(workers=workers, parallelism=wanted, wait_s=wait_s, timeout_s=timeout_s)
    statistics = running.statistics()
    _report(as_json, name, "rebalanced", workers=statistics.workers_running, seconds=round(clock.now() - began, 2))


@click.command("kill")
@click.argument("name")
@options.wait_option
@options.yes_option
@options.cluster_options
@options.timeout_option(None, "Stop watching after this long (default: the wait and 30 s); the kill goes on.")
@options.json_option
@options.verbose_option
def kill_command(
    name: str,
    wait_s: float | None,
    yes: bool,
    client: Client,
    timeout_s: float | None,
    as_json: bool,
    verbose: bool,
) -> None:
    """Stop the spouts of topology NAME, let what is pending finish, and remove it."""
    running = client.topology(name)
    if not yes and not as_json and sys.stdin.isatty() and sys.stdout.isatty():
        if not click.confirm(f"Kill {name}?"):
            say(f"{name} is not killed")
            return
    clock = SystemClock()
    began = clock.now()
    running.kill(wait_s=wait_s, timeout_s=timeout_s)
    _report(as_json, name, "killed", seconds=round(clock.now() - began, 2))
