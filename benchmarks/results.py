"""The one shape of a result: what `--json` prints and the report reads."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

import zmq

from rainband.build import VERSION, compiled

Result = dict[str, Any]

# Every result has these, null where they mean nothing for it.
KEYS = (
    "name", "workers", "acking", "tuples_per_s", "acked_per_s", "latency_ms", "cpu_s_per_million", "rss_mb_max",
    "lost", "duplicated", "compiled", "python", "versions",
)  # fmt: skip
PERCENTILES = (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))


class WrongCount(Exception):
    """What was counted is not what was sent; the rate is worth nothing."""


def result(name: str, **values: object) -> Result:
    """A result with all KEYS, and whatever else `values` holds."""
    filled: Result = dict.fromkeys(KEYS)
    filled |= {
        "name": name,
        "compiled": compiled(),
        "python": platform.python_version(),
        "versions": versions(),
    }
    return filled | values


def versions() -> dict[str, str]:
    """Of what decides the speed."""
    found = {"rainband": VERSION, "libzmq": zmq.zmq_version(), "kernel": platform.release()}
    return found | {name: metadata.version(name) for name in ("pyzmq", "msgspec")}


def percentiles(histogram: Mapping[int, int]) -> dict[str, float] | None:
    """p50, p99 and p999 in milliseconds of a histogram keyed by microseconds; None of an empty one."""
    total = sum(histogram.values())
    if not total:
        return None
    found: dict[str, float] = {}
    wanted = list(PERCENTILES)
    seen = 0
    for micros, count in sorted(histogram.items()):
        seen += count
        while wanted and seen >= wanted[0][1] * total:
            found[wanted.pop(0)[0]] = round(micros / 1000, 3)
    return found


def histogram(samples: Iterable[float]) -> dict[int, int]:
    """Seconds into microseconds and how often each came."""
    counts: dict[int, int] = {}
    for sample in samples:
        micros = round(sample * 1e6)
        counts[micros] = counts.get(micros, 0) + 1
    return counts
