"""For how long what is exclusive may run on without a word from Nimbus. Pure.

Nimbus places the work of a supervisor elsewhere once it has not heard from it for `seconds`. Here the time is counted
from before the heartbeat was sent, and ends sooner: workers end by themselves at `until`, and are killed when they have
not ended a while later, still before anybody else can have begun. All times are seconds since boot.
"""

from __future__ import annotations

LASTS_SHARE = 0.8
GRACE_SHARE = 0.1


class Lease:
    """`seconds` is nimbus.supervisor.timeout.secs. `inherited`: what workers were told by an earlier supervisor."""

    def __init__(self, seconds: float, inherited: float = float("-inf")) -> None:
        self.inherited = inherited
        self.lasts_s = LASTS_SHARE * seconds
        self.grace_s = GRACE_SHARE * seconds
        self.until = float("-inf")

    def confirmed(self, asked_at: float) -> None:
        """Nimbus has answered a heartbeat that was begun at `asked_at`."""
        self.until = max(self.until, asked_at + self.lasts_s)

    def held(self, now: float) -> bool:
        return now < self.until

    def overdue(self, now: float) -> bool:
        """Whether workers should have ended by themselves by now."""
        return now >= max(self.until, self.inherited) + self.grace_s
