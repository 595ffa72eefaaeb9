"""The pending window as a pure object: it finds the size that full speed needs, and stays below T/3."""

from __future__ import annotations

import random

from rainband.worker.window import START, Window


def run(
    window: Window, capacity: float, latency_s: float, seconds: float, now: float = 0.0, noise: float = 0.0
) -> tuple[float, float]:
    """A server of `capacity` trees/s and a fixed latency: rate = min(capacity, size / latency). Returns (rate, now).

    `noise`: by how much of itself the capacity differs, anew every 10 ms.
    """
    settled = float(max(window.measured_settled, window.round_settled))
    dice = random.Random(1)
    step = 0.001
    rate = 0.0
    factor = 1.0
    for number in range(int(seconds / step)):
        if number % 10 == 0:
            factor = 1.0 + dice.uniform(-noise, noise)
        rate = min(capacity * factor, window.size / latency_s)
        settled += rate * step
        now += step
        window.held_back(now, int(settled))
        window.measure(now, int(settled), window.size)
    return rate, now


def test_grows_until_more_brings_no_more() -> None:
    window = Window(1 << 20, 30.0, 0.0)
    rate, _ = run(window, capacity=100_000, latency_s=0.01, seconds=3)
    assert rate == 100_000
    assert 1000 <= window.size <= 4096


def test_shrinks_when_less_does_as_well() -> None:
    window = Window(1 << 20, 30.0, 0.0)
    _, now = run(window, capacity=100_000, latency_s=0.01, seconds=3)
    rate, now = run(window, capacity=10_000, latency_s=0.01, seconds=20, now=now)
    assert rate == 10_000
    assert 100 <= window.size <= 400
    rate, _ = run(window, capacity=100_000, latency_s=0.01, seconds=6, now=now)
    assert rate == 100_000


def test_noise_does_not_drive_it_up() -> None:
    window = Window(1 << 20, 30.0, 0.0)
    now = 0.0
    sizes = []
    for _ in range(60):
        _, now = run(window, capacity=100_000, latency_s=0.005, seconds=1, now=now, noise=0.3)
        sizes.append(window.size)
    sizes.sort()
    assert 256 <= sizes[30] <= 1024
    assert sizes[55] <= 4096


def test_never_holds_more_than_completes_in_a_third_of_the_timeout() -> None:
    window = Window(1 << 20, 30.0, 0.0)
    run(window, capacity=5, latency_s=0.01, seconds=60)
    assert 1 <= window.size <= 50


def test_the_ceiling_holds() -> None:
    window = Window(7, 30.0, 0.0)
    run(window, capacity=1e6, latency_s=0.01, seconds=2)
    assert window.size == 7


def test_starts_small() -> None:
    assert Window(1 << 20, 30.0, 0.0).size == START


def test_a_stalled_sink_leaves_room_for_one() -> None:
    window = Window(1000, 30.0, 0.0)
    for second in range(1, 100):
        window.measure(float(second), 0, 10)
    assert window.size == 1


def test_after_a_standstill_it_grows_again_at_once() -> None:
    window = Window(1 << 20, 30.0, 0.0)
    before, now = run(window, capacity=10_000, latency_s=0.02, seconds=3)
    settled = window.measured_settled
    for _ in range(100):
        now += 0.25
        window.measure(now, settled, window.size)
    assert window.size == 1
    after, _ = run(window, capacity=10_000, latency_s=0.02, seconds=1.5, now=now)
    assert after == before


def test_small_sizes_grow_without_proof() -> None:
    """One tree alone may be lucky and quick: that must not hold the others back."""
    window = Window(1 << 20, 30.0, 0.0)
    window.measure(0.25, 0, 64)
    assert window.size == 1
    now, settled = 0.25, 0
    for elapsed_s in (0.006, 0.5, 0.5, 0.5, 0.5, 0.5):
        now += elapsed_s
        settled += window.size
        window.measure(now, settled, window.size)
        window.held_back(now, settled)
    assert window.size >= 20


def test_idle_time_does_not_shrink_it() -> None:
    window = Window(1 << 20, 30.0, 0.0)
    _, now = run(window, capacity=100_000, latency_s=0.01, seconds=3)
    size = window.size
    for second in range(1, 100):
        window.measure(now + second, window.measured_settled, 0)
    assert window.size == size
