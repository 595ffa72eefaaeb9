"""The commands as a newcomer types them, as processes of their own; none may leave another one behind."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

COMMAND = [sys.executable, *(["-P"] if sys.flags.safe_path else []), "-m", "rainband"]
ROOT = Path(__file__).resolve().parents[2]

HELPER = "def word(number):\n    return f'w{number % 10}'\n"
TOPOLOGY = """
import itertools

from words import word

from rainband import Bolt, Spout, TopologyBuilder

class Words(Spout):
    outputs = ("word",)
    def __init__(self, rows):
        self.rows = rows
    def open(self, context):
        self.numbers = iter(range(self.rows)) if self.rows else itertools.count()
    def next_tuple(self):
        number = next(self.numbers, None)
        if number is None:
            self.finish()
        else:
            self.emit([word(number)], message_id=number)

class Print(Bolt):
    outputs = ()
    def execute(self, tup):
        print(tup["word"])

def topology(name, rows):
    builder = TopologyBuilder(name)
    builder.set_spout("words", Words(int(rows)))
    builder.set_bolt("print", Print(), parallelism=2).shuffle_grouping("words")
    return builder.create_topology()
"""


class Up:
    """A cluster of `rainband up` and the commands that talk to it."""

    def __init__(self, state: Path, *more: str, cwd: Path = ROOT) -> None:
        self.state = state
        given = ["--supervisors", "2", "--slots", "2", "--port", "0", "--state", str(state), "--json", *more]
        self.process = subprocess.Popen(
            [*COMMAND, "up", *given], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd
        )
        assert self.process.stdout is not None
        self.about: dict[str, Any] = json.loads(self.process.stdout.readline() or "{}")
        assert self.about, self.process.communicate()

    def run(self, command: str, *argv: str) -> list[dict[str, Any]]:
        """The documents that a command answers with."""
        done = rainband(command, "--json", "--nimbus", self.about["nimbus"], *argv)
        assert done.returncode == 0, done
        return [json.loads(line) for line in done.stdout.splitlines()]

    def below(self) -> list[psutil.Process]:
        """Its daemons and their workers."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        assert len(children) >= 3
        return children

    def end(self, number: int) -> tuple[int, list[psutil.Process]]:
        """Signal it; its exit code, and whoever is left after a while."""
        below = self.below()
        self.process.send_signal(number)
        self.process.communicate(timeout=30)
        _, left = psutil.wait_procs(below, timeout=15)
        return self.process.returncode, left


def rainband(*argv: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *argv], capture_output=True, text=True, timeout=timeout_s, cwd=ROOT)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    cluster = Up(tmp_path / "state")
    yield cluster
    with contextlib.suppress(psutil.NoSuchProcess):
        below = psutil.Process(cluster.process.pid).children(recursive=True)
        cluster.process.kill()
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    cluster.process.communicate()


@pytest.fixture
def target(tmp_path: Path) -> str:
    """A topology that imports a module of its own, in a directory where no daemon runs and names are badly chosen."""
    (tmp_path / "project").mkdir()
    for name in sys.stdlib_module_names:
        (tmp_path / "project" / f"{name}.py").write_text("raise ImportError('this is not the standard library')\n")
    (tmp_path / "project" / "words.py").write_text(HELPER)
    path = tmp_path / "project" / "word_case.py"
    path.write_text(TOPOLOGY)
    return str(path)


def test_a_topology_from_submit_to_kill(up: Up, target: str) -> None:
    [submitted] = up.run("submit", target, "-n", "2", "--", "first", "500")
    assert submitted["workers_running"] == 2
    assert submitted["first_ack_s"] < 10
    [listed] = up.run("list")
    assert [(t["name"], t["status"], t["workers"]) for t in listed["topologies"]] == [("first", "ACTIVE", 2)]
    assert sum(len(s["used"]) for s in listed["cluster"]["supervisors"]) == 2
    assert up.run("monitor", "first", "--timeout", "3")[-1]["acked"] == 500
    assert up.run("errors", "first") == []
    [stacks] = up.run("stacks", "first")
    assert len(stacks["stacks"]) == 2
    up.run("deactivate", "first")
    assert up.run("list")[0]["topologies"][0]["status"] == "INACTIVE"
    up.run("activate", "first")
    [moved] = up.run("rebalance", "first", "-n", "1", "-e", "print=1")
    assert moved["workers"] == 1
    logs = rainband("logs", "first", "--state", str(up.state), "--json")
    assert json.loads(logs.stdout.splitlines()[0])["line"].startswith("w")
    up.run("kill", "first", "-w", "5")
    assert up.run("list")[0]["topologies"] == []


def test_interrupt_stops_everything_and_keeps_the_state(up: Up, target: str, tmp_path: Path) -> None:
    up.run("submit", target, "--name", "kept", "--", "x", "0")
    assert up.end(signal.SIGINT) == (130, [])
    again = Up(tmp_path / "state")
    try:
        [listed] = again.run("list")
        assert [t["name"] for t in listed["topologies"]] == ["kept"]
        assert again.run("monitor", "kept", "--timeout", "8")[-1]["acked"] > 0
    finally:
        assert again.end(signal.SIGTERM) == (130, [])


def test_keys_and_secrets_may_be_named_from_where_one_stands(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "secrets").mkdir(mode=0o700)
    assert rainband("keygen", str(tmp_path / "keys")).returncode == 0
    assert rainband("keygen", str(tmp_path / "others")).returncode == 0
    up = Up(tmp_path / "state", "-c", "keys.dir=keys", "-c", "supervisor.secrets.dir=secrets", cwd=tmp_path)
    try:
        asked = ["list", "--nimbus", up.about["nimbus"], "-c", "nimbus.client.timeout.secs=1"]
        assert rainband(*asked).returncode == 5
        for name, code in (("others", 5), ("keys", 0)):
            assert rainband(*asked, "-c", f"keys.dir={tmp_path / name}").returncode == code
        monkeypatch.setenv("RAINBAND_KEYS_DIR", str(tmp_path / "keys"))
        [submitted] = up.run("submit", target, "--timeout", "30", "--", "guarded", "100")
        assert submitted["workers_running"] == 1
    finally:
        assert up.end(signal.SIGTERM) == (130, [])


def test_even_a_kill_leaves_nobody_behind(up: Up, target: str) -> None:
    up.run("submit", target, "--", "orphans", "0")
    assert up.end(signal.SIGKILL) == (-9, [])


def test_a_second_one_on_the_same_state_is_refused_and_harms_nobody(up: Up, target: str) -> None:
    up.run("submit", target, "--", "alone", "0")
    before = {process.pid for process in up.below()}
    log = (up.state / "nimbus.log").read_bytes()
    second = rainband("up", "--supervisors", "2", "--port", "0", "--state", str(up.state))
    assert second.returncode == 3
    assert f"{up.state} is in use by pid {up.process.pid} on" in second.stderr
    assert second.stderr.count("\n") == 1
    assert {process.pid for process in up.below()} == before
    assert (up.state / "nimbus.log").read_bytes() == log
    assert up.run("list")[0]["topologies"][0]["workers_running"] == 1


def test_daemons_started_one_by_one_survive_an_attempt_on_their_state(up: Up, target: str) -> None:
    up.run("submit", target, "--", "alone", "0")
    before = {process.pid for process in up.below()}
    (up.state / "up.lock").unlink()  # as if each of them had been started by itself
    second = rainband("up", "--supervisors", "2", "--port", "0", "--state", str(up.state))
    assert second.returncode == 3
    assert {process.pid for process in up.below()} == before


def test_local_runs_until_drained_and_keeps_stdout_for_the_answer(target: str) -> None:
    done = rainband("local", target, "--json", "--", "here", "50")
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["acked"] == 50
    assert done.stderr.count("w") == 50


def test_local_can_be_interrupted(target: str) -> None:
    process = subprocess.Popen(
        [*COMMAND, "local", target, "--json", "--", "here", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stderr is not None
    for _ in range(1000):
        process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert json.loads(out)["drained"] is False


def test_doctor_finds_this_machine_fit(tmp_path: Path) -> None:
    done = rainband("doctor", "--json", "-c", f"state.dir={tmp_path}", "--nimbus", "127.0.0.1:1")
    findings = {finding["what"]: finding for finding in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0, findings
    assert {"python", "build", "disk", "port", "nimbus"} <= set(findings)
    assert findings["nimbus"]["fix"] == "start one: rainband up"


@pytest.mark.parametrize("kill", [[], ["--kill-worker=lines"], ["--kill-worker=split"], ["--kill-worker=count"]])
def test_demo_proves_itself(kill: list[str]) -> None:
    before = {process.pid for process in psutil.process_iter()}
    done = rainband("demo", "--json", "--files", "400", *kill, timeout_s=170)
    assert done.returncode == 0, done
    document = json.loads(done.stdout.splitlines()[-1])
    assert document["files"] == 400
    assert document["lost"] == 0
    assert document["workers"] == 3
    assert sum(work["share"] >= 0.01 for work in document["work"]) >= 3
    if kill:
        assert document["killed"] in {work["pid"] for work in document["work"]}
        assert (document["surplus"] == 0) == document["equal_to_truth"]
    else:
        assert document["equal_to_truth"] is True
        assert document["replayed"] == 0
    own = {work["pid"] for work in document["work"]}
    assert not own & ({process.pid for process in psutil.process_iter()} - before)
