"""Ends calls of user code that never return, so that a test fails with their name instead of standing still.

Virtual time stands still during a call, however long it takes: what no virtual timeout can end is ended by a thread
that looks on in real time. In the main thread a signal breaks into the call, even into a sleep or a lock; elsewhere an
exception is raised as soon as the call runs Python code again.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType

from rainband.clock import SystemClock

LOOK_S = 0.1
AGAIN_S = 0.2
OURS = str(Path(__file__).resolve().parent.parent)
DEBUGGERS = ("pdb.py", "bdb.py", "pydevd.py")
NOBODY = (signal.SIG_DFL, None)


class Stuck(BaseException):
    """Raised inside the call that is ended; user code has no business catching it."""


class Watch:
    """Use with `with`, in the thread to look at, around what calls user code.

    `progress()` changes whenever a call has returned; after `limit_s` real seconds without a change `complaint(frame,
    seconds)` is kept in `told`, and the call is ended. `frame` is that of the user's function, or None.
    """

    def __init__(
        self, limit_s: float, progress: Callable[[], object], complaint: Callable[[FrameType | None, float], str]
    ) -> None:
        self.limit_s = limit_s
        self.progress = progress
        self.complaint = complaint
        self.told = ""
        self._done = threading.Event()
        self._watched = threading.get_ident()
        self._signal: int | None = None
        self._before: object = None
        self._thread = threading.Thread(target=self._look_on, name="rainband-watch", daemon=True)

    def __enter__(self) -> Watch:
        if threading.current_thread() is threading.main_thread():
            self._signal = free_signal()
            if self._signal is not None:
                self._before = signal.signal(self._signal, self._break_in)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        if self._signal is not None:
            signal.signal(self._signal, signal.SIG_DFL)

    def _look_on(self) -> None:
        clock = SystemClock()
        last, since = self._progress(), clock.now()
        while not self._done.wait(min(LOOK_S, self.limit_s / 4)):
            now, frames = clock.now(), frames_of(self._watched)
            current = self._progress()
            if current != last or any(frame.f_code.co_filename.endswith(DEBUGGERS) for frame in frames):
                last, since = current, now
            elif now - since >= (AGAIN_S if self.told else self.limit_s):
                self.told = self.told or self.complaint(entry(frames), now - since)
                since = now
                self._end_call()

    def _progress(self) -> object:
        try:
            return self.progress()
        except RuntimeError:  # what it counts changed meanwhile
            return object()

    def _end_call(self) -> None:
        if self._done.is_set():
            return
        if self._signal is not None:
            signal.pthread_kill(self._watched, self._signal)
        else:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._watched), ctypes.py_object(Stuck))

    def _break_in(self, number: int, frame: FrameType | None) -> None:
        if not self._done.is_set():
            raise Stuck


def free_signal() -> int | None:
    """A signal that nobody has a handler for."""
    numbers = [*range(signal.SIGRTMAX - 1, signal.SIGRTMIN, -1)] if hasattr(signal, "SIGRTMIN") else []
    return next((n for n in [*numbers, signal.SIGUSR2] if signal.getsignal(n) in NOBODY), None)


def frames_of(thread: int) -> list[FrameType]:
    """The frames of a thread, outermost first."""
    frames = []
    frame = sys._current_frames().get(thread)
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames[::-1]


def entry(frames: list[FrameType]) -> FrameType | None:
    """The first frame of user code: the one that our innermost frame called, or that called our innermost ones."""
    ours = [frame.f_code.co_filename.startswith(OURS) for frame in frames]
    if True not in ours:
        return None
    after = len(ours) - ours[::-1].index(True)
    if after == len(frames):
        after = next((n for n in range(ours.index(True), len(ours)) if not ours[n]), after)
    return frames[after] if after < len(frames) else None
