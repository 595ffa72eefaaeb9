"""`rainband local`: run a topology in this process, with the engine that runs in workers."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import click

from rainband.cli import options
from rainband.cli.daemons import stopped_by_signals
from rainband.cli.output import answer, note, one_line, say, table
from rainband.cli.patience import Patience
from rainband.cli.submit import load, quiet_users, tell_warnings, topology_settings
from rainband.clock import SystemClock
from rainband.errors import NotReached

if TYPE_CHECKING:
    from rainband.records import ComponentStatistics, ErrorRecord, Statistics

LOOK_S = 0.05
TELL_S = 2.0


@click.command("local")
@click.argument("target", metavar="FILE[:NAME]")
@click.argument("arguments", metavar="[-- ARGS]", nargs=-1, type=click.UNPROCESSED)
@options.workers_option
@click.option("--processes", is_flag=True, help="Real daemons and workers on loopback instead of one process.")
@options.secrets_option
@options.settings_options
@options.timeout_option(None, "Stop after this long (default: when drained).")
@options.json_option
@options.verbose_option
def local_command(
    target: str,
    arguments: tuple[str, ...],
    workers: int | None,
    processes: bool,
    secrets: str | None,
    config_file: str | None,
    settings: tuple[str, ...],
    timeout_s: float | None,
    as_json: bool,
    verbose: bool,
) -> int:
    """Run the topology NAME (default: topology) of FILE here, until every spout has finished and nothing is pending.

    Ctrl-C ends it earlier. Exit code 1: rows were given up or, untracked, met an error; 6: not drained in time.
    """
    from rainband import LocalCluster

    clock = SystemClock()
    with contextlib.ExitStack() as stack:
        stack.enter_context(quiet_users(as_json))
        topology = load(target, arguments, topology_settings(config_file, settings, workers), None)
        if not as_json:
            tell_warnings(topology)
        began = told = clock.now()
        patience = Patience(as_json)
        stack.enter_context(stopped_by_signals(lambda: patience.due(0.0, 130, "the interrupt")))
        stack.enter_context(patience)
        cluster = stack.enter_context(LocalCluster(processes=processes, secrets=secrets))
        if not processes:
            patience.watch(cluster)
        if timeout_s is not None:
            patience.due(timeout_s, NotReached.exit_code, f"the timeout of {timeout_s:g} s")
        running = cluster.submit(topology)
        interrupted = False
        try:
            while not (statistics := running.statistics()).drained:
                if timeout_s is not None and clock.now() - began >= timeout_s:
                    break
                if clock.now() - told >= TELL_S and not as_json:
                    told = clock.now()
                    note(f"{statistics.acked:,} acked, {statistics.pending:,} pending, {statistics.errors:,} errors")
                threading.Event().wait(LOOK_S)
        except KeyboardInterrupt:
            interrupted = True
        statistics, errors = running.statistics(), running.errors()
    _summarise(statistics, errors, topology.warnings, clock.now() - began, as_json, verbose)
    if interrupted:
        raise KeyboardInterrupt
    if not statistics.drained:
        raise NotReached(
            f"{topology.name} was not drained after {timeout_s} s", "Its spouts call finish() at their end"
        )
    return 1 if gave_up(statistics) else 0


def gave_up(statistics: Statistics) -> bool:
    """Whether user code failed for good: dead letters, roots failed without a replay, or errors nobody tracked."""
    tracked = statistics.acked + statistics.failed > 0
    return bool(
        statistics.dead_letters or statistics.failed > statistics.replayed or (statistics.errors and not tracked)
    )


def _summarise(
    statistics: Statistics,
    errors: tuple[ErrorRecord, ...],
    warnings: tuple[str, ...],
    seconds: float,
    as_json: bool,
    verbose: bool,
) -> None:
    names = ("name", "drained", "emitted", "acked", "failed", "replayed", "dead_letters", "pending", "errors")
    if as_json:
        document = {name: getattr(statistics, name) for name in names}
        document |= {"seconds": round(seconds, 3), "warnings": warnings}
        answer({**document, "components": statistics.components, "failures": errors})
        return
    rows = [(c.component, c.tasks, c.executed, c.emitted, c.acked, c.failed, c.errors) for c in _components(statistics)]
    say(table(rows, ("component", "tasks", "executed", "emitted", "acked", "failed", "errors")))
    for error in errors if verbose else errors[-3:]:
        line = one_line(f"{error.component}: {error.error}")
        note(error.traceback.rstrip() if verbose and error.traceback else line)
    say(f"{_end(statistics)} after {seconds:.1f} s; next: rainband up, rainband submit FILE")


def _components(statistics: Statistics) -> list[ComponentStatistics]:
    return [c for name, c in sorted(statistics.components.items()) if not name.startswith("__")]


def _end(statistics: Statistics) -> str:
    return "drained" if statistics.drained else "stopped"
