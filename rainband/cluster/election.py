"""Who leads? What a Nimbus asks of a backend, and the pure decisions behind the one that holds elections.

Candidates stand in a queue; the first one leads, for as long as its lease lasts on its own clock. A lease is counted
from the moment a renewal was *sent*, never from its answer or from an event of a library: the other side begins to
count later, so it never takes the place of one that still believes it leads. The margin pays for clocks that run at
different rates, and for servers that learn of a sign of life up to half a tick late.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

NODE = re.compile(r"([0-9a-f]{32})-(\d{10})\Z")
MARGIN_S = 1.0
MARGIN_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand: `leader` and `members` are addresses ('' and () when not known), the leader's first.

    `trouble` says why nothing is known: the place where elections are held does not answer.
    """

    leads: bool
    leader: str = ""
    members: tuple[str, ...] = ()
    trouble: str = ""


class Election(Protocol):
    """A Nimbus's side of the election. Any thread may call."""

    def stand(self, address: str, wake: Callable[[], None]) -> None:
        """Be a candidate, reached at `address`; `wake` is called from another thread whenever something changed."""

    def standing(self, now: float) -> Standing:
        """As far as known at monotonic `now`; never waits. Raises the RainbandError that makes standing pointless."""

    def resign(self) -> None:
        """Lead no more, and stand again behind the others."""

    def close(self) -> None:
        """Leave the election, so that the next one leads at once."""


class Alone:
    """The only candidate there can be: the state is locked, or this process's own."""

    def __init__(self) -> None:
        self._address = ""

    def stand(self, address: str, wake: Callable[[], None]) -> None:
        self._address = address

    def standing(self, now: float) -> Standing:
        return Standing(True, self._address, (self._address,))

    def resign(self) -> None:
        """There is nobody to leave it to."""

    def close(self) -> None:
        """Nothing to let go of."""


class Lease:
    """Leadership that ends by itself. `session_s` is what the other side grants; 0 until that is known."""

    def __init__(self) -> None:
        self.session_s = 0.0
        self.until = float("-inf")

    def renewed(self, sent_at: float) -> None:
        """A sign of life sent at `sent_at` was taken."""
        self.until = max(self.until, sent_at + lasts_s(self.session_s)) if self.session_s else float("-inf")

    def end(self) -> None:
        self.until = float("-inf")

    def held(self, now: float) -> bool:
        return now < self.until


def lasts_s(session_s: float) -> float:
    """How long a candidate trusts a sign of life when the others wait `session_s` before they take its place."""
    return max(0.0, session_s - max(MARGIN_S, MARGIN_SHARE * session_s))


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """A place in the queue; `node` is its name as stored, `identity` who made it."""

    number: int
    node: str
    identity: str


def queue_of(nodes: Iterable[str]) -> list[Candidate]:
    """The candidates, first one first. Names that are none are left out."""
    found = ((node, NODE.match(node)) for node in nodes)
    return sorted(Candidate(int(match[2]), node, match[1]) for node, match in found if match)


def places_of(identity: str, queue: Iterable[Candidate]) -> tuple[Candidate | None, list[Candidate]]:
    """(the place of `identity`, further ones it holds). An answer that got lost may leave more than one."""
    own = [candidate for candidate in queue if candidate.identity == identity]
    return (own[0], own[1:]) if own else (None, [])
