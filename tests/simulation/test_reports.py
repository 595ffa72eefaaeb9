"""What people are told: of a failing seed, of a campaign, of the hunt for planted bugs."""

from __future__ import annotations

import pytest

from simulation import reports
from simulation.campaign import run_seed
from simulation.corpus import read_corpus
from simulation.faults import Fault, Faults
from simulation.hunt import LOG as PLANTED
from simulation.hunt import SEEDS_PER_BUG, Hunt, table
from simulation.planted_bounds import BUGS
from simulation.reports import commit, report
from simulation.totals import Totals, entry

SEED = 3


def test_the_report_of_a_failure_says_all_that_is_needed_to_see_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Faults._strike

    def strike(self: Faults, fault: Fault) -> None:
        if fault.kind == kind:
            self.world.wrong("T9", "a law for this test")
        real(self, fault)

    kind = run_seed(SEED).faults[-1].kind
    monkeypatch.setattr(Faults, "_strike", strike)
    outcome = run_seed(SEED)
    assert outcome.violation.startswith("T9: a law for this test")
    assert len(outcome.faults) > 2
    told = report(outcome, shrink=True)
    first, *_ = told.splitlines()
    assert first == f"commit {commit()} seed {SEED}: {outcome.violation}"
    whole, _, shrunk = told.partition(f"\nshrunk to 1 of {len(outcome.faults)} faults:\n")
    assert whole.count("\n  fault ") == len(outcome.faults)
    assert shrunk.count("\n  fault ") == 1
    assert f" {kind} lasts" in shrunk
    assert outcome.options.record() in whole
    assert f"\n  hash {outcome.hash} " in whole
    assert f"\nreplay: python -m tests.simulation --seed {SEED} --trace\n" in told
    assert told.endswith(f"add '{SEED} {outcome.options.edition} <what it showed>' to tests/simulation/corpus.txt")
    assert run_seed(SEED).hash == outcome.hash


def test_where_there_is_no_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert commit() == "unknown"
    monkeypatch.undo()
    monkeypatch.setattr(reports, "ROOT", "/")
    assert commit() == "unknown"


def test_a_campaign_names_its_bad_seeds_and_adds_up() -> None:
    old = (
        "2026-11-21 d335d3c seeds 5001..5900: 900 seeds, 2 bad, 1000 roots, 5000 executions, 7 replays, 9 run twice\n"
        "  bad: 5002 D1, 5003 L1\n  so far: 1 campaigns, 900 seeds, 2 bad, 1000 roots, 5000 executions\n"
    )
    totals = Totals(10, [(18, "D4"), (12, "A6")], 100, 200, 3)
    told = entry(old, totals, 11, 5.0, "abc1234").splitlines()
    assert " abc1234 seeds 11..20: 10 seeds, 2 bad, 100 roots, 200 executions, 3 replays, " in told[0]
    assert told[1:] == [
        "  bad: 12 A6, 18 D4",
        "  so far: 2 campaigns, 910 seeds, 4 bad, 1100 roots, 5200 executions",
    ]
    again = entry(old + "\n".join(told) + "\n", Totals(1), 21, 1.0, "abc1234").splitlines()
    assert again[1:] == ["  so far: 3 campaigns, 911 seeds, 4 bad, 1100 roots, 5200 executions"]


def test_a_line_of_the_corpus_needs_a_seed_an_edition_and_words() -> None:
    (known,) = read_corpus("# what is this\n\n17 1 some words\n")
    assert (known.seed, known.edition, known.showed) == (17, 1, "some words")
    with pytest.raises(ValueError, match="not enough values"):
        read_corpus("17 1\n")


def test_the_log_of_planted_bugs_tells_how_many_seeds_each_took() -> None:
    told = table([Hunt("b_bug", 3, "D1: some", 1.5), Hunt("a_bug", 0, "", 20.0)], "abc1234", 12.0, 2).splitlines()
    assert "1 of 2 planted bugs found, each within 3 seeds" in told[0]
    assert told[2].split() == ["a_bug", "NOT", "FOUND", "20.0"]
    assert told[3].split() == ["b_bug", "3", "D1", "1.5"]

def test_the_committed_log_has_every_planted_bug_within_its_seeds() -> None:
    rows = {row.split()[0]: row.split() for row in PLANTED.read_text(encoding="utf-8").splitlines()[2:]}
    assert rows.keys() == BUGS.keys()
    assert all(1 <= int(row[1]) <= SEEDS_PER_BUG for row in rows.values())
