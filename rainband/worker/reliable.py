"""The book of a ReliableSpout: what was emitted and not finished, when to try again, when to give up. Pure.

Positions: each call of `next_tuple` begins a segment at the position it started from. The lowest unfinished position
is that of the oldest segment with an unfinished row, so that `seek` to it can lose nothing.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Any

from rainband.errors import EmitRefused


class Row:
    """One emitted row that is not finished. `retries` counts the replays so far."""

    __slots__ = ("direct", "reason", "retries", "segment", "stream", "values")

    def __init__(self, values: tuple[object, ...], stream: str, direct: int, segment: Segment | None) -> None:
        self.values = values
        self.stream = stream
        self.direct = direct
        self.segment = segment
        self.retries = 0
        self.reason = "failed"


class Segment:
    """Rows emitted by one call of next_tuple, which started at `position`."""

    __slots__ = ("open", "position")

    def __init__(self, position: object) -> None:
        self.position = position
        self.open = 0


class DeadLetter:
    """Message id of a dead letter: it is replayed without limit until its own tree is acked."""

    __slots__ = ("message_id",)

    def __init__(self, message_id: object) -> None:
        self.message_id = message_id


class ReliableBook:
    """Replays with delays doubling up to `delay_max_s`; after `max_retries` of them a row is a dead letter.

    Each delay below that is up to 10 % longer by chance: what failed together does not come back all at once.
    """

    def __init__(self, max_retries: int, delay_s: float, delay_max_s: float) -> None:
        self.max_retries = max_retries
        self.delay_s = delay_s
        self.delay_max_s = delay_max_s
        self.rows: dict[object, Row] = {}
        self.retries: list[tuple[float, int, object]] = []
        self.order = 0
        self.segments: deque[Segment] = deque()
        self.current: Segment | None = None
        self.replayed = 0
        self.dead_letters = 0

    def begin(self, position: object) -> None:
        """A call of next_tuple starts at `position`."""
        self.current = Segment(position)

    def end(self) -> None:
        if self.current is not None and self.current.open:
            self.segments.append(self.current)
        self.current = None

    def emitted(self, message_id: object, values: tuple[object, ...], stream: str, direct: int = -1) -> None:
        """Raises EmitRefused for a message id that is None, unhashable, or of a row still unfinished."""
        if message_id is None:
            raise EmitRefused("a ReliableSpout emitted with message_id=None", "Give each row an id of its own")
        try:
            pending = message_id in self.rows
        except TypeError as error:
            raise EmitRefused(f"message id {message_id!r:.80}: {error}", "Use a str, an int or a tuple") from None
        if pending:
            raise EmitRefused(
                f"message id {message_id!r} is already pending", "A ReliableSpout needs a different id for each row"
            )
        self.rows[message_id] = Row(values, stream, direct, self.current)
        if self.current is not None:
            self.current.open += 1

    def forget(self, message_id: object) -> None:
        """The emit did not happen after all."""
        self.acked(message_id)

    def acked(self, message_id: object) -> None:
        row = self.rows.pop(message_id, None)
        if row is not None and row.segment is not None:
            row.segment.open -= 1

    def failed(self, message_id: object, now: float, random: float) -> Row | None:
        """Plan a replay; or, when there were enough, return the row that is given up (still in the book)."""
        row = self.rows.get(message_id)
        if row is None:
            return None
        if row.retries >= self.max_retries and not isinstance(message_id, DeadLetter):
            return row
        delay = min(self.delay_max_s, self.delay_s * 2.0 ** min(row.retries, 30) * (1.0 + 0.1 * random))
        self.order += 1
        heapq.heappush(self.retries, (now + delay, self.order, message_id))
        return None

    def lost(self, message_id: object, now: float) -> None:
        """A process died with the row under way: no fault of the row, so replay at once and do not count it."""
        row = self.rows.get(message_id)
        if row is not None:
            row.retries -= 1
            self.order += 1
            heapq.heappush(self.retries, (now, self.order, message_id))

    def bury(self, message_id: object, reason: str) -> tuple[DeadLetter, tuple[Any, ...]]:
        """Replace a row that is given up by its dead letter: its message id and values for stream dead_letters."""
        row = self.rows.pop(message_id)
        self.dead_letters += 1
        letter = DeadLetter(message_id)
        values = (message_id, row.stream, row.values, row.retries, reason)
        buried = Row(values, "dead_letters", -1, row.segment)
        self.rows[letter] = buried
        return letter, values

    def due(self, now: float) -> tuple[object, Row] | None:
        """The next row to replay now, counted as replayed."""
        while self.retries and self.retries[0][0] <= now:
            _, _, message_id = heapq.heappop(self.retries)
            row = self.rows.get(message_id)
            if row is not None:
                row.retries += 1
                self.replayed += 1
                return message_id, row
        return None

    def next_due(self) -> float:
        """When the next replay is due; infinity when none is planned."""
        return self.retries[0][0] if self.retries else float("inf")

    def lowest(self) -> tuple[bool, object]:
        """(True, lowest unfinished position), or (False, None) when everything emitted is finished."""
        while self.segments and not self.segments[0].open:
            self.segments.popleft()
        if self.segments:
            return True, self.segments[0].position
        return False, None
