"""The text of every word count: each line of each .py file of this Python's standard library.

Real text with a real distribution of words, present wherever Python is. A line is what iterating over the
file gives, without its newline, and blank lines count; a word is what `str.split()` gives. Peers in other
processes and languages read the same lines from one file in the cache directory.
"""

from __future__ import annotations

import os
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CACHE = Path(os.environ.get("RAINBAND_BENCH_CACHE", Path(__file__).parents[2] / ".bench"))


@dataclass(frozen=True, slots=True)
class Corpus:
    """The lines, and what a correct count of them must find."""

    lines: tuple[str, ...]
    words: int
    distinct: int


def sources() -> list[Path]:
    """Every .py file of the standard library, without installed packages, in a stable order."""
    root = Path(sysconfig.get_path("stdlib"))
    apart = {"site-packages", "dist-packages", "__pycache__"}
    return sorted(path for path in root.rglob("*.py") if apart.isdisjoint(path.relative_to(root).parts))


@cache
def corpus() -> Corpus:
    """Read it once per process."""
    lines: list[str] = []
    for path in sources():
        with path.open(encoding="utf-8", errors="replace") as file:
            lines += [line.rstrip("\n") for line in file]
    words = 0
    distinct: set[str] = set()
    for line in lines:
        found = line.split()
        words += len(found)
        distinct.update(found)
    return Corpus(tuple(lines), words, len(distinct))


def cache_dir(*parts: str) -> Path:
    """A directory below the cache, made if needed; the cache ignores itself in git."""
    CACHE.mkdir(parents=True, exist_ok=True)
    ignore = CACHE / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    path = CACHE.joinpath(*parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


def lines_file() -> Path:
    """The corpus as one UTF-8 file for other processes, written anew each time; alone in its directory."""
    path = cache_dir("corpus") / "lines.txt"
    partial = path.with_suffix(f".{os.getpid()}")
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(line + "\n" for line in corpus().lines)
    partial.replace(path)
    return path
