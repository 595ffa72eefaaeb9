"""The pending window as a pure object: it finds the size that full speed needs, and stays below T/3."""

from __future__ import annotations

from rainband.worker.window import START, Window


def run(window: Window, capacity: float, latency_s: float, seconds: float, now: float = 0.0) -> tuple[float, float]:
    """A server of `capacity` trees/s and a fixed latency: rate = min(capacity, size / latency). Returns (rate, now)."""
    settled = 0.0
    step = 0.001
    rate = 0.0
    for _ in range(int(seconds / step)):
        rate = min(capacity, window.size / latency_s)
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
    window.round_settled = window.measured_settled = 0  # `run` counts from 0
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
