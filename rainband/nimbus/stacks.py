"""Stacks of workers: who asked for them, and what has come in. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

STACKS_S = 10.0


@dataclass(slots=True)
class StackRequest:
    """Stacks asked for at `at`; one text per worker as it comes in."""

    at: float
    texts: dict[str, str] = field(default_factory=dict)


class StackDesk:
    """Requests by topology id; one that is older than STACKS_S is made anew when somebody asks again."""

    def __init__(self) -> None:
        self._requests: dict[str, StackRequest] = {}
        self._to_ask: dict[str, set[str]] = {}

    def ask(self, topology_id: str, supervisors: Iterable[str], now: float) -> dict[str, str]:
        """What has come so far; the first question goes to the supervisors."""
        known = self._requests.get(topology_id)
        if known is None or now > known.at + STACKS_S:
            known = self._requests[topology_id] = StackRequest(now)
            self._to_ask[topology_id] = set(supervisors)
        return dict(known.texts)

    def hear(self, topology_id: str, texts: Mapping[str, str]) -> None:
        """Texts by worker; those that nobody asked for are dropped."""
        request = self._requests.get(topology_id)
        if request is not None:
            request.texts.update(texts)

    def take(self) -> dict[str, set[str]]:
        """Supervisors to ask since the last call, by topology id."""
        asked, self._to_ask = self._to_ask, {}
        return asked

    def forget(self, topology_id: str) -> None:
        self._requests.pop(topology_id, None)
