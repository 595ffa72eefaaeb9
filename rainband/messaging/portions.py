"""What goes into one heartbeat of what may be too much for it; the rest goes with the next ones. Pure.

A heartbeat larger than a message may be is never heard, and neither is who sends it. Positions get half of a message,
errors an eighth; counters take the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

from rainband.records import ErrorRecord, WorkerBeat

POSITIONS_BYTES_MAX = 8 * 1024 * 1024
ERRORS_BYTES_MAX = 2 * 1024 * 1024

K = TypeVar("K", int, tuple[int, int])


class Turns(Generic[K]):
    """Of positions by key, as many as have `bytes_max` together: where not all fit, each has its turn."""

    def __init__(self, bytes_max: int = POSITIONS_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self._last: K | None = None

    def take(self, positions: Mapping[K, bytes]) -> dict[K, bytes]:
        """Those for this heartbeat. One larger than `bytes_max` never has a turn."""
        if sum(map(len, positions.values())) <= self.bytes_max:
            return dict(positions)
        last = self._last
        keys = sorted(positions)
        if last is not None:
            keys = [key for key in keys if key > last] + [key for key in keys if key <= last]
        taken: dict[K, bytes] = {}
        room = self.bytes_max
        for key in keys:
            size = len(positions[key])
            if size > self.bytes_max:
                continue
            if size > room:
                break
            room -= size
            taken[key] = positions[key]
            self._last = key
        return taken


def share_positions(beats: Sequence[WorkerBeat], turns: Turns[tuple[int, int]]) -> list[WorkerBeat]:
    """The beats of all workers of a host, with those of their positions that fit into one heartbeat."""
    every = {(beat.port, task): position for beat in beats for task, position in beat.positions.items()}
    taken = turns.take(every)
    if len(taken) == len(every):
        return list(beats)
    positions: dict[int, dict[int, bytes]] = {beat.port: {} for beat in beats}
    for (port, task), position in taken.items():
        positions[port][task] = position
    return [msgspec.structs.replace(beat, positions=positions[beat.port]) for beat in beats]


def first_errors(
    errors: Sequence[ErrorRecord], bytes_max: int = ERRORS_BYTES_MAX
) -> tuple[tuple[ErrorRecord, ...], tuple[ErrorRecord, ...]]:
    """(the first ones, which have `bytes_max` together, but one at least; the rest)."""
    room = bytes_max
    for count, error in enumerate(errors):
        room -= len(msgspec.msgpack.encode(error))
        if room < 0 and count:
            return tuple(errors[:count]), tuple(errors[count:])
    return tuple(errors), ()
