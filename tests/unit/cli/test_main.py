"""The door: every end becomes an exit code and one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rainband.cli import main
from rainband.cli.main import COMMANDS, run
from rainband.errors import ClusterUnavailable, InvalidTopology, NotAllowed, NotReached, Refused, TopologyNotFound

WORKERS = "Write a whole number from 1 to 10,000"


def test_bare_command_says_what_to_type_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines()[2:]] == ["demo", "up", "--help"]


def test_help_names_every_command_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    lines = capsys.readouterr().out.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in lines if line[2:3].strip()] == list(COMMANDS)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: rainband {command} ")
    assert ("--json" in out and "-v, --verbose" in out) or "Commands:" in out


def test_version_says_which_build_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert "compiled" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["sumbit", "x.py"], "error: no command 'sumbit'. Did you mean 'submit'?"),
        (["zzz"], "error: no command 'zzz'. See: rainband --help"),
        (["list", "--nimbs", "x"], "error: No such option '--nimbs'. Did you mean '--nimbus'?"),
        (["kill"], "error: Missing argument 'NAME'. See: rainband kill --help"),
        (["demo", "--kill-worker=nimbus"], "error: Invalid value for '--kill-worker'"),
        (["kill", "x", "-w", "-1"], "error: -w is a number of seconds from 0 up, not -1.0"),
        (["rebalance", "x", "-e", "count=0"], "error: -e 'count=0' is not COMPONENT=N with N from 1 to 100,000"),
        (["rebalance", "x", "-e", f"a={'9' * 23}"], f"error: -e 'a={'9' * 23}' is not COMPONENT=N with N from 1"),
        (["kill", "\udcff"], r"error: the argument '\udcff' is not UTF-8 text. Type it in UTF-8"),
        (["config", "-c", "app.x=" + "[" * 99999], "error: 'app.x' is nested too deeply. At most 32 levels"),
        (["config", "-c", "app=" + '{"a":' * 700 + "1" + "}" * 700], "error: "),
        (["config", "-c", "topology.workers=" + "9" * 400], "error: 'topology.workers' cannot be 9999"),
        (["rebalance", "x", "-n", "0"], f"error: 'topology.workers' cannot be 0 (-n). {WORKERS}"),
        (["rebalance", "x", "-n", "10001"], f"error: 'topology.workers' cannot be 10001 (-n). {WORKERS}"),
        (["rebalance", "x", "-n", "9" * 20], f"error: 'topology.workers' cannot be {'9' * 20} (-n). {WORKERS}"),
        (["config", "topology.worker"], "error: no setting 'topology.worker'. Did you mean 'topology.workers'?"),
        (["config", "-c", "topology.workers"], "error: -c 'topology.workers' is not KEY=VALUE"),
        (["config", "-c", "topology.workers=many"], "error: 'topology.workers' cannot be 'many'"),
        (["config", "--config", "/nowhere.toml"], "error: "),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(said)
    assert err.count("\n") == 1
    assert run([*argv, "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert set(json.loads(err)) == {"code", "message", "fix"}


def test_a_user_without_a_home_is_told_to_set_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAINBAND_STATE_DIR", "~nobody-of-that-name/state")
    for command in (["up"], ["nimbus", "--port", "0"], ["supervisor"], ["logs", "x"]):
        assert run(command) == 2
        assert capsys.readouterr().err.endswith(
            "error: ~nobody-of-that-name/state cannot be found: this user has no home directory. "
            "Set HOME, or write the whole path; state.dir (or --state) says where state lies\n"
        )


@pytest.mark.parametrize("command", [["up", "--port", "0"], ["nimbus", "--port", "0"], ["supervisor"]])
def test_a_state_directory_that_cannot_be_written_is_refused_alike(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "file"
    place.write_text("")
    assert run([*command, "--state", str(place / "state")]) == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: cannot write to the state directory {place / 'state'}")
    assert "not a directory. It must be a directory of yours, mode 0700; choose another with --state" in last


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("boom"), 1),
        (OSError(28, "No space left on device", "/x"), 1),
        (InvalidTopology(["a", "b"]), 2),
        (Refused("no"), 3),
        (TopologyNotFound("no"), 3),
        (ClusterUnavailable("no"), 4),
        (NotAllowed("no"), 5),
        (NotReached("no"), 6),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(main.rainband, "main", fail)
    assert run(["list"]) == code


def test_each_problem_of_a_topology_has_its_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise InvalidTopology(["first\nproblem", "second"], "Fix both")

    monkeypatch.setattr(main.rainband, "main", fail)
    assert run(["submit"]) == 2
    assert capsys.readouterr().err.splitlines() == ["error: first problem", "error: second", "error: Fix both"]


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from rainband.cli.main import run\n"
        "code = run(['--help'])\n"
        "heavy = {'zmq', 'rich', 'kazoo', 'psutil', 'msgspec', 'asyncio', 'sqlite3'} & set(sys.modules)\n"
        "print(code, sorted(heavy), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, *(["-P"] if sys.flags.safe_path else []), "-c", script],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.stderr.split() == ["0", "[]"]


CYCLE = """
from rainband import Bolt, Spout, TopologyBuilder

class Once(Spout):
    outputs = ("n",)
    def next_tuple(self):
        self.emit([0], message_id=0)
        self.finish()

class Loop(Bolt):
    outputs = ("n",)
    def execute(self, tup):
        if tup["n"] < 3:
            self.emit([tup["n"] + 1])

builder = TopologyBuilder("cycle")
builder.set_spout("once", Once())
builder.set_bolt("loop", Loop()).shuffle_grouping("once").shuffle_grouping("loop")
topology = builder.create_topology()
"""


def test_a_warning_is_printed_once(tmp_path: Path) -> None:
    path = tmp_path / "cyclic_case.py"
    path.write_text(CYCLE)
    argv = [sys.executable, "-m", "rainband", "local", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "cycle" in line] == [
        "warning: 'loop' -> 'loop' lies on a cycle: it takes no credit, so limit by yourself what goes round"
    ]
    done = subprocess.run([*argv, "--json"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)["warnings"]) == 1
