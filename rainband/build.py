"""What was built: the version, the files on the hot path, and whether they run compiled.

Compiled or not, the behaviour is the same; only the speed differs. Nothing here imports the files it speaks of.
"""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

VERSION = "0.1.0"

HOT = (
    "rainband/topology/tuples.py",
    "rainband/acker/ledger.py",
    "rainband/groupings/hashing.py",
    "rainband/groupings/choosers.py",
    "rainband/messaging/columns.py",
    "rainband/messaging/frames.py",
    "rainband/messaging/link.py",
    "rainband/messaging/links.py",
    "rainband/worker/routes.py",
    "rainband/worker/emit.py",
    "rainband/worker/spouts.py",
    "rainband/worker/tasks.py",
    "rainband/worker/books.py",
    "rainband/worker/transfer.py",
)


def compiled_files() -> tuple[str, ...]:
    """Those of HOT that this very package imports as compiled modules."""
    root = Path(__file__).resolve().parent.parent
    return tuple([name for name in HOT if _has_binary((root / name).with_suffix(""))])


def compiled() -> bool:
    """Whether every hot file of this package is compiled."""
    return set(compiled_files()) == {name for name in HOT if _exists(name)} != set()


def describe() -> str:
    """One phrase for people: what runs, and what to do when it is the slow one."""
    if compiled():
        return "compiled"
    return "not compiled, runs slower (install a C compiler, then reinstall rainband)"


def _exists(name: str) -> bool:
    return (Path(__file__).resolve().parent.parent / name).exists()


def _has_binary(stem: Path) -> bool:
    return any(Path(f"{stem}{suffix}").exists() for suffix in EXTENSION_SUFFIXES)
