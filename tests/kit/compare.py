"""What a run of tests/integration/project/counted.py left in its directory, as judged by a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from kit.placed import project_module

COMPARE = Path(__file__).resolve().parents[1] / "integration" / "compare.py"
WRONGS = ("lost", "duplicated", "strange", "misplaced")
SPOUTS, RELAYS, SINKS = 2, 3, 2


def compare(directory: Path, kind: str, total: int, tasks: int = SINKS) -> dict[str, int]:
    """What the sinks' files say, read by a process that imports nothing of rainband."""
    copies = RELAYS if kind == "all" else 1
    numbers = [str(number) for number in (total, copies, tasks, project_module("counted").KEYS)]
    argv = [sys.executable, "-I", str(COMPARE), str(directory), kind, *numbers]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def read_told(directory: Path, kind: str) -> dict[str, int]:
    """How many acks and fails the spout's tasks were told, once they are closed."""
    told = [json.loads((directory / f"told-{kind}-{index}").read_text()) for index in range(SPOUTS)]
    return {word: sum(task[word] for task in told) for word in ("acked", "failed")}
