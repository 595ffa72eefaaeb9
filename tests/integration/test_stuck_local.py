"""`rainband local` with user code that never returns: Ctrl-C, SIGTERM and --timeout end it, and name it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, *(["-P"] if sys.flags.safe_path else []), "-m", "rainband"]
ROOT = Path(__file__).resolve().parents[2]
PATIENT_S = 30

TOPOLOGY = """
import sys
import time

from rainband import Bolt, Spout, TopologyBuilder

def told():
    print("now", file=sys.stderr, flush=True)

class One(Spout):
    outputs = ("n",)
    def open(self, context):
        self.sent = False
    def next_tuple(self):
        if not self.sent:
            self.sent = True
            self.emit([1], message_id=1)

class Sleeps(Bolt):
    outputs = ()
    def execute(self, tup):
        told()
        time.sleep(1000)

class Spins(Bolt):
    outputs = ()
    def execute(self, tup):
        told()
        while True:
            pass

class Blocks(Sleeps):
    blocking = True

class Cleans(Bolt):
    outputs = ()
    def execute(self, tup):
        told()
    def cleanup(self):
        time.sleep(1000)

def topology(bolt):
    builder = TopologyBuilder("stuck")
    builder.set_spout("one", One())
    builder.set_bolt("slow", globals()[bolt]()).shuffle_grouping("one")
    return builder.create_topology()
"""


@pytest.mark.parametrize(
    ("bolt", "end", "code", "call"),
    [
        ("Sleeps", signal.SIGINT, 130, "execute"),
        ("Spins", signal.SIGTERM, 130, "execute"),
        ("Cleans", signal.SIGINT, 130, "cleanup"),
        ("Blocks", signal.SIGINT, 130, "execute"),
        ("Spins", None, 6, "execute"),
        ("Cleans", None, 6, "cleanup"),
    ],
)
def test_it_ends_and_says_which_call_did_not(
    bolt: str, end: signal.Signals | None, code: int, call: str, tmp_path: Path
) -> None:
    file = tmp_path / "stuck.py"
    file.write_text(TOPOLOGY)
    wait = ["--timeout", "1"] if end is None else []
    with subprocess.Popen(
        [*COMMAND, "local", str(file), "--json", *wait, "--", bolt],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == "now\n"
            if end is not None:
                process.send_signal(end)
            _, err = process.communicate(timeout=PATIENT_S)
        finally:
            process.kill()
    assert process.returncode == code, err
    why = "the timeout of 1 s" if end is None else "the interrupt"
    said = json.loads(err)
    assert said["message"].startswith(f"'slow' task 2 has not returned from {call}(), stuck.py:")
    assert said["message"].endswith(f", 3 s after {why}")
