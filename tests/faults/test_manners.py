"""User code with bad manners on real workers: poison, wrong acks, values that are too large or do not travel."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kit.chaos import PROJECT, SHORT, Arena, imported, wait
from rainband.records import ErrorRecord, Statistics

pytestmark = pytest.mark.faults
CLUSTER = {"slots": 10, "settings": SHORT}


class Outcome(NamedTuple):
    """What one run of faulty.py left behind."""

    directory: Path
    names: Any
    statistics: Statistics
    errors: tuple[ErrorRecord, ...]
    logs: str

    def lines(self, name: str) -> list[list[Any]]:
        path = self.directory / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def sunk(self) -> Counter[int]:
        return Counter(n for [n] in self.lines("sunk"))


@pytest.fixture(scope="module")
def outcome(cluster: Arena) -> Iterator[Outcome]:
    directory = cluster.directory / "case-faulty"
    directory.mkdir()
    with imported(PROJECT, "faulty") as module:
        topology = module.faulty("faulty", str(directory), {"topology.max.error.report.per.interval": 1000})
        running = cluster.client.submit(topology, project=PROJECT)
        running.wait_drained(60)
        (directory / "drained").touch()
        wait(lambda: (directory / "late").exists(), 5.0)
        wait(lambda: running.statistics().acked >= module.TOTAL, 5.0, lambda: str(running.statistics()))
        yield Outcome(directory, module, running.statistics(), running.errors(), cluster.worker_logs())
        running.kill(wait_s=0)


def test_f36_poison_ends_as_a_dead_letter_and_the_others_flow(outcome: Outcome) -> None:
    names, sunk = outcome.names, outcome.sunk()
    dead = {n: rest for n, *rest in outcome.lines("dead")}
    assert set(dead) == {names.POISON, names.FOREVER_QUIET, names.OVER, *names.ODD}
    *letter, reason = dead[names.POISON]
    assert letter == ["default", [names.POISON], 2]
    assert re.fullmatch(r"failed after 2 replays: 'tricky' task \d+: ValueError: poison", reason)
    assert set(range(names.TOTAL)) - set(sunk) == set(dead)
    poisoned = [error for error in outcome.errors if "ValueError: poison" in error.error]
    assert poisoned
    assert poisoned[0].component == "tricky"
    assert "execute" in poisoned[0].traceback
    assert f"n={names.POISON}" in poisoned[0].tuple
    assert not any("not today" in error.error for error in outcome.errors)
    assert outcome.statistics.restarts == 0
    assert outcome.statistics.dead_letters == len(dead)


def test_f39_wrong_acks_are_harmless(outcome: Outcome) -> None:
    names, sunk = outcome.names, outcome.sunk()
    for n in (names.TWICE, names.FOREIGN, names.FAIL_AFTER_ACK, names.UNANCHORED):
        assert sunk[n] == 1, n
    assert sunk[names.NEVER] == 1
    assert outcome.statistics.timed_out == 1
    second = sum(task.second_acks for worker in outcome.statistics.workers for task in worker.tasks)
    assert second == 3
    [[foreign]] = outcome.lines("foreign")
    assert foreign != "accepted"
    [[late]] = outcome.lines("late")
    assert late.startswith("EmitRefused")


def test_f39_nobody_else_was_replayed(outcome: Outcome) -> None:
    names = outcome.names
    excused = {names.ONCE, names.QUIET, names.NEVER, names.FINE}
    assert {n for n, times in outcome.sunk().items() if times > 1} <= excused
    assert outcome.statistics.replayed == 3 + 2 * outcome.statistics.dead_letters  # ONCE, QUIET, NEVER once each


def test_f51_large_values(outcome: Outcome) -> None:
    names = outcome.names
    assert sorted(outcome.lines("sizes")) == [
        [names.MEDIUM, names.MEBIBYTE],
        [names.LARGE, names.CAP_BYTES - 1024],
    ]
    told = [error.error for error in outcome.errors if str(names.CAP_BYTES) in error.error.replace(",", "")]
    assert told, [error.error for error in outcome.errors]
    sizes = [int(size) for text in told for size in re.findall(r"a value of (\d+) bytes is over", text)]
    assert sizes
    assert min(sizes) > names.CAP_BYTES
    assert outcome.statistics.counters.get("peers_lost", 0) == 0


def test_f52_values_that_do_not_travel(outcome: Outcome) -> None:
    names = outcome.names
    refused = dict(outcome.lines("refused"))
    assert set(refused) == {"too many", "too few", "text"}
    assert all(said.startswith("EmitRefused") for said in refused.values()), refused
    told = [error.error for error in outcome.errors if error.component == "tricky" and "ValueRefused" in error.error]
    for words in (("Odd",), ("builtin_function",), ("deep", "nest", "circle", "itself"), ("surrogate", "UTF-8")):
        assert any(word in text for text in told for word in words), (words, told)
    assert all("field 'value'" in text for text in told), told
    assert sorted(at for _, at in outcome.lines("fine")) == list(range(len(names.FINE_VALUES)))


def test_f46_no_acker_pending_of_one_and_too_few_slots(cluster: Arena) -> None:
    untracked = cluster.case("f46-untracked", shape="chain", workers=1, config={"topology.acker.executors": 0})
    strict = cluster.case("f46-strict", shape="chain", workers=2, config={"topology.max.spout.pending": 1})
    full = cluster.case("f46-too-many", shape="chain", workers=3, wait_running=False)
    s = full.statistics()
    assert (str(s.status), s.workers_wanted, s.workers_running, s.slots_missing > 0) == ("WAITING", 3, 0, True)
    untracked.wait_flowing(100)
    strict.wait_flowing(100)
    assert strict.statistics().pending <= 1
    assert untracked.judge()["again"] == 0
    assert strict.judge()["again"] == 0
    for case in (untracked, strict):
        case.kill()
    full.running.wait_running(20)
    full.kill()
