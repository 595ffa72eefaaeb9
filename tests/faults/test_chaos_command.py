"""Commands of people against real processes: `rainband chaos kill-worker`, and what is refused of all others."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading

import pytest

from kit.chaos import SHORT, Case, wait
from rainband.supervisor import processes

pytestmark = pytest.mark.faults
CLUSTER = {"slots": 4, "settings": SHORT}


def rainband(case: Case, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-P", "-m", "rainband", *words, "--nimbus", case.arena.address]
    environment = processes.environment()
    return subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False, env=environment)


def test_kills_are_told_with_their_ledger(case: Case) -> None:
    case.fault(spout=True)
    done = rainband(case, "chaos", "kill-worker", case.name, "--times", "2", "--every", "1s", "--seed", "1", "--json")
    case.mended()
    assert done.returncode == 0, done.stderr
    stories = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(stories) == 2
    for story in stories:
        book = story["ledger"]
        assert story["new_pid"] != story["killed"]["pid"]
        assert 0 <= story["noticed_s"] <= story["running_s"] <= 30.0
        assert book["emitted"] == book["acked"] + book["in_flight"] + book["failed"]
        assert book["lost"] == 0
    case.faults.append(dict(case.faults[0]))  # two kills in one stretch of time
    case.judge()


def test_every_goes_on_until_it_is_interrupted(case: Case) -> None:
    """Six seconds: who lives for five and is killed is started again at once, however often."""
    case.fault(spout=True)
    argv = [sys.executable, "-P", "-m", "rainband", "chaos", "kill-worker", case.name, "--every", "6s", "--json"]
    argv += ["--nimbus", case.arena.address]
    environment = processes.environment()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it from birth
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    signal.signal(signal.SIGINT, before)
    with process:
        assert process.stdout is not None
        stories = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    case.mended()
    assert len({story["killed"]["pid"] for story in stories}) == 2
    case.faults.append(dict(case.faults[0]))  # two kills in one stretch of time
    case.judge()


def test_people_get_lines(case: Case) -> None:
    case.fault(spout=True)
    done = rainband(case, "chaos", "kill-worker", case.name, "--component", "relay")
    case.mended()
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "killed", "noticed", "running", "ledger", "replays",
    ]  # fmt: skip
    assert "lost 0" in done.stdout
    case.judge()


REFUSALS = [
    (["nobody"], 3, "no topology is named 'nobody'"),
    (["NAME", "--component", "rely"], 2, "no component 'rely'. Did you mean 'relay'?"),
    (["NAME", "--every", "soon"], 2, "'soon' is not a duration"),
    (["NAME", "--times", "0"], 2, "0 is not in the range"),
]


def test_refusals(case: Case) -> None:
    for words, code, said in REFUSALS:
        done = rainband(case, "chaos", "kill-worker", *(case.name if word == "NAME" else word for word in words))
        assert done.returncode == code, done.stderr
        assert said in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


NO_SUCH = [
    ["kill", "--yes"], ["rebalance"], ["activate"], ["deactivate"], ["monitor"], ["errors"], ["stacks"],
    ["chaos", "kill-worker"],
]  # fmt: skip


def test_unknown_topologies_are_refused_with_those_that_run(case: Case) -> None:
    for words in NO_SUCH:
        done = rainband(case, *words, "nobody")
        assert done.returncode == 3, (words, done.stderr)
        assert f"error: no topology is named 'nobody'. Running: {case.name}" in done.stderr, (words, done.stderr)
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_waits_and_states_that_cannot_be(case: Case) -> None:
    for words in (["kill", "--yes", "-w", "-1"], ["rebalance", "-w", "-1"], ["kill", "--yes", "-w", "soon"]):
        done = rainband(case, *words, case.name)
        assert done.returncode in (2, 3), (words, done.stderr)
        assert words[-1] in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    case.order("relay", "sleep", 6.0)
    asked = threading.Thread(target=rainband, args=(case, "rebalance", case.name, "--wait", "20"))
    asked.start()
    wait(lambda: case.statistics().status == "REBALANCING", 20.0, case.explain)
    done = rainband(case, "deactivate", case.name)
    asked.join(60)
    assert (done.returncode, "is being rebalanced; wait until that is done, or kill it" in done.stderr) == (3, True)
    assert case.statistics().status == "ACTIVE"
