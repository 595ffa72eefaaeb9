"""The permanent corpus: seeds that failed once, replayed with every run of the tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).resolve().parent / "corpus.txt"


@dataclass(frozen=True)
class Known:
    """A seed drawn by the rules of `edition`, and what it showed in a few words."""

    seed: int
    edition: int
    showed: str


def read_corpus(text: str) -> list[Known]:
    """The seeds of a corpus file, in its order. Raises ValueError for a line that is none."""
    rows = [line.split(maxsplit=2) for line in text.splitlines() if line and line[0] != "#"]
    return [Known(int(seed), int(edition), showed) for seed, edition, showed in rows]


def corpus_line(seed: int, edition: int) -> str:
    """What to add to the corpus when the bug that `seed` found is fixed."""
    return f"{seed} {edition} <what it showed>"
