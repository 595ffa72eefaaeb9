"""F57 in small: the soak that `make soak` runs for an hour, for a minute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rainband

pytestmark = [pytest.mark.faults, pytest.mark.slow]
TESTS = Path(__file__).resolve().parents[1]


def test_f57_a_minute_of_everything() -> None:
    path = [str(TESTS), str(Path(rainband.__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    argv = [sys.executable, "-P", "-m", "faults.soak", "--minutes", "1", "--rate", "300"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False, env=environment)
    assert done.returncode in (0, 1), done.stderr  # 1: a leak, of which a minute tells nothing
    found = json.loads(done.stdout)
    print(done.stderr)
    assert sum(found["faults"].values()) >= 4
    for name in ("attacked", "calm"):
        verdict = found[name]
        assert verdict["lost"] == verdict["unacked"] == verdict["false_acks"] == verdict["strange"] == 0, verdict
