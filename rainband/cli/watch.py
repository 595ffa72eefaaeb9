"""Commands that look at a running topology: monitor, errors, stacks."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from rainband.cli import options
from rainband.cli.output import answer, one_line, say, table
from rainband.clock import SystemClock

if TYPE_CHECKING:
    from rainband.nimbus.client import Client
    from rainband.records import ErrorRecord, Statistics

INTERVAL_S = 1.0
COUNTS = ("emitted", "acked", "failed", "timed_out", "replayed", "dead_letters", "pending", "executed", "errors")


@click.command("monitor")
@click.argument("name")
@options.cluster_options
@options.timeout_option(None, "End after this long (default: until Ctrl-C).")
@options.json_option
@options.verbose_option
def monitor_command(name: str, client: Client, timeout_s: float | None, as_json: bool, verbose: bool) -> None:
    """Show what topology NAME does, each second; -v adds its components and workers."""
    running = client.topology(name)
    clock = SystemClock()
    end = clock.now() + timeout_s if timeout_s is not None else float("inf")
    last, last_at = running.statistics(), clock.now()
    if timeout_s == 0:
        _show(last, last, 1.0, as_json, verbose)
    while clock.now() < end:
        threading.Event().wait(min(INTERVAL_S, max(0.0, end - clock.now())))
        statistics, now = running.statistics(), clock.now()
        _show(statistics, last, now - last_at, as_json, verbose)
        last, last_at = statistics, now


def _show(now: Statistics, last: Statistics, seconds: float, as_json: bool, verbose: bool) -> None:
    if as_json:
        answer(_document(now, last, seconds))
        return
    from rainband.nimbus.running import crash_loop, status_text

    rates = [
        f"{name} {(getattr(now, name) - getattr(last, name)) / seconds:,.0f}/s"
        for name in ("emitted", "acked", "executed")
    ]
    totals = [f"{name} {getattr(now, name):,}" for name in ("pending", "failed", "replayed", "errors")]
    workers = f"workers {now.workers_running}/{now.workers_wanted}"
    cause = crash_loop(now)
    why = f"  ({one_line(cause)}; see: rainband errors {now.name})" if cause else ""
    say(f"{now.name} {status_text(now)}  {'  '.join(rates + totals)}  {workers}{why}")
    if verbose:
        rows = [
            (
                c.component,
                c.tasks,
                c.executed,
                c.emitted,
                c.acked,
                c.failed,
                c.queued,
                _mean_ms(c.execute_s, c.executed),
                c.errors,
            )
            for _, c in sorted(now.components.items())
        ]
        say(
            table(rows, ("component", "tasks", "executed", "emitted", "acked", "failed", "queued", "ms each", "errors"))
        )
        beats = [(str(w.port), str(w.pid), str(w.state), w.pending, w.rss_bytes / 1e6, w.uptime_s) for w in now.workers]
        say(table(beats, ("port", "pid", "state", "pending", "MB", "uptime s")) + "\n")


def _mean_ms(total_s: float, count: int) -> str:
    return f"{total_s / count * 1000:.3f}" if count else "-"


def _document(now: Statistics, last: Statistics, seconds: float) -> dict[str, Any]:
    from rainband.nimbus.running import crash_loop

    document: dict[str, Any] = {"name": now.name, "status": now.status, "uptime_s": now.uptime_s}
    document["crashing"] = crash_loop(now)
    document |= {name: getattr(now, name) for name in COUNTS}
    document |= {
        f"{name}_per_s": round((getattr(now, name) - getattr(last, name)) / seconds, 1) for name in ("emitted", "acked")
    }
    document |= {"workers_running": now.workers_running, "workers_wanted": now.workers_wanted, "drained": now.drained}
    document["components"] = now.components
    return document


@click.command("errors")
@click.argument("name")
@click.argument("component", required=False)
@options.cluster_options
@options.json_option
@options.verbose_option
def errors_command(name: str, component: str | None, client: Client, as_json: bool, verbose: bool) -> None:
    """Show the last errors of topology NAME, or of one COMPONENT; -v with tracebacks."""
    errors = client.topology(name).errors(component)
    if as_json:
        for error in errors:
            answer(error)
        return
    for error in errors:
        say(_describe(error))
        if verbose and error.traceback:
            say(error.traceback.rstrip() + "\n")
    if not errors:
        say(f"no errors in {component or name}")


def _describe(error: ErrorRecord) -> str:
    at = datetime.fromtimestamp(error.at, UTC).astimezone().isoformat(" ", "seconds")
    times = f" ({error.count} times)" if error.count > 1 else ""
    tuple_text = f" on {error.tuple}" if error.tuple else ""
    text = one_line(f"{error.error}{times}{tuple_text}")
    return f"{at} {error.component} task {error.task} on {error.host}:{error.port}: {text}"


@click.command("stacks")
@click.argument("name")
@options.cluster_options
@options.json_option
@options.verbose_option
def stacks_command(name: str, client: Client, as_json: bool, verbose: bool) -> None:
    """Show the Python stacks of every worker of topology NAME: where is it right now?"""
    stacks = client.topology(name).stacks()
    if as_json:
        answer({"name": name, "stacks": stacks})
        return
    for worker, text in sorted(stacks.items()):
        say(f"== {worker}\n{text.rstrip()}\n")
