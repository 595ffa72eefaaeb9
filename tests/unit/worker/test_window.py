"""The pending window as a pure object: it finds the size that full speed needs, and keeps queues short of timeouts."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import pytest

from rainband.worker.window import MEASURE_S, START, Window

TIMEOUT_S = 30.0


class Server:
    """A source and a first-come-first-served sink, in steps of `step_s`.

    `due(seconds)`: how many trees have fallen due at the source until then; without it there is always one more.
    `capacity`: trees a second; `latency(number)`: how long a tree takes at least; `batch`: a bolt that acks so many at
    a time. Trees time out as they do in the book of a spout, and a sink works on them all the same.
    """

    def __init__(
        self, window: Window, capacity: float = 10_000, latency: Callable[[int], float] = lambda number: 0.0,
        batch: int = 1, step_s: float = 0.05, seen: bool = True, timeout_s: float = TIMEOUT_S,
        due: Callable[[float], float] = lambda seconds: float("inf"),
    ) -> None:  # fmt: skip
        self.window = window
        self.due = due
        self.capacity = capacity
        self.latency = latency
        self.batch = batch
        self.step_s = step_s
        self.seen = seen  # the queue is in the spout's own worker
        self.timeout_s = timeout_s
        self.now = 0.0
        self.room = 0.0
        self.queue: deque[tuple[float, float]] = deque()  # started, ready
        self.held: list[float] = []
        self.served = self.acked = self.timed_out = self.emitted = 0
        self.complete_s = 0.0
        self.sizes: list[int] = []

    @property
    def pending(self) -> int:
        return self.emitted - self.acked - self.timed_out

    def run(self, seconds: float) -> float:
        """Acked trees per second."""
        before, until = self.acked, self.now + seconds
        while self.now < until - 1e-9:
            self.now += self.step_s
            self.step()
            self.sizes.append(self.window.size)
        return (self.acked - before) / seconds

    def step(self) -> None:
        while self.pending < self.window.size and self.emitted < self.due(self.now):
            self.emitted += 1
            self.queue.append((self.now, self.now + self.latency(self.emitted)))
        held_back = self.emitted < self.due(self.now)
        if not held_back:
            self.window.had_nothing(self.now, self.pending)
        self.room = min(self.room, 1.0) + self.capacity * self.step_s
        while self.queue and self.room >= 1.0 and self.queue[0][1] <= self.now:
            self.room -= 1.0
            self.held.append(self.queue.popleft()[0])
        if len(self.held) >= self.batch:
            for started in self.held:
                self.settle(started)
            self.held.clear()
        begun = [self.queue[0][0], *self.held] if self.queue else self.held
        if begun and min(begun) <= self.now - self.timeout_s:
            since = [started for started, _ in self.queue] + self.held
            self.timed_out += sum(started <= self.now - self.timeout_s < started + self.step_s for started in since)
        if held_back:
            self.window.held_back(self.now, self.acked)
        queued = self.seen and bool(self.queue)
        self.window.measure(self.now, self.acked, self.pending, self.acked, self.complete_s, self.timed_out, queued)

    def settle(self, started: float) -> None:
        if self.now - started < self.timeout_s:
            self.acked += 1
            self.complete_s += self.now - started


def run(
    window: Window, capacity: float, latency_s: float, seconds: float, now: float = 0.0,
    noise: Callable[[], float] = lambda: 0.0,
) -> tuple[float, float]:  # fmt: skip
    """A server as a fluid: rate = min(capacity, size / latency). Returns (rate, now).

    `noise()`: by how much of itself the capacity differs, anew every 10 ms.
    """
    settled = float(max(window.past[-1][1], window.round_settled))
    complete_s = window.complete_s
    step = 0.001
    rate = 0.0
    factor = 1.0
    for number in range(int(seconds / step)):
        if number % 10 == 0:
            factor = 1.0 + noise()
        rate = min(capacity * factor, window.size / latency_s)
        settled += rate * step
        complete_s += step * window.size
        now += step
        window.held_back(now, int(settled))
        window.measure(now, int(settled), window.size, int(settled), complete_s)
    return rate, now


def test_grows_until_more_brings_no_more() -> None:
    window = Window(1 << 20, TIMEOUT_S, 0.0)
    rate, _ = run(window, capacity=100_000, latency_s=0.01, seconds=2)
    assert rate == 100_000
    assert 1000 <= window.size <= 4096


def test_shrinks_when_less_does_as_well() -> None:
    window = Window(1 << 20, TIMEOUT_S, 0.0)
    _, now = run(window, capacity=100_000, latency_s=0.01, seconds=3)
    rate, now = run(window, capacity=10_000, latency_s=0.01, seconds=20, now=now)
    assert rate == 10_000
    assert 100 <= window.size <= 400
    rate, _ = run(window, capacity=100_000, latency_s=0.01, seconds=6, now=now)
    assert rate == 100_000


def test_what_falls_due_in_bursts_is_let_in_at_once() -> None:
    server = Server(
        Window(1 << 20, TIMEOUT_S, 0.0), 400_000, lambda number: 0.001, step_s=0.001,
        due=lambda seconds: 1_000 * seconds + 2_000 * int(2 * seconds),
    )  # fmt: skip
    server.run(10)
    assert 2048 <= server.window.size <= 4096


def test_a_source_that_now_and_then_has_nothing_and_is_behind_all_the_same_keeps_queues_short() -> None:
    """One call in so many brings nothing, as with a spout that filters; it is saturated."""
    window = Window(1 << 20, TIMEOUT_S, 0.0)
    now = 0.0
    for _ in range(40):
        _, now = run(window, capacity=100_000, latency_s=0.005, seconds=0.25, now=now)
        window.had_nothing(now, window.size)
    assert 256 <= window.size <= 1024


def test_one_that_is_never_reached_comes_down_to_what_is_pending_and_then_to_what_full_speed_needs() -> None:
    """Credit lets 1,500 trees be pending; 500 bring full speed."""
    window = Window(1 << 20, TIMEOUT_S, 0.0)
    window.keep(8192, 0.0)
    now = 0.0
    while window.size > 1500:
        now += 0.01
        window.gate_shut(now, 1400 + int(now * 1000) % 100)
    assert 1.0 <= now <= 1.1
    assert 1400 <= window.size < 1500
    run(window, capacity=100_000, latency_s=0.005, seconds=30, now=now)
    assert 500 <= window.kept_size <= 1024


def test_back_pressure_now_and_then_leaves_it_alone() -> None:
    window = Window(1 << 20, TIMEOUT_S, 0.0)
    window.keep(8192, 0.0)
    for number in range(1000):
        window.gate_shut(number / 100, 1500)
        if number % 50 == 0:
            window.had_nothing(number / 100, 10)
    assert window.size == 8192


@pytest.mark.parametrize("seed", range(8))
def test_noise_does_not_drive_it_up(seed: int) -> None:
    dice = random.Random(seed)
    window = Window(1 << 20, TIMEOUT_S, 0.0)
    now = 0.0
    sizes = []
    for _ in range(60):
        _, now = run(window, 100_000, latency_s=0.005, seconds=1, now=now, noise=lambda: dice.uniform(-0.3, 0.3))
        sizes.append(window.size)
    sizes.sort()
    assert 256 <= sizes[30] <= 1024
    assert sizes[55] <= 4096


@pytest.mark.parametrize("capacity", [0.4, 1, 5, 20])
def test_does_not_hold_more_than_completes_in_a_third_of_the_timeout(capacity: float) -> None:
    server = Server(Window(1 << 20, TIMEOUT_S, 0.0), capacity, lambda number: 0.01)
    server.run(400)  # what was there from the start and timed out is worked on all the same
    server.sizes.clear()
    lost = server.timed_out
    rate = server.run(120)
    assert 0.9 * capacity <= rate
    assert max(server.sizes) <= capacity * TIMEOUT_S / 3 + 1
    assert server.timed_out == lost


def test_nothing_times_out_at_a_slow_sink_however_short_the_timeout() -> None:
    """64 trees take a third of the timeout: there is no time to find out that twice as many are too many."""
    server = Server(Window(1 << 20, 2.0, 0.0), 100, lambda number: 0.01, step_s=0.01, timeout_s=2.0)
    assert server.run(30) >= 90
    assert server.timed_out == 0


def test_a_sink_that_becomes_slow_times_nothing_out_for_long() -> None:
    server = Server(Window(1 << 20, TIMEOUT_S, 0.0), 1000, lambda number: 0.01)
    server.run(30)
    server.capacity = 2
    server.run(600)
    assert server.window.size <= 2 * TIMEOUT_S / 3 + 1
    lost = server.timed_out
    server.run(600)
    assert server.timed_out == lost


@pytest.mark.parametrize("seconds", [1, 4, 5, 7, 8, 9, 10, 11, 12, 13, 15])
def test_trees_that_take_long_side_by_side_are_not_held_back(seconds: float) -> None:
    """64 of them complete together, in bursts: the time between two is no slow rate."""
    server = Server(Window(START, TIMEOUT_S, 0.0), latency=lambda number: seconds)
    server.run(120)
    assert server.run(600) >= 0.9 * START / seconds
    assert server.timed_out == 0


def test_trees_of_differing_length_are_not_held_back() -> None:
    dice = random.Random(3)
    server = Server(Window(256, TIMEOUT_S, 0.0), latency=lambda number: dice.uniform(5, 5.5))
    server.run(120)
    assert server.run(300) >= 0.8 * 256 / 5.25


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("batch", [65, 100, 300, 1000])
def test_a_bolt_may_hold_more_than_the_window_had_at_first(batch: int, seen: bool) -> None:
    server = Server(Window(1 << 20, TIMEOUT_S, 0.0), 2000, batch=batch, seen=seen)
    server.run(60)
    assert server.timed_out == 0
    assert server.run(60) >= 1000
    assert server.timed_out == 0


def test_silence_with_something_queued_proves_nothing() -> None:
    window = Window(1 << 20, TIMEOUT_S, 0.0)
    for second in range(1, 29):
        window.measure(float(second), 0, window.size, queued=True)
    assert window.size == START


def test_the_ceiling_holds() -> None:
    window = Window(7, TIMEOUT_S, 0.0)
    run(window, capacity=1e6, latency_s=0.01, seconds=2)
    assert window.size == 7
    for second in range(3, 60):
        window.measure(float(second), window.past[-1][1], 7)
    assert window.size == 7


def test_starts_small() -> None:
    assert Window(1 << 20, TIMEOUT_S, 0.0).size == START


def test_after_everything_timed_out_there_is_room_for_one() -> None:
    window = Window(1000, TIMEOUT_S, 0.0)
    for second in range(1, 31):
        window.measure(float(second), 0, 64, queued=True)
    window.measure(31.0, 0, 0, timed_out=64)
    assert window.size == 1


def test_after_a_standstill_it_goes_on_as_before() -> None:
    window = Window(1 << 20, TIMEOUT_S, 0.0)
    before, now = run(window, capacity=10_000, latency_s=0.02, seconds=3)
    settled, size = window.past[-1][1], window.size
    for _ in range(100):
        now += MEASURE_S
        window.measure(now, settled, window.size, settled, window.complete_s)
    assert window.size == size
    after, _ = run(window, capacity=10_000, latency_s=0.02, seconds=1.5, now=now)
    assert after == before


def test_after_timeouts_it_grows_again_at_once() -> None:
    window = Window(1 << 20, TIMEOUT_S, 0.0)
    before, now = run(window, capacity=10_000, latency_s=0.02, seconds=3)
    settled = window.past[-1][1]
    for _ in range(200):
        now += MEASURE_S
        window.measure(now, settled, window.size, settled, window.complete_s, queued=True)
    window.measure(now + 1, settled, window.size, settled, window.complete_s, 500)
    assert window.size == 1
    after, _ = run(window, capacity=10_000, latency_s=0.02, seconds=1.5, now=now + 1)
    assert after == before


def test_small_sizes_grow_without_proof() -> None:
    """One tree alone may be lucky and quick: that must not hold the others back."""
    window = Window(1 << 20, TIMEOUT_S, 0.0)
    window.keep(1, 0.0)
    now, settled = 0.25, 0
    for elapsed_s in (0.006, 0.5, 0.5, 0.5, 0.5, 0.5):
        now += elapsed_s
        settled += window.size
        window.measure(now, settled, window.size)
        window.held_back(now, settled)
    assert window.size >= 20


def test_idle_time_does_not_shrink_it() -> None:
    window = Window(1 << 20, TIMEOUT_S, 0.0)
    _, now = run(window, capacity=100_000, latency_s=0.01, seconds=3)
    size = window.size
    for second in range(1, 100):
        window.measure(now + second, window.past[-1][1], 0)
    assert window.size == size
