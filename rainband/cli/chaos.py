"""`rainband chaos`: attack a running topology on purpose, and watch that nothing is lost."""

from __future__ import annotations

import itertools
import random
import re
import threading
from typing import TYPE_CHECKING, Any

import click

from rainband.cli import options
from rainband.cli.output import answer, say
from rainband.clock import Clock, SystemClock
from rainband.errors import NotReached, Refused, UsageError

if TYPE_CHECKING:
    from rainband.nimbus.client import Client, Running
    from rainband.records import Assignment, Statistics, WorkerBeat

UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
LOOK_S = 0.05
BACK_S = 120.0
PAUSE = "10s"


@click.group("chaos")
def chaos_command() -> None:
    """Attack a running topology on purpose, and watch that nothing is lost."""


def parse_duration(text: str) -> float:
    """'10s', '2m', '1h', '0.5' (seconds) -> seconds. Raises UsageError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if found is None:
        raise UsageError(f"{text!r} is not a duration", "Write 10s, 2m or 1h")
    return float(found[1]) * UNITS[found[2]]


@chaos_command.command("kill-worker")
@click.argument("name")
@click.option("--component", metavar="COMP", help="Kill a worker that runs this component (default: any).")
@click.option("--every", metavar="TIME", help="Go on, a kill each TIME (10s, 2m), until --times or Ctrl-C.")
@click.option("--times", type=click.IntRange(1), metavar="N", help="How many kills (default: 1, with --every no end).")
@click.option("--seed", type=int, help="Draw the same victims again.")
@options.cluster_options
@options.timeout_option(BACK_S, "Wait at most this long for each replacement.")
@options.json_option
@options.verbose_option
def kill_worker_command(
    name: str,
    component: str | None,
    every: str | None,
    times: int | None,
    seed: int | None,
    client: Client,
    timeout_s: float,
    as_json: bool,
    verbose: bool,
) -> None:
    """kill -9 a worker of topology NAME that runs on this machine, and tell how it recovers."""
    pause_s = parse_duration(every or PAUSE)
    kills = times if times is not None or every is not None else 1
    running = client.topology(name)
    draw = random.Random(seed)
    clock = SystemClock()
    for number in itertools.count(1):
        begun = clock.now()
        story = attack(running, draw, component, timeout_s, clock)
        tell(story, number, kills, as_json)
        if number == kills:
            break
        threading.Event().wait(max(0.0, pause_s - (clock.now() - begun)))


def attack(
    running: Running, draw: random.Random, component: str | None, timeout_s: float, clock: Clock
) -> dict[str, Any]:
    """One kill and what came of it. Raises Refused without a victim, NotReached without a replacement in time."""
    from rainband.supervisor.embedded import kill_worker

    before = running.statistics()
    summary = running.summary()
    assignment = summary.assignment
    if assignment is None:
        raise Refused(f"{running.name} runs nowhere yet", "Wait until it is ACTIVE")
    victim = choose(before, assignment, draw, component)
    if not kill_worker(victim.pid, assignment.topology_id, victim.port):
        raise Refused(
            f"pid {victim.pid} on this machine is not that worker",
            "Run this command on the machine where the worker runs, as the same user",
        )
    at = clock.now()
    story: dict[str, Any] = {
        "topology": running.name,
        "killed": {"pid": victim.pid, "port": victim.port, "components": components(victim)},
    }
    story |= recover(running, victim, at, timeout_s, clock)
    story["ledger"] = ledger(running.statistics(), before)
    return story


def choose(statistics: Statistics, assignment: Assignment, draw: random.Random, component: str | None) -> WorkerBeat:
    """A running worker, of the component if one is named. Raises Refused when there is none."""
    from rainband.errors import did_you_mean

    known = {placement.executor.component for placement in assignment.placements}
    if component is not None and component not in known:
        raise UsageError(f"no component {component!r}", did_you_mean(component, known) or f"There are {sorted(known)}")
    ports = {p.slot.port for p in assignment.placements if component in (None, p.executor.component)}
    victims = [w for w in statistics.workers if w.state == "RUNNING" and w.port in ports]
    if not victims:
        raise Refused(f"no worker of {statistics.name} runs" + (f" {component}" if component else ""))
    return draw.choice(sorted(victims, key=lambda worker: worker.port))


def components(worker: WorkerBeat) -> list[str]:
    return sorted({task.component for task in worker.tasks if not task.component.startswith("__")})


def recover(running: Running, victim: WorkerBeat, at: float, timeout_s: float, clock: Clock) -> dict[str, Any]:
    """Seconds from the kill until Nimbus knew of it, and until all workers ran again, with the new pid."""
    noticed_s: float | None = None
    while True:
        now = running.statistics()
        passed_s = clock.now() - at
        here = [worker for worker in now.workers if worker.port == victim.port]
        old = any(worker.pid == victim.pid and worker.state == "RUNNING" for worker in here)
        if noticed_s is None and not old:
            noticed_s = passed_s
        if noticed_s is not None and now.workers_running >= now.workers_wanted:
            new = [worker.pid for worker in here if worker.pid != victim.pid]
            back = {"noticed_s": round(noticed_s, 2), "running_s": round(passed_s, 2)}
            return {**back, "new_pid": new[0] if new else None}
        if passed_s > timeout_s:
            has = f"{running.name} has {now.workers_running} of {now.workers_wanted} workers again"
            raise NotReached(f"{has} after {timeout_s:g} s", f"See: rainband errors {running.name}")
        threading.Event().wait(LOOK_S)


def ledger(now: Statistics, before: Statistics) -> dict[str, Any]:
    """Where every emitted root is. `replayed` counts since `before`."""
    again = now.counters.get("read_again", 0)
    return {
        "emitted": now.emitted,
        "acked": now.acked,
        "in_flight": now.pending,
        "failed": now.failed,
        "replayed": now.replayed - before.replayed,
        "read_again": again - before.counters.get("read_again", 0),
        "dead_letters": now.dead_letters,
        "lost": now.lost,
    }


def tell(story: dict[str, Any], number: int, kills: int | None, as_json: bool) -> None:
    """The story of one kill, as five lines or one document."""
    if as_json:
        answer(story)
        return
    killed, book = story["killed"], story["ledger"]
    which = "" if kills == 1 else f" ({number} of {kills})" if kills else f" ({number})"
    say(f"killed    worker pid {killed['pid']} on port {killed['port']}: {', '.join(killed['components'])}{which}")
    say(f"noticed   after {story['noticed_s']} s")
    new = f"pid {story['new_pid']}" if story["new_pid"] else "on other slots"
    say(f"running   again after {story['running_s']} s, {new}")
    say(
        f"ledger    emitted {book['emitted']:,} = acked {book['acked']:,} + in flight {book['in_flight']:,}"
        f" + failed {book['failed']:,}" + (f" + lost {book['lost']:,}" if book["lost"] else "")
    )
    say(
        f"replays   {book['replayed']:,} sent again, {book['read_again']:,} read again after their spout died;"
        f" dead letters {book['dead_letters']:,}; lost {book['lost']:,}"
    )
