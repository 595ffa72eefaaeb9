"""The benchmarks are not installed: they are found in the tree, after whatever rainband is tested."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))
