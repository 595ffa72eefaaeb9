"""Bad input, row by row: one clear line (what, where, how to fix it), the right exit code, and nothing changed."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rainband.cli.main import run
from rainband.config import Config
from rainband.messaging.rpc import RpcClient
from rainband.nimbus.service import Service
from rainband.records import Heartbeat

Capture = pytest.CaptureFixture[str]

GOOD = """
from rainband import Bolt, ManualBolt, Spout, TopologyBuilder

class Numbers(Spout):
    outputs = {"default": ("n",), "odd": ("n",)}
    def next_tuple(self):
        self.finish()

class Print(Bolt):
    outputs = ()
    def execute(self, tup):
        pass

def build(name="good", bolt=None, config=None, **declared):
    builder = TopologyBuilder(name, config=config)
    builder.set_spout("numbers", Numbers())
    builder.set_bolt("print", bolt or Print(), **declared).shuffle_grouping("numbers")
    return builder.create_topology()
"""

FIRST = GOOD.count("\n") + 1

# name of the row, the file (after GOOD), what the one line must say
FILES = [
    ("no topology in it", "", ["no", "topology", "bad_input_case.py"]),
    ("something else", "topology = 3", ["is no topology but 3", "create_topology()"]),
    ("a builder", "topology = TopologyBuilder('x')", ["is a TopologyBuilder", "create_topology()"]),
    ("import error", "import nowhere_to_be_found", [f"bad_input_case.py:{FIRST}", "nowhere_to_be_found"]),
    ("syntax error", "def topology(:", [f"bad_input_case.py:{FIRST}"]),
    (
        "error in a function",
        "def topology():\n    return 1 / 0",
        [f"bad_input_case.py:{FIRST + 1}", "ZeroDivisionError"],
    ),
    ("unpicklable attribute", "p = Print()\np.lock = (i for i in ())\ntopology = build(bolt=p)", ["lock", "generator"]),
    ("class, not instance", "topology = build(bolt=Print)", ["Print", "Print("]),
    ("parallelism 0", "topology = build(parallelism=0)", ["'print'", "parallelism", "0"]),
    ("parallelism -1", "topology = build(parallelism=-1)", ["'print'", "parallelism", "-1"]),
    ("parallelism 1.5", "topology = build(parallelism=1.5)", ["'print'", "parallelism", "1.5"]),
    ("parallelism '4'", "topology = build(parallelism='4')", ["'print'", "parallelism", "'4'"]),
    ("tasks 0", "topology = build(tasks=0)", ["'print'", "tasks", "0"]),
    ("unknown key", "topology = build(config={'topology.worker': 1})", ["topology.worker", "'topology.workers'"]),
    ("ill-typed value", "topology = build(config={'topology.workers': 'x'})", ["topology.workers", "'x'", "number"]),
    ("name ..", "topology = build(name='..')", ["name", "'..'"]),
    ("name /", "topology = build(name='a/b')", ["name", "'a/b'"]),
    ("name empty", "topology = build(name='')", ["name", "''"]),
    ("name newline", "topology = build(name='a\\nb')", ["name", "a\\nb"]),
    ("name of 300 characters", "topology = build(name='x' * 300)", ["name", "xxx..."]),
    ("no spout", "b = TopologyBuilder('x')\ntopology = b.create_topology()", ["no spout"]),
]
DECLARED = [
    ("duplicate id", "b.set_bolt('numbers', Print()).shuffle_grouping('numbers')", ["'numbers'", "twice"]),
    ("reserved id", "b.set_bolt('__acker', Print()).shuffle_grouping('numbers')", ["'__acker'", "'__'"]),
    ("malformed id", "b.set_bolt('a b', Print()).shuffle_grouping('numbers')", ["'a b'"]),
    ("unknown source", "b.set_bolt('p', Print()).shuffle_grouping('number')", ["'number'", "'numbers'"]),
    ("unknown stream", "b.set_bolt('p', Print()).shuffle_grouping('numbers', stream='od')", ["'od'", "'odd'"]),
    ("unknown field", "b.set_bolt('p', Print()).fields_grouping('numbers', ['m'])", ["'m'", "'n'"]),
    ("bare str", "b.set_bolt('p', Print()).fields_grouping('numbers', 'n')", ["'n'", "['n']"]),
]
ROWS = [
    *FILES,
    *(
        (
            name,
            f"b = TopologyBuilder('x')\nb.set_spout('numbers', Numbers())\n{line}\ntopology = b.create_topology()",
            said,
        )
        for name, line, said in DECLARED
    ),
]


EMITS = """
class Emits({base}):
    outputs = {{"default": ("a", "b"), "odd": ("n",)}}
    def {method}:
        {call}

b = TopologyBuilder("emits")
b.set_spout("numbers", {spout})
b.set_bolt("emits", {bolt}).shuffle_grouping("numbers")
topology = b.create_topology()
"""
FEW = """
class Few(Spout):
    outputs = ("n",)
    done = False
    def next_tuple(self):
        self.emit([1], message_id=1)
        self.finish()
"""
# name of the row, what a bolt or spout calls, what the one line must say, and the exit code of `rainband local`
CALLS = [
    ("too few values", "bolt", "self.emit([1])", ["EmitRefused", "a", "b"], 1),
    ("bare str", "bolt", "self.emit('ab')", ["EmitRefused", "['ab']"], 1),
    ("undeclared stream", "bolt", "self.emit([1], stream='od')", ["EmitRefused", "'od'", "'odd'"], 1),
    ("cannot travel", "bolt", "self.emit([1, lambda: 1])", ["ValueRefused", "function"], 1),
    ("no message id", "spout", "self.emit([1, 2])", ["message_id"], 6),
]


@pytest.mark.parametrize("row", CALLS, ids=[row[0] for row in CALLS])
def test_emits_that_are_refused(row: tuple[str, str, str, list[str], int], tmp_path: Path, capfd: Capture) -> None:
    _, kind, call, said, code = row
    bad = {"base": "Bolt", "method": "execute(self, tup)", "call": call, "spout": "Few()", "bolt": "Emits()"}
    if kind == "spout":
        bad |= {"base": "Spout", "method": "next_tuple(self)", "spout": "Emits()", "bolt": "Print()"}
    path = tmp_path / "bad_emit_case.py"
    path.write_text(GOOD + FEW + EMITS.format(**bad))
    assert run(["local", str(path), "--timeout", "0.5" if code == 6 else "20"]) == code
    err = capfd.readouterr().err
    line = next(line for line in err.splitlines() if line.startswith(("emits: ", "numbers: ")))
    for part in said:
        assert part in line


@pytest.fixture(scope="module")
def nimbus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Nimbus without supervisors."""
    state = tmp_path_factory.mktemp("state")
    service = Service(Config({"state.dir": str(state), "nimbus.port": 0}))
    thread = threading.Thread(target=service.serve)
    thread.start()
    yield service.address
    service.stop()
    thread.join()
    service.close()


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "good_case.py"
    path.write_text(GOOD + "topology = build()\nmany = build(name='many', tasks=2)\n")
    return str(path)


def names(nimbus: str, capsys: Capture) -> list[str]:
    capsys.readouterr()
    assert run(["list", "--json", "--nimbus", nimbus]) == 0
    return [topology["name"] for topology in json.loads(capsys.readouterr().out)["topologies"]]


def complaint(argv: list[str], code: int, capsys: Capture) -> str:
    """The one line that the command answers with, on stderr alone."""
    assert run(argv) == code, capsys.readouterr()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(("name", "text", "said"), ROWS, ids=[row[0] for row in ROWS])
@pytest.mark.parametrize("command", ["submit", "local"])
def test_files_that_cannot_run(
    command: str, name: str, text: str, said: list[str], tmp_path: Path, nimbus: str, capsys: Capture
) -> None:
    before = names(nimbus, capsys)
    path = tmp_path / "bad_input_case.py"
    path.write_text(GOOD + text + "\n")
    where = ["--nimbus", nimbus] if command == "submit" else []
    line = complaint([command, str(path), *where], 1 if name == "error in a function" else 2, capsys)
    for part in said:
        assert part in line
    assert names(nimbus, capsys) == before


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere.py", "no file nowhere.py"),
        (".", "is a directory"),
        ("nowhere.py:topo", "no file nowhere.py"),
        (":topology", "names no file"),
        ("setup.cfg", "is no .py file"),
    ],
)
def test_targets_that_are_no_files(target: str, said: str, nimbus: str, capsys: Capture) -> None:
    assert said in complaint(["submit", target, "--nimbus", nimbus], 2, capsys)


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["-c", "topology.worker=2"], 2, ["topology.worker", "Did you mean 'topology.workers'"]),
        (["-c", "topology.workers=many"], 2, ["topology.workers", "'many'"]),
        (["-n", "0"], 2, ["topology.workers", "0"]),
        (["--name", "../x"], 2, ["name", "../x"]),
        (["--config", "/nowhere/x.toml"], 2, ["/nowhere/x.toml"]),
        (["--nimbus", "127.0.0.1:1"], 4, ["127.0.0.1:1", "rainband up"]),
        (["--nimbus", "nonsense"], 2, ["nonsense", "HOST:PORT"]),
    ],
)
def test_flags_of_submit(flags: list[str], code: int, said: list[str], good: str, nimbus: str, capsys: Capture) -> None:
    line = complaint(["submit", good, *([] if "--nimbus" in flags else ["--nimbus", nimbus]), *flags], code, capsys)
    for part in said:
        assert part.lower() in line.lower()


@pytest.mark.parametrize(
    "argv",
    [
        ["kill", "nobody"],
        ["activate", "nobody"],
        ["deactivate", "nobody"],
        ["rebalance", "nobody", "-n", "2"],
        ["monitor", "nobody"],
        ["errors", "nobody"],
        ["stacks", "nobody"],
    ],
)
def test_unknown_topology(argv: list[str], nimbus: str, capsys: Capture) -> None:
    assert "'nobody'" in complaint([*argv, "--nimbus", nimbus], 3, capsys)


def test_too_few_slots_then_the_same_name_then_kill(good: str, nimbus: str, capsys: Capture) -> None:
    submit = ["submit", good, "--nimbus", nimbus, "--timeout", "0.1"]
    assert run(submit) == 6
    assert "WAITING: 1 slot" in capsys.readouterr().err
    assert run(submit) == 3
    assert "good is in use" in capsys.readouterr().err
    assert names(nimbus, capsys) == ["good"]
    assert run(["submit", f"{good}:many", "--nimbus", nimbus, "--timeout", "0.1", "--json"]) == 6
    out, err = capsys.readouterr()
    assert json.loads(out)["slots_missing"] == 1
    assert json.loads(err)["code"] == "not_reached"
    line = complaint(["rebalance", "many", "-e", "print=3", "--nimbus", nimbus], 3, capsys)
    assert "print" in line
    assert "2" in line
    for name in ("good", "many"):
        assert run(["kill", name, "-w", "0", "--yes", "--nimbus", nimbus]) == 0
    assert names(nimbus, capsys) == []


def test_nimbus_port_in_use(nimbus: str, tmp_path: Path, capsys: Capture) -> None:
    port = nimbus.rpartition(":")[2]
    assert f"port {port}" in complaint(["nimbus", "--port", port, "--state", str(tmp_path)], 3, capsys)


def test_up_on_a_port_in_use(nimbus: str, tmp_path: Path, capsys: Capture) -> None:
    port = nimbus.rpartition(":")[2]
    line = complaint(["up", "--port", port, "--state", str(tmp_path / "state")], 3, capsys)
    assert f"port {port}" in line
    assert not (tmp_path / "state").exists()


def test_up_on_a_state_in_use(tmp_path: Path, capsys: Capture) -> None:
    first = Service(Config({"state.dir": str(tmp_path), "nimbus.port": 0}))
    (tmp_path / "nimbus.log").write_text("what the first one said\n")
    try:
        assert "is locked by pid" in complaint(["up", "--port", "0", "--state", str(tmp_path)], 3, capsys)
        assert (tmp_path / "nimbus.log").read_text().startswith("what the first one said\n")
    finally:
        first.close()


def test_second_nimbus_on_the_same_state(tmp_path: Path, capsys: Capture) -> None:
    first = Service(Config({"state.dir": str(tmp_path), "nimbus.port": 0}))
    try:
        assert "pid" in complaint(["nimbus", "--port", "0", "--state", str(tmp_path)], 3, capsys)
    finally:
        first.close()


@pytest.mark.parametrize("command", [["nimbus", "--port", "0"], ["supervisor", "--slots", "1"], ["up", "--port", "0"]])
def test_state_directory_that_cannot_be(command: list[str], tmp_path: Path, capsys: Capture) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file")
    code = run([*command, "--state", str(taken / "state")])
    assert code in (2, 3)
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert str(taken) in err
    assert taken.read_text() == "a file"


def test_unreachable_nimbus_is_noticed_in_time(capsys: Capture) -> None:
    from rainband.clock import SystemClock

    clock = SystemClock()
    began = clock.now()
    assert "127.0.0.1:1" in complaint(["list", "--nimbus", "127.0.0.1:1"], 4, capsys)
    assert clock.now() - began < 5


def test_other_python_on_the_workers(good: str, tmp_path: Path, capsys: Capture) -> None:
    service = Service(Config({"state.dir": str(tmp_path / "state"), "nimbus.port": 0}))
    thread = threading.Thread(target=service.serve)
    thread.start()
    try:
        with contextlib.closing(RpcClient([service.address])) as old:
            old.call(Heartbeat("old", "127.0.0.1", 1, (6700,), python="3.9.1", packages={}))
        line = complaint(["submit", good, "--nimbus", service.address], 3, capsys)
        assert "3.9" in line
        assert names(service.address, capsys) == []
    finally:
        service.stop()
        thread.join()
        service.close()
