"""The same measurement on a copy of this rainband without its compiled modules, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import rainband
from benchmarks.results import Result, WrongCount


def measure_uncompiled(arguments: Sequence[str]) -> Result:
    """The result of `python -m benchmarks ARGUMENTS`. Raises WrongCount when it failed."""
    package = Path(rainband.__file__).parent
    with tempfile.TemporaryDirectory(prefix="rainband-uncompiled-") as directory:
        shutil.copytree(package, Path(directory, "rainband"), ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        paths = os.pathsep.join([directory, *(path for path in sys.path if path)])
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", *arguments, "--json"],
            cwd=Path(__file__).resolve().parent.parent,
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            check=False,
        )
    if done.returncode:
        raise WrongCount(f"exit code {done.returncode}")
    found: Result = json.loads(done.stdout)
    if found["compiled"]:
        raise WrongCount("it was compiled after all")
    return found
