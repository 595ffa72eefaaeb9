"""Compiles the files on the hot path by mypyc when a C compiler is there; all else is in setup.cfg.

RAINBAND_COMPILE=0 leaves them as they are; RAINBAND_COMPILE=1 fails the build when they cannot be compiled.
"""

import os
import runpy
import sys
from pathlib import Path
from typing import Any

from setuptools import setup

ROOT = Path(__file__).resolve().parent
WISH = os.environ.get("RAINBAND_COMPILE", "")
MYPY = ["--config-file=", "--follow-imports=silent", "--ignore-missing-imports", "--python-version=3.11"]


def extensions() -> list[Any]:
    """The compiled modules; rainband works without any of them, slower."""
    hot = [name for name in runpy.run_path(str(ROOT / "rainband" / "build.py"))["HOT"] if (ROOT / name).exists()]
    if WISH == "0" or not hot or not {"bdist_wheel", "build", "build_ext", "editable_wheel"} & set(sys.argv):
        return []
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    from mypyc.build import mypycify

    try:
        built: list[Any] = mypycify([*MYPY, *hot], opt_level="3", debug_level="0", group_name="rainband")
    except SystemExit:
        if WISH == "1":
            raise
        print("rainband: the hot files could not be compiled; it works without, and runs slower", file=sys.stderr)
        return []
    for extension in built:
        extension.optional = WISH != "1"  # without a C compiler the build goes on
    return built


setup(ext_modules=extensions())
