"""Each peer's packages in a virtual environment of its own below the cache directory, at an exact version."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.peers.corpus import cache_dir


def python_with(package: str, version: str) -> Path:
    """The interpreter of a venv that holds exactly this; made and filled on first use."""
    wanted = f"{package}=={version}"
    home = cache_dir("venvs") / f"{package}-{version}-py{sys.version_info[0]}{sys.version_info[1]}"
    python, stamp = home / "bin" / "python", home / "installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", wanted], check=True, stdout=sys.stderr)
    stamp.write_text(wanted)
    return python
