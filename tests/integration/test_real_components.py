"""What components are promised, in worker processes of a real cluster: timeouts, lanes, ticks, pauses, own modules."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from kit.compare import WRONGS, compare
from kit.placed import project_module
from rainband.local.cluster import LocalCluster

loaded = project_module("loaded")
TIMEOUT_S = 2.0
SPOUTS, EACH = 8, 16  # no more than a window that has just begun


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(processes=True, supervisors=2, slots=4) as made:
        yield made


def verdicts(directory: Path) -> dict[str, float]:
    """Seconds to the verdict by number; negative if it was an ack."""
    rows = [line.split() for line in (directory / "verdicts").read_text().splitlines()]
    assert len({number for number, _ in rows}) == len(rows)
    return {number: float(seconds) for number, seconds in rows}


def test_what_is_never_acked_times_out_between_t_and_a_tenth_more(cluster: LocalCluster, tmp_path: Path) -> None:
    total = SPOUTS * EACH
    config = {"topology.message.timeout.secs": TIMEOUT_S}
    topology = loaded.timed("timeouts", str(tmp_path), EACH, loaded.Keeps(), config, SPOUTS)
    running = cluster.submit(topology)
    end = running.wait_until(lambda s: s.failed >= total, 30)
    running.kill(wait_s=0)
    waited = verdicts(tmp_path)
    print(f"\n{len(waited)} timeouts of {TIMEOUT_S} s after {min(waited.values()):.3f}..{max(waited.values()):.3f} s")
    assert len(waited) == total
    assert min(waited.values()) >= TIMEOUT_S
    assert max(waited.values()) <= 1.1 * TIMEOUT_S
    assert (end.acked, end.failed, end.timed_out) == (0, total, total)


def test_async_and_blocking_bolts_and_ticks(cluster: LocalCluster, tmp_path: Path) -> None:
    running = cluster.submit(loaded.beside("beside", str(tmp_path), 300))
    end = running.wait_drained(30)
    running.kill(wait_s=0)
    widths = [int(width) for width in (tmp_path / "widths-awaits").read_text().split()]
    threads = (tmp_path / "threads-blocks").read_text().split()
    ticks = [float(at) for at in (tmp_path / "ticks").read_text().split()]
    gaps = [b - a for a, b in pairwise(ticks)]
    print(f"\nup to {max(widths)} calls at once, {len(set(threads))} threads, ticks {min(gaps):.3f}..{max(gaps):.3f} s")
    verdict = compare(tmp_path, "ticks", 300, tasks=1)
    assert not any(verdict[wrong] for wrong in WRONGS), verdict
    assert (end.acked, end.failed, end.errors) == (300, 0, 0)
    assert 1 < max(widths) <= loaded.Awaits.max_in_flight
    assert len(set(threads)) == 2
    assert len(ticks) >= 10
    assert sum(gaps) / len(gaps) == pytest.approx(0.2, rel=0.2)


def test_a_paused_topology_emits_nothing_and_goes_on_where_it_was(cluster: LocalCluster, tmp_path: Path) -> None:
    ticks = loaded.Ticks(str(tmp_path))
    config = {"topology.tick.tuple.freq.secs": 1}
    running = cluster.submit(loaded.timed("pausing", str(tmp_path), 300, ticks, config))
    running.wait_until(lambda s: s.acked >= 50, 30)
    running.deactivate()
    paused = running.wait_until(lambda s: s.pending == 0 and all(worker.paused for worker in s.workers), 10)
    cluster.pause(1.5)
    later = running.statistics()
    assert (later.emitted, later.drained) == (paused.emitted, False)
    running.activate()
    end = running.wait_drained(30)
    running.kill(wait_s=0)
    verdict = compare(tmp_path, "ticks", 300, tasks=1)
    assert not any(verdict[wrong] for wrong in WRONGS), verdict
    assert (end.acked, end.failed) == (300, 0)
    words = [line.split()[0] for line in (tmp_path / "activity").read_text().splitlines()]
    assert words[:3] == ["activate", "deactivate", "activate"]


def test_a_topology_brings_its_own_package_to_supervisors_elsewhere(cluster: LocalCluster, tmp_path: Path) -> None:
    """Written in a project of its own, submitted from a third directory; the supervisors know nothing of either."""
    project = tmp_path / "project"
    (project / "wordkit" / "deep").mkdir(parents=True)
    (project / "wordkit" / "__init__.py").write_text("from wordkit.deep.shout import loud\n")
    (project / "wordkit" / "deep" / "__init__.py").write_text("")
    (project / "wordkit" / "deep" / "shout.py").write_text("def loud(word):\n    return word.upper()\n")
    (project / "wordkit" / "suffix.txt").write_text("!")
    (project / "shouting.py").write_text(
        textwrap.dedent(
            f"""
            from pathlib import Path
            from rainband import Bolt, Spout, TopologyBuilder
            from wordkit import loud

            class Words(Spout):
                outputs = ("word",)
                def open(self, context):
                    self.words = ["a", "b"]
                def next_tuple(self):
                    if self.words:
                        self.emit([self.words.pop(0)], message_id=len(self.words))
                    else:
                        self.finish()

            class Shout(Bolt):
                def execute(self, tup):
                    import wordkit.deep.shout as late
                    suffix = (Path(late.__file__).parents[1] / "suffix.txt").read_text()
                    from_project = Path(late.__file__).is_relative_to({str(project)!r})
                    with open({str(tmp_path / "heard")!r}, "a") as file:
                        print(loud(tup["word"]) + suffix, from_project, file=file)

            builder = TopologyBuilder("shouting", config={{"topology.workers": 2}})
            builder.set_spout("words", Words())
            builder.set_bolt("shout", Shout()).shuffle_grouping("words")
            topology = builder.create_topology()
            """
        )
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert cluster._processes is not None
    address = cluster._processes.cluster.address
    command = [sys.executable, *(["-P"] if sys.flags.safe_path else []), "-m", "rainband", "submit"]
    given = [str(project / "shouting.py"), "--nimbus", address]
    done = subprocess.run([*command, *given], cwd=elsewhere, env=os.environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    running = cluster.topology("shouting")
    running.wait_drained(20)
    running.kill(wait_s=0)
    assert (tmp_path / "heard").read_text().splitlines() == ["A! False", "B! False"]
