"""docs/benchmarks.md and its charts, out of the results of `make bench` and `make bench-peers`.

The results themselves are kept beside the charts as own.json and peers.json, so that either part can be measured anew
without the other. Nothing is written on the page that was not measured.
"""

from __future__ import annotations

import datetime
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import pages
from benchmarks.catalogue import measure
from benchmarks.compare import Score, compete, contenders, pyflink
from benchmarks.results import Result, WrongCount, versions
from rainband.errors import RainbandError

DOCS = Path(__file__).resolve().parent.parent / "docs"
RESULTS = DOCS / "benchmarks"

# What `make bench` runs: a name for the page, the benchmark, and what differs from its own choice.
OWN: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("word-count, 1 worker", "word-count", {}),
    ("word-count, 2 workers", "word-count", {"workers": 2}),
    ("word-count, 1 worker, no acking", "word-count", {"acking": False}),
    ("word-count, 2 workers, no acking", "word-count", {"workers": 2, "acking": False}),
    ("word-count by execute_batch, 1 worker", "word-count-batch", {}),
    ("word-count by execute_batch, 2 workers", "word-count-batch", {"workers": 2}),
    ("chain, 1 worker", "chain", {}),
    ("chain, 2 workers", "chain", {"workers": 2}),
    ("fan-out, 1 worker", "fan-out", {}),
    ("fan-out, 2 workers", "fan-out", {"workers": 2}),
    ("fan-in, 1 worker", "fan-in", {}),
    ("fan-in, 2 workers", "fan-in", {"workers": 2}),
    ("skew, 1 worker", "skew", {}),
    ("skew, 2 workers", "skew", {"workers": 2}),
    ("one-by-one, 1 worker", "one-by-one", {}),
    ("one-by-one, 2 workers", "one-by-one", {"workers": 2}),
    ("latency, 1 worker", "latency", {}),
    ("latency, 2 workers", "latency", {"workers": 2}),
    ("size", "size", {}),
    ("columns", "columns", {}),
    ("pending", "pending", {}),
    ("tasks", "tasks", {}),
    ("workers", "workers", {}),
    ("idle", "idle", {}),
    ("trees", "trees", {}),
    ("overload", "overload", {}),
    ("start, 1 worker", "start", {}),
    ("start, 2 workers", "start", {"workers": 2}),
    ("test", "test", {}),
    ("cli", "cli", {}),
    ("scheduler", "scheduler", {}),
    ("nimbus", "nimbus", {}),
)


def all_of_ours(seconds: float | None, only: str) -> int:
    """Run what `only` is part of the name of, keep the results, write the page. 1 if any was wrong."""
    kept = load("own.json")
    results: dict[str, Result] = dict(kept.get("results", {}))
    runs: dict[str, Any] = dict(kept.get("runs", {}))
    run = {"command": command("bench", seconds, only), "machine": machine()}
    wrong = 0
    for title, name, settings in OWN:
        if only not in title:
            continue
        chosen = dict(settings) if seconds is None else {**settings, "seconds": seconds}
        try:
            results[title] = measure(name, **chosen)
            runs[title] = run
        except (WrongCount, TimeoutError, RainbandError) as error:
            wrong += 1
            results.pop(title, None)
            print(f"{title}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            continue
        print(f"{title}: {json.dumps(brief(results[title]))}", file=sys.stderr, flush=True)
    store("own.json", {"runs": {title: runs[title] for title in results}, "results": results})
    write_page()
    return 1 if wrong else 0


def all_peers(rounds: int, seconds: float | None, only: str, pending: int | None, with_pyflink: bool) -> int:
    """The comparison; keep the scores, write the page. 1 if anybody miscounted or failed in any round.

    A contest that is run at all is run anew: what is compared with each other is of one run on one machine.
    """
    everybody = [*contenders(), *([pyflink()] if with_pyflink else [])]
    chosen = [contender for contender in everybody if only in contender.key]
    length = 10.0 if seconds is None else seconds
    scores = compete(chosen, rounds, length, pending)
    before = load("peers.json")
    run = {
        "command": command("bench-peers", seconds, only, rounds, pending),
        "machine": machine(),
        "rounds": rounds,
        "seconds": length,
    }
    anew = {score.contest for score in scores}
    kept = [score for score in before.get("scores", []) if score["contest"] not in anew]
    runs = {**before.get("runs", {}), **dict.fromkeys(sorted(anew), run)}
    store("peers.json", {"runs": runs, "scores": [*map(asdict, scores), *kept]})
    write_page()
    return 1 if any(score.problems for score in scores) else 0


def brief(found: Result) -> Result:
    return {key: value for key, value in found.items() if key not in ("versions", "python", "lost", "duplicated")}


def command(
    target: str, seconds: float | None, only: str, rounds: int | None = None, pending: int | None = None
) -> str:
    words = ["make", target, *([f"ROUNDS={rounds}"] if rounds is not None else [])]
    given = ["all"] if target == "bench" else []
    given += [f"--seconds {seconds:g}"] if seconds is not None else []
    given += [f"--pending {pending}"] if pending is not None else []
    given += [f"--only '{only}'"] if only else []
    return " ".join(words) + (f" ARGS=\"{' '.join(given)}\"" if given not in ([], ["all"]) else "")


def machine() -> dict[str, str]:
    """Where and with what it was measured."""
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
    cores = sum(line.startswith("processor") for line in Path("/proc/cpuinfo").read_text().splitlines())
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1e6
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "cpu": f"{cores} × {cpu}",
        "memory": f"{memory:.0f} GB",
        "python": platform.python_version(),
        **versions(),
    }


def load(name: str) -> dict[str, Any]:
    path = RESULTS / name
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def store(name: str, value: object) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / name).write_text(json.dumps(value, indent=1) + "\n")


def write_page() -> None:
    """The page and the charts from what is kept."""
    own, peers = load("own.json"), load("peers.json")
    scores: Sequence[Score] = [Score(**score) for score in peers.get("scores", [])]
    for name, drawing in pages.charts(own.get("results", {}), scores).items():
        (RESULTS / name).write_text(drawing)
    (DOCS / "benchmarks.md").write_text(pages.page(own, peers, scores))
