"""The truth about the demo, found without rainband: python truth.py DIRECTORY [FILE...]

Counts the words of every .py file of the standard library (or of the files given) in one plain loop, reads what the
topology committed to DIRECTORY/counts-*.db, and prints one JSON line. `lost` is the sum of what is missing, word by
word; `surplus` the sum of what was counted more than once.
"""

import json
import os
import sqlite3
import sys
import sysconfig
from collections import Counter


def library() -> list[str]:
    """Walks the standard library in its own way, so that a file the spout forgot is missed here."""
    found = []
    for folder, inner, names in os.walk(sysconfig.get_path("stdlib")):
        inner[:] = [name for name in inner if name not in ("site-packages", "dist-packages")]
        found += [os.path.join(folder, name) for name in names if name.endswith(".py")]
    return [path for path in found if os.path.isfile(path)]


def committed(directory: str) -> Counter[str]:
    """What the topology says."""
    counts: Counter[str] = Counter()
    for name in os.listdir(directory):
        if name.startswith("counts-") and name.endswith(".db"):
            database = sqlite3.connect(os.path.join(directory, name))
            counts.update(dict(database.execute("SELECT word, n FROM counts")))
            database.close()
    return counts


def main() -> None:
    """Count, compare, print."""
    files = sys.argv[2:] or library()
    truth: Counter[str] = Counter()
    lines = 0
    for path in files:
        with open(path, encoding="utf-8", errors="replace") as source:
            for line in source:
                lines += 1
                truth.update(line.split())
    counts = committed(sys.argv[1])
    words = truth.keys() | counts.keys()
    result = {
        "files": len(files),
        "lines": lines,
        "words": truth.total(),
        "distinct": len(truth),
        "equal": counts == truth,
        "lost": sum(max(0, truth[word] - counts[word]) for word in words),
        "surplus": sum(max(0, counts[word] - truth[word]) for word in words),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
