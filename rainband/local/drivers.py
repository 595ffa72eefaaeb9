"""Who lets an Engine's time pass: a background thread by the machine's clock, or the caller by a virtual one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import Any, Generic, Protocol, TypeVar

from rainband.clock import SystemClock, VirtualClock
from rainband.local.engine import Engine
from rainband.nimbus.running import pause_really

R = TypeVar("R")

PASSES_AT_ONCE = 1000
WORK_S = 0.001
REST_MAX_S = 0.5
STOP_S = 30.0


class Driver(Protocol):
    """`do` runs a function on the engine, where nothing else touches it, and returns or raises what that does."""

    engine: Engine

    def do(self, function: Callable[[Engine], R]) -> R: ...

    def pause(self, seconds: float) -> None:
        """Let time pass."""

    def stop(self) -> None:
        """No more passes."""


class VirtualDriver:
    """Time passes when `advance` is called, in the thread of the caller."""

    def __init__(self, engine: Engine, clock: VirtualClock) -> None:
        self.engine = engine
        self.clock = clock

    def do(self, function: Callable[[Engine], R]) -> R:
        self.engine.loop.thread = get_ident()
        return function(self.engine)

    def pause(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let `seconds` pass; everything due by then is done. Ends early, and returns True, when `until()` is true.

        `until` is asked whenever nothing is left to do at a moment. Ends early too when user code has raised and
        that is to be raised here.
        """
        engine, clock = self.engine, self.clock
        engine.loop.thread = get_ident()
        end = clock.now() + seconds
        passes = 0
        while True:
            now = clock.now()
            deadline = engine.step(now)
            if engine.raised:
                return False
            if deadline > now:
                if until is not None and until():
                    return True
                if engine.wait_outside(min(deadline, end) - now):
                    continue
                passes = 0
            else:
                passes += 1
                if passes < PASSES_AT_ONCE:
                    continue
                deadline = now + WORK_S  # endless work takes time as well
                passes = 0
            if deadline > end:
                clock.time = max(now, end)
                return False
            clock.time = deadline

    def stop(self) -> None:
        """Nothing runs by itself."""


class Errand(Generic[R]):
    """A function on its way to the engine's thread, and what came of it."""

    def __init__(self, function: Callable[[Engine], R]) -> None:
        self.function = function
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self, engine: Engine) -> None:
        try:
            self.result = self.function(engine)
        except BaseException as error:
            self.error = error
        self.done.set()


class ThreadDriver:
    """A background thread that steps the engine as fast as there is work, and sleeps when there is none."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._clock = SystemClock()
        self._errands: deque[Errand[Any]] = deque()
        self._stopping = False
        self._broken: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="rainband-local", daemon=True)
        self._thread.start()

    def do(self, function: Callable[[Engine], R]) -> R:
        if threading.current_thread() is self._thread:
            return function(self.engine)
        errand = Errand(function)
        self._errands.append(errand)
        self.engine.hub.wake()
        while not errand.done.wait(1.0):
            if not self._thread.is_alive():
                raise RuntimeError("the cluster's thread has ended") from self._broken
        if errand.error is not None:
            raise errand.error
        result: R = errand.result
        return result

    def pause(self, seconds: float) -> None:
        pause_really(seconds)

    def stop(self) -> None:
        self._stopping = True
        self.engine.hub.wake()
        self._thread.join(STOP_S)

    def _run(self) -> None:
        engine, clock = self.engine, self._clock
        engine.loop.thread = get_ident()
        try:
            while not self._stopping:
                while self._errands:
                    self._errands.popleft().run(engine)
                now = clock.now()
                deadline = engine.step(now)
                rest_s = min(deadline - clock.now(), REST_MAX_S)
                if rest_s > 0 and not self._errands:
                    engine.hub.wait(rest_s)
        except BaseException as error:
            self._broken = error
            raise
        finally:
            while self._errands:
                self._errands.popleft().run(engine)
