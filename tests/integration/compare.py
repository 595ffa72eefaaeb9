"""Compares what the sinks wrote with what was sent. Imports nothing of rainband, only the standard library.

    python compare.py DIRECTORY KIND TOTAL COPIES TASKS KEYS      one JSON document on stdout

DIRECTORY holds `sunk-KIND-INDEX`, one number a line, of each of the TASKS tasks of the sink. Each of 0..TOTAL-1 must be
there COPIES times (`all`: in each file).

lost, duplicated   numbers that came too rarely and too often, each counted as often as it is wrong
strange            lines that are no number below TOTAL
misplaced          numbers that came to a task which the grouping does not allow
"""

from __future__ import annotations

import json
import sys
from array import array
from pathlib import Path


def count(path: Path, total: int) -> tuple[array[int], int]:
    """How often each number is in the file, and how many lines are no such number."""
    seen = array("I", bytes(4 * total))
    strange = 0
    for line in path.read_bytes().split() if path.exists() else []:
        if line.isdigit() and int(line) < total:
            seen[int(line)] += 1
        else:
            strange += 1
    return seen, strange


def misplaced(kind: str, files: list[array[int]], keys: int) -> int:
    """Numbers at tasks where the grouping may not send them."""
    wrong = 0
    if kind == "global":
        wrong = sum(sum(seen) for seen in files[1:])
    elif kind == "fields":
        homes: dict[int, int] = {}
        for index, seen in enumerate(files):
            wrong += sum(homes.setdefault(number % keys, index) != index for number, many in enumerate(seen) if many)
    elif kind in ("direct", "custom"):
        step = 2 if kind == "custom" else 1
        for index, seen in enumerate(files):
            wrong += sum(number // step % len(files) != index for number, many in enumerate(seen) if many)
    return wrong


def compare(directory: Path, kind: str, total: int, copies: int, tasks: int, keys: int) -> dict[str, int]:
    found = [count(directory / f"sunk-{kind}-{index}", total) for index in range(tasks)]
    files = [seen for seen, _ in found]
    judged = files if kind == "all" else [array("I", map(sum, zip(*files, strict=True)))]
    return {
        "sent": total,
        "arrived": sum(map(sum, files)),
        "lost": sum(copies - many for seen in judged for many in seen if many < copies),
        "duplicated": sum(many - copies for seen in judged for many in seen if many > copies),
        "strange": sum(strange for _, strange in found),
        "misplaced": misplaced(kind, files, keys),
    }


def main() -> None:
    directory, kind, *numbers = sys.argv[1:]
    total, copies, tasks, keys = map(int, numbers)
    json.dump(compare(Path(directory), kind, total, copies, tasks, keys), sys.stdout)


if __name__ == "__main__":
    main()
