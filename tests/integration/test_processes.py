"""Processes started, recognised, adopted and ended; ports held and found; a worker's output kept in bounds."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rainband.errors import Refused
from rainband.supervisor import ports, processes
from rainband.supervisor.processes import Identity, Process

LOOPBACK = "127.0.0.1"
BLAME = ", sent from outside or by a kernel short of memory"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Process]]:
    """Processes a test started, ended after it."""
    made: list[Process] = []
    yield made
    for process in made:
        process.kill()
        process.reap()
        process.close()


def run(code: str, tmp_path: Path, started: list[Process]) -> Process:
    process = processes.start([sys.executable, "-c", code], cwd=tmp_path, log=tmp_path / "log", env=os.environ)
    started.append(process)
    return process


def wait_end(process: Process, timeout_s: float = 10.0) -> bool:
    return bool(select.select([process.fileno()], [], [], timeout_s)[0])


def wait_log(tmp_path: Path, process: Process) -> str:
    while not (text := (tmp_path / "log").read_text()).endswith("\n"):
        assert not wait_end(process, 0.01)
    return text.strip()


SLEEP = "import time; print('up', flush=True); time.sleep(60)"


@pytest.mark.parametrize(
    ("code", "cause", "from_outside"),
    [
        ("pass", "exit code 0", False),
        ("raise SystemExit(3)", "exit code 3", False),
        ("import os; os._exit(9)", "exit code 9", False),
        ("import os; os.abort()", "signal 6 (SIGABRT)", False),
        ("import os; os.kill(os.getpid(), 11)", "signal 11 (SIGSEGV)", False),
        ("import os; os.kill(os.getpid(), 9)", f"signal 9 (SIGKILL){BLAME}", True),
    ],
)
def test_an_end_is_told(code: str, cause: str, from_outside: bool, tmp_path: Path, started: list[Process]) -> None:
    process = run(code, tmp_path, started)
    assert wait_end(process)
    end = process.reap()
    assert (end.cause, end.from_outside) == (cause, from_outside)
    assert not process.alive()


def test_children_go_with_their_process(tmp_path: Path, started: list[Process]) -> None:
    family = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    process = run(family + "print(p.pid, flush=True); p.wait()", tmp_path, started)
    child = int(wait_log(tmp_path, process))
    assert psutil.pid_exists(child)
    os.kill(process.pid, signal.SIGKILL)
    assert wait_end(process)
    process.reap()
    psutil.wait_procs([psutil.Process(child)] if psutil.pid_exists(child) else [], timeout=5)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_identity_is_more_than_a_pid(tmp_path: Path, started: list[Process]) -> None:
    process = run(SLEEP, tmp_path, started)
    identity = process.identity
    assert processes.identify(process.pid) == identity
    imposters = [
        Identity(identity.pid, identity.started + 1, identity.boot),
        Identity(identity.pid, identity.started, "another boot"),
        Identity(2**22 + 1, identity.started, identity.boot),
    ]
    assert [processes.adopt(imposter) for imposter in imposters] == [None] * 3
    adopted = processes.adopt(identity)
    assert adopted is not None
    assert adopted.alive()
    adopted.kill()
    assert wait_end(adopted)
    end = adopted.reap()
    assert end.code is None
    assert end.from_outside
    adopted.close()


def test_the_dead_are_not_identified(tmp_path: Path, started: list[Process]) -> None:
    process = run("pass", tmp_path, started)
    assert wait_end(process)
    assert processes.identify(process.pid) is None
    assert processes.adopt(process.identity) is None
    assert processes.look(process.identity, 0) is None or not process.alive()


def test_group_ends_even_if_it_ignores_sigterm(tmp_path: Path) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP
    process = processes.start([sys.executable, "-c", stubborn], cwd=tmp_path, log=tmp_path / "log", env=os.environ)
    wait_log(tmp_path, process)
    processes.end_group([process], grace_s=0.1)
    assert processes.identify(process.identity.pid) is None


def test_environment_is_an_allow_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = {
        "PATH": "/bin", "HOME": "/root", "LC_ALL": "C", "LD_PRELOAD": "evil.so", "AWS_SECRET_ACCESS_KEY": "x",
        "RAINBAND_TOPOLOGY_WORKERS": "2", "RAINBAND_TOKEN": "secret", "PYTHONPATH": f"lib{os.pathsep}/abs",
        "PYTHONSTARTUP": "x.py", "RAINBAND_SECRET_KEY": "x",
    }  # fmt: skip
    kept = processes.environment(given, for_workers=False)
    assert set(kept) == {"PATH", "HOME", "LC_ALL", "RAINBAND_TOPOLOGY_WORKERS", "PYTHONPATH"}
    assert set(processes.environment(given)) == {*kept, "RAINBAND_SECRET_KEY"}
    assert kept["PYTHONPATH"].split(os.pathsep)[:2] == [str(tmp_path / "lib"), "/abs"]


def test_started_processes_import_this_very_rainband(tmp_path: Path) -> None:
    argv = processes.python_command("rainband.build")[:-2] + ["-c", "import rainband; print(rainband.__file__)"]
    done = subprocess.run(argv, cwd=tmp_path, env=processes.environment(), capture_output=True, text=True, check=True)
    import rainband

    assert Path(done.stdout.strip()) == Path(rainband.__file__ or "")


def test_held_ports_are_held() -> None:
    (port,) = ports.choose(1, LOOPBACK)
    held = ports.hold(LOOPBACK, port)
    assert held is not None
    assert ports.hold(LOOPBACK, port) is None
    assert ports.holder(port) == processes.identify(os.getpid())
    assert f"pid {os.getpid()}" in ports.describe_holder(port)
    held.close()
    again = ports.hold(LOOPBACK, port)
    assert again is not None
    again.close()
    assert ports.holder(port) is None


def test_a_connection_in_time_wait_does_not_block_a_port() -> None:
    (port,) = ports.choose(1, LOOPBACK)
    held = ports.hold(LOOPBACK, port)
    assert held is not None
    with socket.create_connection((LOOPBACK, port)):
        held.accept()[0].close()
    held.close()
    again = ports.hold(LOOPBACK, port)
    assert again is not None
    again.close()


def test_chosen_ports_are_free_and_different() -> None:
    chosen = ports.choose(20, LOOPBACK)
    assert len(set(chosen)) == 20
    assert list(chosen) == sorted(chosen)
    assert not set(ports.choose(5, LOOPBACK, frozenset(chosen))) & set(chosen)
    with pytest.raises(Refused, match="free ports"):
        ports.choose(100_000, LOOPBACK)


def test_output_is_bounded_and_kept(tmp_path: Path, started: list[Process]) -> None:
    code = """
import sys
from pathlib import Path
from rainband.worker.logfile import capture
log = capture(Path("log"), bytes_max=10_000)
for number in range(1000):
    print("line", number)
sys.stderr.write("an error\\n")
import os
os.write(1, b"from C\\n" * 2000)
log.check()
print("last \\udcff word")
os._exit(0)
"""
    process = processes.start(
        [sys.executable, "-c", code], cwd=tmp_path, log=tmp_path / "log", env=processes.environment()
    )
    started.append(process)
    assert wait_end(process)
    assert process.reap().cause == "exit code 0"
    assert (tmp_path / "log").read_text() == "last \\udcff word\n"
    old = (tmp_path / "log.1").read_text()
    assert old.endswith("from C\n")
    assert len(old) < 40_000


def test_a_full_disk_costs_lines_not_exceptions(tmp_path: Path, started: list[Process]) -> None:
    code = """
import os, sys
from pathlib import Path
from rainband.worker.logfile import capture
log = capture(Path("log"))
full = os.open("/dev/full", os.O_WRONLY)
keep = os.dup(1)
os.dup2(full, 1)
print("lost")
os.dup2(keep, 1)
print("dropped", log.dropped)
os._exit(0)
"""
    process = processes.start(
        [sys.executable, "-c", code], cwd=tmp_path, log=tmp_path / "log", env=processes.environment()
    )
    started.append(process)
    assert wait_end(process)
    process.reap()
    assert (tmp_path / "log").read_text() == "dropped 5\n"
