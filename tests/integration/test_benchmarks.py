"""The benchmarks run, count right, and say all that a result must say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEYS = {
    "name", "workers", "acking", "tuples_per_s", "acked_per_s", "latency_ms", "cpu_s_per_million", "rss_mb_max",
    "lost", "duplicated", "compiled", "python", "versions",
}  # fmt: skip


def run(*arguments: str) -> dict[str, Any]:
    argv = [sys.executable, "-m", "benchmarks", *arguments, "--seconds", "1", "--warm-up", "0.5", "--json"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert set(found) >= KEYS
    assert (found["lost"], found["duplicated"]) == (0, 0)
    return found


@pytest.mark.parametrize("bench", ["word-count", "word-count-batch", "chain", "fan-out", "skew"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_throughput(bench: str, workers: str) -> None:
    found = run(bench, "--workers", workers)
    assert found["tuples_per_s"] > 0
    assert found["acked_per_s"] > 0
    assert set(found["latency_ms"]) == {"p50", "p99", "p999"}
    assert found["cpu_s_per_million"] > 0


def test_without_acking() -> None:
    found = run("chain", "--no-acking")
    assert found["acking"] is False
    assert found["acked_per_s"] is None
    assert found["latency_ms"] is None


def test_open_loop_latency() -> None:
    found = run("latency")
    assert [each["rate_per_s"] for each in found["rates"]][:2] == [1, 1000]
    assert found["rates"][1]["samples"] > 500


def test_uncompiled() -> None:
    assert run("chain", "--uncompiled")["compiled"] is False
