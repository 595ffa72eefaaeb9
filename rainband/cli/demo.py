"""`rainband demo`: a real cluster counts the standard library's words, one worker may be killed, then the proof."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rainband.build import VERSION, describe
from rainband.cli import options
from rainband.cli.daemons import stopped_by_signals
from rainband.cli.output import answer, note, say
from rainband.clock import Clock, SystemClock
from rainband.errors import NotReached

if TYPE_CHECKING:
    from rainband.cli.display import Display
    from rainband.nimbus.client import Running
    from rainband.records import Statistics, WorkerBeat
    from rainband.supervisor.embedded import EmbeddedCluster

SUPERVISORS, SLOTS, WORKERS = 2, 2, 3
KILL_AT = 0.4
LOOK_S = 0.05  # while the middle is awaited, which may be over soon
STANDSTILL_S = 120.0
TOP = 8


@dataclass
class Story:
    """What was seen while the demo ran. `work` is executed + emitted tuples by worker pid, the dead included."""

    total_lines: int
    seconds: float = 0.0
    replayed: int = 0
    split: int = 0
    work: dict[int, int] = field(default_factory=dict)
    parts: dict[int, str] = field(default_factory=dict)
    killed: int = 0
    killed_at: float = 0.0
    replaced_after_s: float | None = None

    def see(self, statistics: Statistics) -> None:
        self.replayed = max(self.replayed, statistics.replayed)
        if "split" in statistics.components:
            self.split = max(self.split, statistics.components["split"].executed)
        for worker in statistics.workers:
            done = sum(task.executed + task.emitted for task in worker.tasks)
            self.work[worker.pid] = max(self.work.get(worker.pid, 0), done)
            self.parts[worker.pid] = ", ".join(user_components(worker))

    def sent_again(self, lines: int) -> int:
        """Lines that came to `split` more than once: replayed, or read again by a spout that was started again."""
        return max(self.replayed, self.split - lines)

    def shares(self) -> list[dict[str, Any]]:
        total = sum(self.work.values()) or 1
        return [
            {"pid": pid, "share": round(done / total, 4), "components": self.parts[pid], "killed": pid == self.killed}
            for pid, done in sorted(self.work.items())
        ]


def user_components(worker: WorkerBeat) -> list[str]:
    """The components of the user's own in a worker."""
    return sorted({task.component for task in worker.tasks if not task.component.startswith("__")})


@click.command("demo")
@click.option(
    "--kill-worker",
    is_flag=False,
    flag_value="random",
    type=click.Choice(["random", "lines", "split", "count"]),
    help="Midway, kill -9 the worker that runs this component (without a name: any worker).",
)
@click.option("--files", "limit", type=click.IntRange(1), metavar="N", help="Only the first N files.")
@click.option("--keep", is_flag=True, help="Keep the directory with the cluster's state, logs and counts.")
@options.json_option
@options.verbose_option
def demo_command(kill_worker: str | None, limit: int | None, keep: bool, as_json: bool, verbose: bool) -> int:
    """Count every word of Python's standard library on a cluster of its own, then prove the counts.

    Starts Nimbus, 2 supervisors and 3 workers on free ports of this machine, in a directory of its own, and stops
    them all at the end. The proof is a plain Counter in a script that imports nothing of rainband.
    """
    from rainband.cli.display import Display
    from rainband.demo.topology import library_files
    from rainband.supervisor.embedded import EmbeddedCluster

    directory = Path(tempfile.mkdtemp(prefix="rainband-demo-"))
    display = Display(quiet=as_json)
    code = 1
    try:
        with stopped_by_signals():
            clock = SystemClock()
            began = clock.now()
            display.line("rainband", f"{VERSION}, {describe()}, Python {sys.version.split()[0]}")
            with EmbeddedCluster(directory / "cluster", supervisors=SUPERVISORS, slots=SLOTS) as cluster:
                display.line("cluster", f"{_daemons(cluster)}; ready after {clock.now() - began:.1f} s")
                files = library_files()[:limit]
                story = _count(cluster, files, directory / "counts", kill_worker, display, clock)
            code = _prove(story, files if limit else [], directory / "counts", display, as_json)
    except KeyboardInterrupt:
        code = 130
    finally:
        if keep or code == 1:
            note(f"kept: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return code


def _daemons(cluster: EmbeddedCluster) -> str:
    pids = {name: child.pid for name, child in cluster.children.items()}
    others = ", ".join(f"{name} pid {pid}" for name, pid in pids.items() if name != "nimbus")
    return f"nimbus at {cluster.address} pid {pids['nimbus']}, {others}"


def _count(
    cluster: EmbeddedCluster, files: list[str], counts: Path, kill: str | None, display: Display, clock: Clock
) -> Story:
    """Submit the topology and watch it until it is drained. Raises NotReached when it stands still."""
    from rainband.cli.submit import wait_for_workers
    from rainband.demo.topology import word_count
    from rainband.nimbus.client import Client

    counts.mkdir(mode=0o700)
    size = sum(os.path.getsize(path) for path in files)
    story = Story(sum(Path(path).read_bytes().count(b"\n") for path in files))
    middle = KILL_AT * sum(len(Path(path).read_bytes().split()) for path in files) if kill else float("inf")
    display.line("input", f"{len(files):,} .py files of the standard library, {size / 1e6:.1f} MB")
    began = clock.now()
    with Client(cluster.address) as client:
        running = client.submit(word_count(str(counts), files, WORKERS))
        statistics = wait_for_workers(running, 60.0, lambda text: display.line("error", text))
        for worker in statistics.workers:
            display.line("worker", f"pid {worker.pid} on port {worker.port}: {', '.join(user_components(worker))}")
        _watch(running, story, counts, kill, middle, display, clock)
        story.seconds = clock.now() - began
        running.kill(wait_s=0)
    if kill and not story.killed:
        display.line("kill -9", "nobody: the work was done before its middle was seen")
    return story


def _watch(
    running: Running, story: Story, counts: Path, kill: str | None, middle: float, display: Display, clock: Clock
) -> None:
    """Show how far it is until it is drained; kill a worker once `middle` words are counted."""
    from rainband.demo.topology import read_counts, words_counted

    moved_at, last = clock.now(), -1
    with display.watching(story.total_lines):
        while True:
            statistics = running.statistics()
            story.see(statistics)
            display.progress(min(statistics.acked, story.total_lines), statistics.replayed, read_counts(counts, TOP))
            if statistics.drained:
                display.progress(story.total_lines, statistics.replayed, read_counts(counts, TOP))
                return
            if kill and not story.killed and words_counted(counts) >= middle:
                _kill(kill, statistics, story, display, clock)
            elif story.killed and story.replaced_after_s is None:
                _notice_replacement(statistics, story, display, clock)
            if statistics.acked != last:
                moved_at, last = clock.now(), statistics.acked
            elif clock.now() - moved_at > STANDSTILL_S:
                raise NotReached(f"nothing was acked for {STANDSTILL_S:.0f} s", "Look at the logs with --keep")
            display.pause(*([LOOK_S] if kill and not story.killed else []))


def _kill(what: str, statistics: Statistics, story: Story, display: Display, clock: Clock) -> None:
    from rainband.supervisor.embedded import kill_process

    hosts = [w for w in statistics.workers if what in ("random", *user_components(w))]
    if not hosts:
        return
    victim = random.SystemRandom().choice(hosts)
    with contextlib.suppress(ProcessLookupError):
        kill_process(victim.pid)
    story.killed, story.killed_at = victim.pid, clock.now()
    done = statistics.acked / max(1, story.total_lines)
    display.line("kill -9", f"worker pid {victim.pid} ({', '.join(user_components(victim))}) at {done:.0%}")


def _notice_replacement(statistics: Statistics, story: Story, display: Display, clock: Clock) -> None:
    pids = {worker.pid for worker in statistics.workers if worker.state == "RUNNING"}
    if story.killed not in pids and len(pids) >= WORKERS:
        story.replaced_after_s = round(clock.now() - story.killed_at, 1)
        display.line("replaced", f"all {WORKERS} workers run again after {story.replaced_after_s} s")


def _prove(story: Story, files: list[str], counts: Path, display: Display, as_json: bool) -> int:
    """Let the truth script compare, and tell the result. `files` empty: it finds the standard library by itself."""
    from rainband.demo import truth
    from rainband.supervisor.embedded import run_script

    assert truth.__file__ is not None
    result = json.loads(run_script(Path(truth.__file__), str(counts), *files))
    shares = story.shares()
    rate = result["words"] / max(story.seconds, 0.001)
    display.line("counted", f"{result['words']:,} words in {story.seconds:.1f} s, {rate:,.0f} words/s, every one acked")
    for share in shares:
        killed = ", killed" if share["killed"] else ""
        display.line(
            "worker", f"pid {share['pid']} did {share['share']:.1%} of the work ({share['components']}{killed})"
        )
    display.line(
        "truth",
        f"{Path(truth.__file__).name}, which imports nothing of rainband, counted {result['words']:,} words "
        f"({result['distinct']:,} distinct) in {result['lines']:,} lines of {result['files']:,} files",
    )
    again = story.sent_again(result["lines"])
    verdict = "equal to the last word" if result["equal"] else "NOT equal"
    if story.killed and not result["equal"]:
        verdict = f"{result['surplus']:,} words were counted again: {again:,} lines were sent again after the kill"
    display.line("proof", f"{verdict}; lost {result['lost']:,}")
    good = result["lost"] == 0 and (result["equal"] or bool(story.killed))
    if as_json:
        document = {key: result[key] for key in ("files", "lines", "words", "distinct")}
        document |= {"equal_to_truth": result["equal"], "workers": WORKERS, "seconds": round(story.seconds, 2)}
        document |= {"replayed": again, "lost": result["lost"], "surplus": result["surplus"]}
        document |= {"killed": story.killed or None, "replaced_after_s": story.replaced_after_s, "work": shares}
        answer({**document, "built": describe()})
    elif good:
        say(NEXT)
    return 0 if good else 1


NEXT = """
next:  rainband demo --kill-worker     the same with a kill -9 midway: nothing is lost
       rainband up                     a cluster that stays
       rainband submit FILE            run your own topology on it; rainband --help for the rest"""
