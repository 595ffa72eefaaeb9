"""Links that are slow, lose frames and let them overtake each other, with default leases: slow is not dead.

Frames pass a switch that the test plays (kit/cables.py), for not every kernel has netem.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kit.cables import Cables, Trouble, needs_tun
from kit.chaos import Arena, Case, now, wait
from kit.chaos_host import arena_on, needs_ip

pytestmark = [pytest.mark.faults, pytest.mark.slow, needs_ip, needs_tun]

SLOW_S = 20.0
RSS_MAX = 150 << 20


@pytest.fixture(scope="module")
def hosts() -> Iterator[Cables]:
    with Cables(2) as made:
        yield made


@pytest.fixture(scope="module")
def cluster(hosts: Cables, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with arena_on(hosts, tmp_path_factory.mktemp("slow-links"), {}) as made:
        yield made


def let_pass(seconds: float) -> None:
    until = now() + seconds
    wait(lambda: now() >= until, seconds + 5)


def test_f24_slow_links_that_lose_and_reorder(case: Case, hosts: Cables) -> None:
    """Half a second each way, one frame in twenty lost, 1 Mbit, and frames that overtake: the spout waits."""
    switch = hosts.switch
    before, placed = {w.pid for w in case.workers()}, case.assignment().placements
    at = case.fault()
    sunk, lost, overtaken = case.count("sunk-keyed"), switch.lost, switch.overtaken
    switch.troubles.update(dict.fromkeys((1, 2), Trouble()))
    try:
        rss = 0
        while now() < at + SLOW_S:
            let_pass(1.0)
            rss = max([rss, *(w.rss_bytes for w in case.workers())])
        flowed = case.count("sunk-keyed") - sunk
        assert switch.lost > lost
        assert switch.overtaken > overtaken
    finally:
        switch.troubles.clear()
    healed = now()
    case.wait_flowing(100)
    back_s = case.mended() - healed
    verdict = case.judge()
    s = case.statistics()
    print(f"{flowed} came through in {SLOW_S:g} s, rss {rss >> 20} MiB, {switch.lost - lost} frames lost, "
          f"{switch.overtaken - overtaken} overtaken; flowing {back_s:.1f} s after", verdict)  # fmt: skip
    assert flowed > 0
    assert rss <= RSS_MAX
    assert (verdict["again"], s.failed, s.timed_out, s.restarts) == (0, 0, 0, 0), verdict
    assert {w.pid for w in case.workers()} == before
    assert case.assignment().placements == placed
