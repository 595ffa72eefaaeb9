"""The cluster as its documents promise it: one command after another, one script after another, on real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

PYTHON = [sys.executable, *(["-P"] if sys.flags.safe_path else [])]
RAINBAND = [*PYTHON, "-m", "rainband"]
ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 60

HELPER = "def shout(word):\n    return word.upper()\n"

COUNTING = """
import time

from helper import shout
from rainband import Bolt, FailTuple, ReliableSpout, Spout, TopologyBuilder


class Words(ReliableSpout):
    outputs = ("word",)

    def __init__(self, count):
        self.count = count

    def open(self, context):
        self.at = 0

    def next_tuple(self):
        if self.count and self.at >= self.count:
            return self.finish()
        self.at += 1
        self.emit([f"w{self.at % 7}"], message_id=self.at)
        if not self.count:
            time.sleep(0.001)


class Shout(Bolt):
    outputs = ("word",)

    def execute(self, tup):
        self.emit([shout(tup["word"])])


class Print(Bolt):
    def execute(self, tup):
        print("printed", tup["word"])


class Untracked(Spout):
    outputs = ("word",)

    def next_tuple(self):
        self.emit(["x"], message_id=None)
        self.finish()


class Reports(Spout):
    outputs = ("word",)

    def next_tuple(self):
        self.emit(["x"], message_id=1)
        self.finish()


class OwnFail(Reports):
    def fail(self, message_id):
        pass


class NoDevice(Print):
    def prepare(self, context):
        raise OSError("no such device")


class Settings(Print):
    def prepare(self, context):
        for key in ("message.timeout.secs", "max.spout.pending", "debug", "workers", "spout.wait.ms"):
            print(key, context.config["topology." + key])
        print("app", dict(context.config["app"]))


def build(name, count, sink, config=None):
    builder = TopologyBuilder(name, config=config)
    builder.set_spout("words", Words(int(count)))
    builder.set_bolt("shout", Shout(), parallelism=4).shuffle_grouping("words")
    builder.set_bolt("sink", sink).fields_grouping("shout", ["word"])
    return builder.create_topology()


def topology(name="counting", count="100", workers="1"):
    return build(name, count, Print(), {"topology.workers": int(workers)})


def kinds():
    builder = TopologyBuilder("kinds")
    for spout in (Words(1), Untracked(), Reports(), OwnFail()):
        builder.set_spout(type(spout).__name__, spout)
    builder.set_bolt("print", Print()).shuffle_grouping("Words")
    return builder.create_topology()


def no_device():
    return build("no-device", 10, NoDevice())


LAYERS = {"topology.message.timeout.secs": 11, "topology.max.spout.pending": 11, "topology.debug": True}
layered = build("layered", 1, Settings(), {**LAYERS, "topology.workers": 3, "app": {"depth": 1}})
ready = build("ready", 100, Print())
number = 5
"""

SCRIPT = """
import sys

from counting import Words
from helper import shout
from rainband import Bolt, Client, LocalCluster, TopologyBuilder, TopologyNotFound


class Loud(Bolt):
    outputs = ("word",)

    def execute(self, tup):
        self.emit([shout(tup["word"])])


def build(name, count):
    builder = TopologyBuilder(name)
    builder.set_spout("words", Words(count))
    builder.set_bolt("loud", Loud(), parallelism=2).shuffle_grouping("words")
    return builder.create_topology()


def by_client(address):
    client = Client(address)
    running = client.submit(build("scripted", 500))
    assert running.wait_drained(timeout_s=30).acked == 500
    assert client.topology("scripted").statistics().acked == 500
    assert "scripted" in [summary.name for summary in client.topologies()]
    assert len(running.errors("loud")) == 0
    running.kill(wait_s=5)
    assert "scripted" not in [summary.name for summary in client.topologies()]
    try:
        client.topology("scripted").statistics()
    except TopologyNotFound as error:
        print(error)


def by_processes():
    with LocalCluster(processes=True) as cluster:
        running = cluster.submit(build("scripted", 500), config={"topology.workers": 2})
        running.wait_until(lambda s: s.acked >= 100, timeout_s=20)
        statistics = running.wait_drained(timeout_s=30)
        assert (statistics.acked, statistics.workers_running) == (500, 2)
        assert len({beat.pid for beat in statistics.workers}) == 2
        running.rebalance(workers=1, parallelism={"loud": 1})
        assert running.statistics().workers_running == 1
        running.deactivate()
        running.activate()
        running.kill(wait_s=0)
        rows = cluster.submit(build("rows", 0), sources={"words": [["a"]] * 20})
        assert rows.wait_drained(timeout_s=30).acked == 20


if __name__ == "__main__":
    by_client(sys.argv[1]) if sys.argv[1:] else by_processes()
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's project: a topology file, a script, and a package of their own beside them."""
    path = tmp_path_factory.mktemp("project")
    (path / "helper").mkdir()
    (path / "helper" / "__init__.py").write_text(HELPER)
    (path / "counting.py").write_text(COUNTING)
    (path / "script.py").write_text(SCRIPT)
    return path


class Typed:
    """Commands as typed in the project's parent directory, against one cluster."""

    def __init__(self, project: Path, state: Path) -> None:
        self.project = project
        self.state = state
        self.up = subprocess.Popen(
            [*RAINBAND, "up", "--supervisors", "2", "--slots", "2", "--port", "0", "--state", str(state), "--json"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.up.stdout is not None
        self.said: dict[str, Any] = json.loads(self.up.stdout.readline())
        self.nimbus: str = self.said["nimbus"]

    def run(self, *words: str, code: int = 0, cluster: bool = True, **environment: str) -> tuple[str, str]:
        """Type a command; what it wrote to stdout and stderr. `counting` stands for the path of that file."""
        argv = [word.replace("counting.py", str(self.project / "counting.py")) for word in words]
        if cluster:
            argv[1:1] = ["--nimbus", self.nimbus]
        done = subprocess.run(
            [*RAINBAND, *argv],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, (argv, done.returncode, done.stdout, done.stderr)
        return done.stdout, done.stderr

    def answer(self, *words: str, **more: Any) -> Any:
        """The one document that a command answers with --json."""
        return json.loads(self.run(words[0], "--json", *words[1:], **more)[0])

    def error(self, *words: str, code: int) -> dict[str, str]:
        """The error that a command says with --json on stderr."""
        error: dict[str, str] = json.loads(self.run(words[0], "--json", *words[1:], code=code)[1])
        assert set(error) == {"code", "message", "fix"}
        return error


@pytest.fixture(scope="module")
def typed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Typed]:
    typed = Typed(project, tmp_path_factory.mktemp("state"))
    family = psutil.Process(typed.up.pid)
    try:
        yield typed
        known = family.children(recursive=True)
        typed.up.send_signal(signal.SIGINT)
        assert typed.up.wait(20) == 130, "interrupted"
        _, alive = psutil.wait_procs(known, timeout=5)
        assert not alive, "nobody is left behind"
        assert any(typed.state.iterdir()), "the state is kept"
    finally:
        with contextlib.suppress(psutil.Error):
            for process in (*family.children(recursive=True), family):
                process.kill()
        typed.up.wait(10)
        assert typed.up.stdout is not None
        typed.up.stdout.close()


def test_a_topology_from_submit_to_kill(typed: Typed) -> None:
    document = typed.answer("submit", "counting.py", "--", "live", "0", "2")
    assert (document["name"], document["workers_running"], document["status"]) == ("live", 2, "ACTIVE")
    assert document["first_ack_s"] > 0
    assert document["spouts"] == {"words": "replays"}
    assert "topology.workers" in document["warnings"][0], "more executors than workers take turns"
    assert [row["name"] for row in typed.answer("list")["topologies"]] == ["live"]
    assert typed.error("submit", "counting.py", "--", "live", code=3)["code"] == "topology_exists"
    assert typed.answer("deactivate", "live")["done"] == "deactivated"
    assert typed.answer("activate", "live")["done"] == "activated"
    moved = typed.answer("rebalance", "live", "-n", "1", "-e", "shout=1", "-w", "30")
    assert moved["seconds"] < 15, "ends as soon as nothing is pending: the wait is an upper limit"
    refused = typed.error("rebalance", "live", "--workers", "1", "--parallelism", "shout=9", "--wait", "1", code=3)
    assert "4" in refused["message"], "says how many tasks there are"
    assert "shout" in typed.error("rebalance", "live", "-e", "shuot=1", code=3)["fix"]
    (line, *_) = typed.run("monitor", "live", "--json", "--timeout", "1")[0].splitlines()
    assert json.loads(line)["acked"] > 0
    typed.run("errors", "live")
    logged, _ = typed.run("logs", "live", "--state", str(typed.state), cluster=False)
    assert "printed W1" in logged
    killed = typed.answer("kill", "live", "-w", "30", "--yes")
    assert killed["seconds"] < 15, "ends as soon as nothing is pending"
    assert typed.answer("list")["topologies"] == []


def test_submit_says_what_each_spout_guarantees(typed: Typed) -> None:
    told, warned = typed.run("submit", "counting.py:kinds", "-v")
    assert "warning" not in warned
    for line in ("Words: replays", "Untracked: untracked", "Reports: reports only", "OwnFail: own fail()"):
        assert f"spout {line}" in told
    typed.run("kill", "kinds", "--wait", "0", "--yes")


def test_too_few_slots_is_waiting_and_says_what_is_missing(typed: Typed) -> None:
    missing = typed.error("submit", "counting.py", "--name", "wide", "-n", "5", "--timeout", "1", code=6)
    assert "WAITING" in missing["message"]
    assert "1 slot is missing" in missing["message"]
    (row,) = typed.answer("list")["topologies"]
    assert (row["name"], row["status"], row["slots_missing"]) == ("wide", "WAITING", 1)
    typed.run("kill", "wide", "-w", "0", "--yes")


def test_a_raise_in_prepare_is_told_by_submit_and_by_errors(typed: Typed) -> None:
    said = typed.error("submit", "counting.py:no_device", "--timeout", "2", code=6)["message"]
    assert "not every worker runs" in said
    assert "no such device" in said
    first = json.loads(typed.run("errors", "no-device", "sink", "--json")[0].splitlines()[0])
    assert (first["component"], first["error"]) == ("sink", "OSError: no such device")
    assert "counting.py" in first["traceback"]
    typed.run("kill", "no-device", "-w", "0", "--yes")


def test_a_script_of_the_users_own_submits_too(typed: Typed) -> None:
    script = [sys.executable, str(typed.project / "script.py"), typed.nimbus]
    done = subprocess.run(script, env=environment(), capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert (done.returncode, "scripted" in done.stdout) == (0, True), done.stderr


def test_a_local_cluster_of_processes(project: Path) -> None:
    script = [sys.executable, str(project / "script.py")]
    done = subprocess.run(script, env=environment(), capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stderr


def test_a_program_that_uses_every_public_name() -> None:
    script = [*PYTHON, str(Path(__file__).with_name("everything.py"))]
    done = subprocess.run(script, env=environment(), capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "gave up" in done.stdout


def environment() -> dict[str, str]:
    """Scripts are started outside the root: they need to find what is under test."""
    return {**os.environ} if sys.flags.safe_path else {**os.environ, "PYTHONPATH": str(ROOT)}


def test_flags_beat_the_environment_which_beats_the_file_which_beats_the_builder(typed: Typed, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(
        '"topology.message.timeout.secs" = 12\n"topology.max.spout.pending" = 12\n[topology]\nworkers = 2\n'
        'spout.wait.ms = 12\n[app]\ncolour = "blue"\n'
    )
    said, _ = typed.run(
        "local",
        "counting.py:layered",
        "--config",
        str(file),
        "-c",
        "topology.message.timeout.secs=14",
        "-n",
        "1",
        cluster=False,
        RAINBAND_TOPOLOGY_MESSAGE_TIMEOUT_SECS="13",
        RAINBAND_TOPOLOGY_MAX_SPOUT_PENDING="13",
    )
    for line in (
        "message.timeout.secs 14.0",
        "max.spout.pending 13",
        "debug True",
        "workers 1",
        "spout.wait.ms 12.0",
        "app {'depth': 1, 'colour': 'blue'}",
    ):
        assert line in said.splitlines(), said


def test_local_runs_a_file_by_name_and_arguments(typed: Typed) -> None:
    assert typed.answer("local", "counting.py", "--", "mine", "50", cluster=False)["acked"] == 50
    assert typed.answer("local", "counting.py:ready", cluster=False)["acked"] == 100


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["local", "counting.py:toplogy"], 2, "topology"),
        (["kill", "nobody", "--yes"], 3, "nobody"),
        (["list", "--nimbus", "127.0.0.1:1"], 4, "127.0.0.1:1"),
    ],
)
def test_exit_codes_and_one_clear_line(words: list[str], code: int, said: str, typed: Typed) -> None:
    _, error = typed.run(*words, code=code, cluster=words[0] == "kill")
    assert said in error
    assert len(error.strip().splitlines()) == 1
