"""How long a tuple takes until its tree is acked, in an idle topology and at a fixed rate."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.generator import generating
from benchmarks.harness import Cluster, Wish
from benchmarks.results import Result, WrongCount
from benchmarks.throughput import into

RATES = (1.0, 1000.0)
FLOOD = 5_000_000.0
FLOOD_S = 5.0


def one_by_one(cluster: Cluster, wish: Wish) -> Result:
    """Closed loop: the next tuple of const -> id -> null is emitted when the one before is acked."""
    outcome = cluster.run("due.py", [], wish, function="one_by_one", config={"topology.max.spout.pending": 1})
    return into("null", "one-by-one", outcome, "source", wish)


def latency(cluster: Cluster, wish: Wish) -> Result:
    """Open loop at 1/s, 1,000/s and half of what it can take, from when each tuple was due."""
    top = at_rate(cluster, replace(wish, seconds=min(wish.seconds, FLOOD_S)), FLOOD)["tuples_per_s"]
    runs = []
    for rate in (*RATES, top / 2):
        found = at_rate(cluster, wish, rate)
        if found["tuples_per_s"] < 0.95 * rate - 1:
            raise WrongCount(f"{rate:.0f} tuples per second were due, {found['tuples_per_s']} came")
        samples = round(found["tuples_per_s"] * found["seconds"])
        runs.append({"rate_per_s": round(rate), "samples": samples, "latency_ms": found["latency_ms"]})
    return found | {"rate_per_s": round(rate), "top_rate_per_s": round(top), "rates": runs}


def at_rate(cluster: Cluster, wish: Wish, rate: float) -> Result:
    """The tuples of a generator in a third process through due -> id -> null."""
    address = str(cluster.directory / f"due-{cluster.rounds}")
    outcome = cluster.run("due.py", [address], wish, feed=generating(address, rate))
    return into("null", "latency", outcome, "source", wish)
