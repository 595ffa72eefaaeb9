"""Slow is not dead, and time in which nobody looked does not count."""

from __future__ import annotations

from rainband.supervisor.pulse import PATIENCE, Pulse, Sample

TIMEOUT_S = 30.0


def looks(samples: list[tuple[float, Sample]]) -> str:
    """The first verdict other than '' over the looks."""
    pulse = Pulse(TIMEOUT_S, 0.0)
    for now, sample in samples:
        verdict = pulse.look(sample, now)
        if verdict:
            return f"{now:g}: {verdict}"
    return ""


def test_a_worker_that_passes_is_alive() -> None:
    assert looks([(float(s), Sample(s, 0.0, False)) for s in range(1000)]) == ""


def test_a_worker_that_computes_for_an_hour_is_alive() -> None:
    assert looks([(float(s), Sample(1, float(s), False)) for s in range(3600)]) == ""


def test_a_stopped_worker_is_given_up_after_the_timeout() -> None:
    samples = [(float(s), Sample(min(s, 100), min(s, 100) / 10, s > 100)) for s in range(200)]
    assert looks(samples) == "130: stopped by a signal for 30 s"


def test_a_stop_shorter_than_the_timeout_is_forgiven() -> None:
    assert looks([(float(s), Sample(s if s % 25 == 0 else 0, 0.0, s % 25 != 0)) for s in range(500)]) == ""


def test_a_worker_that_only_waits_is_given_up_late() -> None:
    verdict = looks([(float(s), Sample(1, 0.5, False)) for s in range(400)])
    assert verdict.startswith(f"{TIMEOUT_S * PATIENCE:g}: neither progress nor CPU use")


def test_time_in_which_nobody_looked_does_not_count() -> None:
    stopped = [(float(s), Sample(1, 1.0, True)) for s in range(10)]
    later = [(1000.0 + s, Sample(1, 1.0, True)) for s in range(10)]
    assert looks(stopped + later) == ""


def test_a_standstill_is_told_once_each_time() -> None:
    pulse = Pulse(TIMEOUT_S, 0.0)
    told = []
    for second in range(200):
        passes = 1 if second < 100 else 2
        pulse.look(Sample(passes, float(second) if second < 100 else 100.0, False), float(second))
        told.append(pulse.standstill(float(second)))
    assert [(at, text) for at, text in enumerate(told) if text] == [
        (30, "in one call for 30 s, computing: nothing else in its worker runs"),
        (130, "in one call for 30 s, waiting: nothing else in its worker runs"),
    ]


def test_a_stopped_worker_stands_in_no_call() -> None:
    pulse = Pulse(TIMEOUT_S, 0.0)
    for second in range(100):
        pulse.look(Sample(1, 1.0, True), float(second))
        assert pulse.standstill(float(second)) == ""
