"""Refuses emits and acks from threads that user code started, where there are such threads; costs nothing where not.

An emit from another thread while a callback runs would race with the loop. Asking for the thread in every emit would
slow all topologies down, so the methods that ask are bound only once a thread is there that is not the worker's own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from threading import get_ident
from typing import Any
from weakref import WeakSet

from rainband.errors import EmitRefused
from rainband.worker.bind import bind_methods
from rainband.worker.emit import OUTSIDE, OUTSIDE_FIX
from rainband.worker.side import is_side
from rainband.worker.wiring import LocalTask

GUARDED = ("emit", "emit_many", "emit_direct", "ack", "fail", "reset_timeout")


class Guard:
    """Made before user code is loaded, in the thread of the loop. `own` are the worker's other threads, as they are."""

    def __init__(self, own: Callable[[], Iterable[threading.Thread]]) -> None:
        self._loop = get_ident()
        self._known = set(threading.enumerate())
        self._own = own
        self._guarded: WeakSet[LocalTask] = WeakSet()

    def look(self, tasks: Iterable[LocalTask]) -> None:
        """Guard the tasks of the loop if a thread of user code is there by now."""
        if not set(threading.enumerate()) - self._known - {*self._own()}:
            return
        for made in tasks:
            if made not in self._guarded and not is_side(made.instance):
                self._guarded.add(made)
                methods = {name: vars(made.instance)[name] for name in GUARDED if name in vars(made.instance)}
                bind_methods(made.instance, {name: self.guarded(method) for name, method in methods.items()})

    def guarded(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method, for the thread of the loop only."""
        loop = self._loop

        def call(*arguments: Any, **given: Any) -> Any:
            if get_ident() != loop:
                raise EmitRefused(OUTSIDE, OUTSIDE_FIX)
            return method(*arguments, **given)

        return call
