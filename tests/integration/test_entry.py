"""The process of the command line: how it begins and how it ends, whatever its surroundings are."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, *(["-P"] if sys.flags.safe_path else []), "-m", "rainband"]
ROOT = Path(__file__).resolve().parents[2]

THREADED = """
import atexit
import threading

from rainband import Spout, TopologyBuilder

threading.Thread(target=threading.Event().wait).start()
atexit.register(print, "at exit", flush=False)

class Nothing(Spout):
    outputs = ("n",)
    def next_tuple(self):
        self.finish()

builder = TopologyBuilder("threaded")
builder.set_spout("nothing", Nothing())
topology = builder.create_topology()
"""


def test_a_thread_of_the_users_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    file = tmp_path / "threaded.py"
    file.write_text(THREADED)
    done = subprocess.run(
        [*COMMAND, "local", str(file)], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "drained after" in done.stdout
    assert done.stdout.endswith("at exit\n")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("rainband config | true", 0),
        ("rainband --help | true", 0),
        ("rainband config >&-", 0),
        ("rainband config <&- >&- 2>&-", 0),
        ("rainband config >/dev/full", 1),
        ("rainband config nope 2>&-", 2),
        ("rainband config nope 2>/dev/full", 2),
        ("rainband config nope -v 2>/dev/full", 2),
        ("rainband kill x --nimbus 127.0.0.1:1 2>/dev/full", 4),
    ],
)
def test_pipes_that_nobody_reads_and_streams_that_are_closed(line: str, code: int) -> None:
    """A pipe is read by nobody once its other end has gone: `true` reads nothing."""
    script = f'set -o pipefail; rainband() {{ sleep 0.2; {shlex.join(COMMAND)} "$@"; }}; {line}'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr == ("error: No space left on device\n" if line.endswith(">/dev/full") and code == 1 else "")


def test_an_interrupt_while_all_is_still_being_imported_has_no_traceback() -> None:
    script = f"""
import builtins, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it
def interrupted(name, *rest, real=builtins.__import__):
    if name == "click":
        os.kill(os.getpid(), signal.SIGINT)
    return real(name, *rest)
builtins.__import__ = interrupted
sys.path.insert(0, {str(ROOT)!r})
from rainband.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
