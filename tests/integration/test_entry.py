"""The process of the command line: how it begins and how it ends, whatever its surroundings are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
