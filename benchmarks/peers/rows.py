"""The one shape of a result, whoever was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


class WrongCount(Exception):
    """Raised by a peer whose totals do not add up; its rate is worth nothing. See its settings and logs."""


@dataclass(frozen=True, slots=True)
class Window:
    """What happened between two moments, after warm-up."""

    seconds: float
    reached: int
    """Tuples that reached the last component: words counted, or the chain's end."""
    acked: int | None
    """Of those, the ones whose tree was acked; None without acking."""
    cpu_s: float
    """User and system time of every process that moves or counts tuples."""
    others_cpu_s: float = 0.0
    """What everything else on the machine used; beside much of it a rate is not the peer's best."""
    latency_ms: Mapping[str, float] | None = None
    """Complete latency, p50, p99, p999; None where the engine cannot tell."""
    failed: int = 0
    extra: Mapping[str, object] = field(default_factory=dict)


def row(
    bench: str, peer: str, version: str, workers: int, window: Window, settings: Mapping[str, object]
) -> dict[str, object]:
    """The JSON object a peer prints. Rates are in tuples (words) per second, acked ones too."""
    done = window.reached if window.acked is None else window.acked
    return {
        "name": bench,
        "peer": peer,
        "version": version,
        "workers": workers,
        "acking": window.acked is not None,
        "tuples_per_s": round(window.reached / window.seconds),
        "acked_per_s": None if window.acked is None else round(window.acked / window.seconds),
        "latency_ms": None if window.latency_ms is None else dict(window.latency_ms),
        "cpu_s_per_million": round(window.cpu_s / done * 1e6, 3) if done else None,
        "cores_used": round(window.cpu_s / window.seconds, 2),
        "cores_used_by_others": round(window.others_cpu_s / window.seconds, 2),
        "seconds": round(window.seconds, 2),
        "failed": window.failed,
        "settings": dict(settings),
        **window.extra,
    }


def percentiles(histogram: Mapping[int, int]) -> dict[str, float] | None:
    """p50, p99 and p999 in milliseconds of a histogram keyed by microseconds; None of an empty one."""
    total = sum(histogram.values())
    if total == 0:
        return None
    wanted = [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)]
    found: dict[str, float] = {}
    seen = 0
    for microseconds, count in sorted(histogram.items()):
        seen += count
        while wanted and seen >= wanted[0][1] * total:
            found[wanted.pop(0)[0]] = round(microseconds / 1000, 3)
    return found
