"""Asserts which rainband is under test: the source tree, or the package installed from it.

RAINBAND_EXPECT is `pure` (files of this tree), `compiled` (installed, hot files compiled) or `built` (installed,
compiled or not). Without it anything goes.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import rainband.build

ROOT = Path(__file__).resolve().parent.parent


def pytest_report_header() -> str:
    return f"rainband {rainband.build.VERSION} from {Path(rainband.build.__file__).parent}: {rainband.build.describe()}"


def pytest_sessionstart(session: pytest.Session) -> None:
    expected = os.environ.get("RAINBAND_EXPECT", "")
    from_tree = Path(rainband.build.__file__).is_relative_to(ROOT / "rainband")
    compiled = rainband.build.compiled()
    wrong = {
        "": False,
        "pure": not from_tree or compiled,
        "built": from_tree,
        "compiled": from_tree or not compiled,
    }[expected]
    if wrong:
        pytest.exit(f"RAINBAND_EXPECT={expected}, but this is {pytest_report_header()}", returncode=2)
