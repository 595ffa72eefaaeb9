"""Who is alive? A supervisor is, until it says that it stops or has been silent for a whole lease.

Pure: `now` is monotonic seconds of this process. A fresh Nimbus expects the supervisors of the stored assignments:
each has one full lease, counted from the start, to be heard for the first time.
"""

from __future__ import annotations

from collections.abc import Iterable


class Liveness:
    """Leases of `lease_s` seconds by supervisor id."""

    def __init__(self, lease_s: float, expected: Iterable[str], now: float) -> None:
        self.lease_s = lease_s
        self._heard: dict[str, float] = dict.fromkeys(expected, now)

    def hear(self, supervisor: str, now: float) -> bool:
        """A sign of life; True when it was not alive before."""
        new = supervisor not in self._heard
        self._heard[supervisor] = now
        return new

    def stop(self, supervisor: str) -> bool:
        """It said goodbye; True when it was alive before."""
        return self._heard.pop(supervisor, None) is not None

    def expire(self, now: float) -> list[str]:
        """Those whose lease ran out just now, sorted. They are dead until heard again."""
        dead = sorted(name for name, heard in self._heard.items() if now >= heard + self.lease_s)
        for name in dead:
            del self._heard[name]
        return dead

    def pause(self, seconds: float) -> None:
        """This process stood still that long: nobody could be heard meanwhile, so it does not count."""
        self._heard = {name: heard + seconds for name, heard in self._heard.items()}

    def alive(self, supervisor: str) -> bool:
        return supervisor in self._heard

    def names(self) -> list[str]:
        """All that are alive, those who are expected included."""
        return list(self._heard)

    def deadline(self) -> float:
        """When the next lease runs out, if nobody is heard; infinity when nobody is alive."""
        return min(self._heard.values(), default=float("inf")) + self.lease_s
