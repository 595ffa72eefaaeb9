"""Where the callbacks of async and blocking components run: lanes beside the worker's loop.

A `Call` carries one callback there and brings back what it emitted and acked (`ops`) and whether it raised. Lanes:
`ThreadLane` (one thread per blocking executor, calls one at a time), `AsyncLane` (one asyncio loop per worker, on a
thread of its own), `VirtualLane` (both, inline, under a virtual clock: `asyncio.sleep` takes virtual time).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import queue
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from rainband.clock import Clock
from rainband.worker.returned import check_returned

STEPS_MAX = 100_000
SILENCE_S = 2.0
STACKS_MAX = 10
CANCEL_S = 2.0
WORK = ("execute", "execute_batch", "tick", "next_tuple")


class Call:
    """One callback on a lane. `ops` are applied by the owner on the worker's loop when the call is back.

    Those of a call that goes on for long may be applied before: the first `applied` are.
    """

    def __init__(
        self, owner: Any, function: Callable[[], Any], component: str, callback: str, subject: Any = None
    ) -> None:
        self.owner = owner
        self.function = function
        self.component = component
        self.callback = callback
        self.subject = subject
        self.ops: list[Any] = []
        self.applied = 0
        self.error: BaseException | None = None
        self.closed = False
        self.done: threading.Event | None = None

    def check(self, result: object) -> None:
        """Raises UsageError if it returned what is still to be run."""
        if result is not None:
            check_returned(self.component, self.callback, result)


CURRENT: contextvars.ContextVar[Call | None] = contextvars.ContextVar("rainband_call", default=None)


class Lane(Protocol):
    @property
    def results(self) -> Results: ...

    def stack(self, component: str) -> str:
        """Where the calls of a component that are under way stand."""

    def submit(self, call: Call) -> None: ...

    def cancel(self) -> None:
        """End the work under way, before the components are closed."""

    def close(self) -> None: ...

    def deadline(self) -> float: ...

    def advance(self) -> None: ...


class Results:
    """Calls on their way back to the worker's loop, and `parts`: calls that go on and have emitted.

    `wake` interrupts the loop's sleep, once until it has `taken` what there is.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.calls: deque[Call] = deque()
        self.parts: deque[Call] = deque()
        self.wake = wake
        self.rung = False

    def put(self, call: Call) -> None:
        call.closed = True
        if call.done is not None:
            call.done.set()
            return
        self.calls.append(call)
        self.ring()

    def part(self, call: Call) -> None:
        """What `call` has emitted so far may be applied."""
        self.parts.append(call)
        self.ring()

    def ring(self) -> None:
        if not self.rung:
            self.rung = True
            self.wake()

    def taken(self) -> Iterator[tuple[Call, bool]]:
        """Everything put so far: (call, whether it is back)."""
        self.rung = False
        while self.parts:
            yield self.parts.popleft(), False
        while self.calls:
            yield self.calls.popleft(), True


class ThreadLane:
    """Runs calls one after the other on one thread."""

    def __init__(self, results: Results, name: str) -> None:
        self.results = results
        self.calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def stack(self, component: str) -> str:
        frame = sys._current_frames().get(self.thread.ident or 0)
        return "".join(traceback.format_stack(frame)) if frame is not None else ""

    def submit(self, call: Call) -> None:
        self.calls.put(call)

    def cancel(self) -> None:
        pass  # a thread cannot be told to stop; its calls come one after the other

    def close(self) -> None:
        self.calls.put(None)

    def deadline(self) -> float:
        return float("inf")

    def advance(self) -> None:
        pass

    def _run(self) -> None:
        while (call := self.calls.get()) is not None:
            CURRENT.set(call)
            try:
                result = call.function()
                if inspect.isawaitable(result):
                    result = asyncio.run(finish(result))
                call.check(result)
            except BaseException as error:
                call.error = error
            CURRENT.set(None)
            self.results.put(call)


def cancel_work(tasks: dict[asyncio.Task[None], Call]) -> list[asyncio.Task[None]]:
    """Cancel the calls that process tuples; spouts are still told of their messages."""
    working = [task for task, call in tasks.items() if call.callback in WORK]
    for task in working:
        task.cancel()
    return working


async def finish(awaitable: Any) -> Any:
    return await awaitable


async def run_call(call: Call, results: Results) -> None:
    CURRENT.set(call)
    try:
        result = call.function()
        if inspect.isawaitable(result):
            result = await result
        call.check(result)
    except BaseException as error:
        call.error = error
    results.put(call)


def stack_of(task: asyncio.Task[None]) -> str:
    """Where a coroutine waits: it, what it awaits, and so on."""
    awaited: Any = task.get_coro()
    frames = []
    while (frame := getattr(awaited, "cr_frame", None)) is not None:
        frames.append((frame, frame.f_lineno))
        awaited = awaited.cr_await
    return "".join(traceback.StackSummary.extract(iter(frames)).format())


class AsyncLane:
    """Runs calls as tasks of one asyncio loop, which has a thread of its own."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.loop = asyncio.new_event_loop()
        self.tasks: dict[asyncio.Task[None], Call] = {}
        self.thread = threading.Thread(target=self.loop.run_forever, name="rainband-async", daemon=True)
        self.thread.start()

    def stack(self, component: str) -> str:
        under_way = [task for task, call in list(self.tasks.items()) if call.component == component]
        return "\n".join(stack_of(task) for task in under_way[:STACKS_MAX])

    def submit(self, call: Call) -> None:
        self.loop.call_soon_threadsafe(self._begin, call)

    def _begin(self, call: Call) -> None:
        task = self.loop.create_task(run_call(call, self.results))
        self.tasks[task] = call
        task.add_done_callback(self.tasks.pop)

    def cancel(self) -> None:
        async def end() -> None:
            working = cancel_work(self.tasks)
            if working:
                await asyncio.wait(working, timeout=CANCEL_S)

        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(end(), self.loop).result(2 * CANCEL_S)

    def close(self) -> None:
        def stop() -> None:
            for task in self.tasks:
                task.cancel()
            self.loop.call_soon(self.loop.stop)

        self.loop.call_soon_threadsafe(stop)
        self.thread.join(timeout=2.0)
        if not self.thread.is_alive():
            self.loop.close()

    def deadline(self) -> float:
        return float("inf")

    def advance(self) -> None:
        pass


@contextlib.contextmanager
def outside_of_loops() -> Iterator[None]:
    """Let a loop run inside a callback of another: a test may itself be a coroutine."""
    outer = asyncio._get_running_loop()
    if outer is None:
        yield
        return
    task = asyncio.current_task(outer)
    if task is not None:
        asyncio.tasks._leave_task(outer, task)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)
        if task is not None:
            asyncio.tasks._enter_task(outer, task)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose time is a clock's, and which only runs what is due when told to.

    `ahead`: seconds by which its time was moved on while the clock stood still.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.virtual = clock
        self.ahead = 0.0
        self.threads = 0

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        """As ever, but counted: what a thread does takes real time."""
        future = super().run_in_executor(executor, func, *args)
        self.threads += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: Any) -> None:
        self.threads -= 1

    @property
    def outside(self) -> bool:
        """Whether a socket is open or a thread at work, so that something may come that no clock can tell."""
        return self.threads > 0 or len(self._selector.get_map()) > 1  # type: ignore[attr-defined]

    def wait_outside(self, timeout_s: float) -> bool:
        """Wait, in real time, until something comes from outside."""
        events = self._selector.select(timeout_s)  # type: ignore[attr-defined]
        self._process_events(events)  # type: ignore[attr-defined]
        return bool(events)

    def time(self) -> float:
        return self.virtual.now() + self.ahead

    def run_due(self) -> None:
        """Run everything that is ready now, without waiting."""
        with outside_of_loops():
            for _ in range(10_000):
                self.call_soon(self.stop)
                self.run_forever()
                scheduled = self._scheduled  # type: ignore[attr-defined]
                due = scheduled and scheduled[0]._when <= self.time()
                if not self._ready and not due:  # type: ignore[attr-defined]
                    return

    def next_due(self) -> float:
        scheduled = [handle._when for handle in self._scheduled if not handle._cancelled]  # type: ignore[attr-defined]
        return min(scheduled, default=float("inf"))

    def skip(self) -> bool:
        """Move on to what is due next, and run it; false when there is nothing."""
        due = self.next_due()
        if due == float("inf"):
            return False
        self.ahead += max(0.0, due - self.time())
        self.run_due()
        return True


class VirtualLane:
    """Runs calls at once in the caller's thread; a coroutine goes on when its virtual time has come.

    Sockets and threads know nothing of virtual time. While a call may be waiting for one of them, whoever moves the
    clock lets as much real time pass, until nothing has come for SILENCE_S.
    """

    def __init__(self, results: Results, clock: Clock) -> None:
        self.results = results
        self.loop = VirtualLoop(clock)
        self.tasks: dict[asyncio.Task[None], Call] = {}
        self.patience_s = SILENCE_S

    def stack(self, component: str) -> str:
        return "\n".join(stack_of(task) for task, call in self.tasks.items() if call.component == component)

    def submit(self, call: Call) -> None:
        task = self.loop.create_task(run_call(call, self.results))
        self.tasks[task] = call
        task.add_done_callback(self._done)
        self.loop.run_due()

    def cancel(self) -> None:
        cancel_work(self.tasks)
        self.loop.run_due()

    def _done(self, task: asyncio.Task[None]) -> None:
        del self.tasks[task]
        self.patience_s = SILENCE_S

    def advance(self) -> None:
        self.loop.run_due()

    def wait_outside(self, timeout_s: float) -> bool:
        """Let real time pass if a call may be waiting for something outside; true when something came."""
        if not self.tasks or self.patience_s <= 0.0 or not self.loop.outside:
            return False
        came = self.loop.wait_outside(min(timeout_s, self.patience_s))
        self.patience_s = SILENCE_S if came else self.patience_s - timeout_s
        self.loop.run_due()
        return came

    def wait_for(self, call: Call) -> bool:
        """Let a call that somebody waits for come to its end; false when it never will. Takes no virtual time."""
        done = call.done
        assert done is not None
        for _ in range(STEPS_MAX):
            if done.is_set() or not (self.wait_outside(SILENCE_S) or self.loop.skip()):
                break
        return done.is_set()

    def deadline(self) -> float:
        return self.loop.next_due() - self.loop.ahead

    def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        self.loop.run_due()
        self.loop.close()
