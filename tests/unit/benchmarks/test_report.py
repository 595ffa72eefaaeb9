"""What the page of the benchmarks says of given results: medians, verdicts, and nothing that was not measured."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks.charts import Bar, bar_chart, short
from benchmarks.compare import CHAIN, RAINBAND, STORM, WORD_COUNT, Score, contenders, is_storm
from benchmarks.goals import Goal, goals
from benchmarks.pages import charts, page
from benchmarks.report import OWN
from benchmarks.results import KEYS, histogram, percentiles, result
from benchmarks.throughput import words_of

RUN = {"command": "make bench", "machine": {"cpu": "2"}, "seconds": 5}
PEERS = {"runs": {WORD_COUNT: RUN, CHAIN: RUN}}


def score(contest: str, engine: str, title: str, rates: list[int], cpu: float = 1.0, problem: str = "") -> Score:
    problems = [problem] if problem else []
    return Score(contest, engine, title, rates, [cpu] * len(rates), [1.0], [2.0], [1.0], [0.0], problems, {})


def verdict(found: list[Goal], text: str) -> tuple[float | None, str]:
    goal = next(goal for goal in found if goal.text.startswith(text))
    return goal.seen, goal.verdict


def test_a_score_is_the_median_of_its_rounds() -> None:
    assert score(WORD_COUNT, RAINBAND, "1 worker", [3, 1, 2]).rate == 2
    assert score(WORD_COUNT, RAINBAND, "1 worker", []).rate == 0


def test_goals_compare_with_the_best_of_storms_entries() -> None:
    scores = [
        score(WORD_COUNT, RAINBAND, "1 worker", [100], cpu=0.5),
        score(WORD_COUNT, RAINBAND, "2 workers", [150], cpu=0.8),
        score(WORD_COUNT, RAINBAND, "uncompiled, 1 worker", [10]),
        score(WORD_COUNT, STORM, "tuned, 1 worker", [120], cpu=1.0),
        score(WORD_COUNT, STORM, "best, 1 worker", [200], cpu=0.6),
        score(WORD_COUNT, STORM, "defaults, 2 workers", [50], cpu=4.0),
    ]
    found = goals({}, scores)
    assert verdict(found, "word count, acked, best number") == (1.25, "reached")
    assert verdict(found, "word count, acked, 1 worker, per CPU") == (2.0, "reached, and what was aimed for")
    assert verdict(found, "word count, acked, 2 workers, of Storm") == (3.0, "reached")
    assert verdict(found, "word count, acked, CPU-s/M") == (1.6, "**behind**")
    assert verdict(found, "uncompiled word count")[1] == "**behind**"
    assert verdict(found, "chain, acked, 1 worker") == (None, "not measured")
    assert found[0].few_cores == 0.75
    assert "| 1.25 × | reached | 0.75 × |" in page({}, PEERS, scores)


def test_goals_compare_within_rounds() -> None:
    """The machine was half as fast in the first round, the only one of the uncompiled."""
    scores = [
        score(WORD_COUNT, RAINBAND, "1 worker", [100, 200, 200]),
        score(WORD_COUNT, RAINBAND, "uncompiled, 1 worker", [30]),
        score(WORD_COUNT, STORM, "tuned, 1 worker", [60, 120, 120]),
    ]
    assert verdict(goals({}, scores), "uncompiled word count")[0] == 0.5


def test_the_page_names_what_is_behind_and_what_failed() -> None:
    scores = [
        score(CHAIN, RAINBAND, "1 worker", [100]),
        score(CHAIN, STORM, "defaults, 1 worker", [90], problem="WrongCount: 3 trees failed"),
    ]
    idle = result("idle", rss_mb_max=61.0, worker_cpu_share=0.01, daemons_rss_mb={})
    own = {"runs": {"idle": RUN}, "results": {"idle": idle}}
    text = page(own, PEERS, scores)
    assert "rainband is behind in 2 of" in text
    assert "1 of 2" in text
    assert "WrongCount: 3 trees failed" in text
    assert "| idle worker, resident memory | ≤ 60 MB |  | 61 MB | **behind** |  |" in text
    assert set(charts({}, scores)) == {"chain-acked.svg"}


def test_the_page_says_when_machines_differ() -> None:
    scores = [score(CHAIN, RAINBAND, "1 worker", [100]), score(WORD_COUNT, RAINBAND, "1 worker", [100])]
    assert "Not all was measured on one machine" not in page({}, PEERS, scores)
    other = {"runs": {**PEERS["runs"], CHAIN: {**RUN, "machine": {"cpu": "4"}}}}
    assert "Not all was measured on one machine" in page({}, other, scores)


def test_without_results_there_are_no_figures() -> None:
    text = page({}, {}, [])
    assert "## Beside other engines" not in text
    assert "reached |" not in text


def test_charts_are_well_formed() -> None:
    drawing = bar_chart("a < b", "per s", [Bar("x & y", 5.0, 1.0, 9.0, True), Bar("none", 0.0, 0.0, 0.0, False)])
    ElementTree.fromstring(drawing)


@pytest.mark.parametrize(
    ("value", "text"), [(1_234_567.0, "1.23 M"), (999_900.0, "1 M"), (45_600.0, "45.6 k"), (999.4, "999"), (12.0, "12")]
)
def test_short_numbers(value: float, text: str) -> None:
    assert short(value) == text


def test_percentiles_are_of_the_samples() -> None:
    assert percentiles(histogram([0.001] * 98 + [0.01] * 2)) == {"p50": 1.0, "p99": 10.0, "p999": 10.0}
    assert percentiles({}) is None


def test_every_result_has_every_key() -> None:
    assert set(KEYS) <= set(result("x", extra=1))


def test_names_on_the_page_are_unique() -> None:
    assert len({title for title, _, _ in OWN}) == len(OWN)
    keys = [contender.key for contender in contenders()]
    assert len(set(keys)) == len(keys)
    assert [is_storm(contender) for contender in contenders()] == sorted(is_storm(c) for c in contenders())


def test_words_of_a_round_and_a_bit() -> None:
    from benchmarks.peers.corpus import corpus

    text = corpus()
    assert words_of(len(text.lines) + 10) == text.words + words_of(10)
