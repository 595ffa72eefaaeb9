"""The line to Nimbus, on a thread of its own: a Nimbus that is slow or gone never holds up the slots.

The daemon hands in one heartbeat at a time and takes what came back from a queue; pushes arrive by the same way.
A leader that died without a word is waited for during a share of the lease only: others have to be asked in time.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from rainband.errors import RainbandError, SupervisorReplaced
from rainband.messaging.rpc import TIMEOUT_S, RpcClient
from rainband.records import Heartbeat, HeartbeatReply, Progress

LISTEN_S = 0.02
GOODBYE_S = 1.0
SHARE = 6.0


@dataclass(frozen=True, slots=True)
class Answered:
    """Nimbus took the heartbeat."""

    reply: HeartbeatReply


@dataclass(frozen=True, slots=True)
class Unanswered:
    """It did not; `reason` says why. `replaced`: another supervisor speaks under our name."""

    reason: str
    replaced: bool = False


@dataclass(frozen=True, slots=True)
class Pushed:
    """Nimbus has news."""

    progress: Progress


News = Answered | Unanswered | Pushed


def patience_s(lease_s: float) -> float:
    """How long to wait for the answer to a heartbeat: several seeds can be tried before the lease is over."""
    return min(TIMEOUT_S, lease_s / SHARE)


class Uplink:
    """`wake` is called, on the uplink's thread, whenever there is something to `take`.

    `lease_s` is for how long Nimbus believes a supervisor that is silent to be alive.
    """

    def __init__(self, client: RpcClient, wake: Callable[[], None], lease_s: float) -> None:
        self._client = client
        self._patience_s = patience_s(lease_s)
        self._wake = wake
        self._out: queue.SimpleQueue[Heartbeat | None] = queue.SimpleQueue()
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self.busy = False
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)
        self._thread.start()

    def report(self, heartbeat: Heartbeat) -> None:
        """Send a heartbeat; exactly one Answered or Unanswered follows, and `busy` is true until it is taken."""
        assert not self.busy
        self.busy = True
        self._out.put(heartbeat)

    def take(self) -> list[News]:
        """What came in since the last call."""
        found: list[News] = []
        while not self._news.empty():
            news = self._news.get()
            if not isinstance(news, Pushed):
                self.busy = False
            found.append(news)
        return found

    def close(self, goodbye: Heartbeat | None = None) -> None:
        """End the thread, after a last heartbeat if one is given and Nimbus takes it soon."""
        self._client.timeout_s = GOODBYE_S
        if goodbye is not None:
            self._out.put(goodbye)
        self._out.put(None)
        self._thread.join(2 * GOODBYE_S + self._client.timeout_s)
        self._client.close()

    def _run(self) -> None:
        while True:
            try:
                heartbeat = self._out.get_nowait()
            except queue.Empty:
                self._listen()
                continue
            if heartbeat is None:
                return
            self._tell(self._call(heartbeat))

    def _listen(self) -> None:
        try:
            for progress in self._client.events(LISTEN_S):
                self._tell(Pushed(progress))
        except RainbandError:
            threading.Event().wait(LISTEN_S)

    def _call(self, heartbeat: Heartbeat) -> News:
        try:
            reply = self._client.call(heartbeat, min(self._patience_s, self._client.timeout_s))
        except RainbandError as error:
            return Unanswered(str(error), isinstance(error, SupervisorReplaced))
        if isinstance(reply, HeartbeatReply):
            return Answered(reply)
        return Unanswered(f"Nimbus answered a heartbeat with {type(reply).__name__}")

    def _tell(self, news: News) -> None:
        self._news.put(news)
        self._wake()
