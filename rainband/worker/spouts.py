"""The loop that calls a spout: acks and fails handed back, then `next_tuple` while it may emit.

A raise in `next_tuple`, `ack` or `fail` pauses that spout for 1, 2, 4 ... 60 s. Counts are exact.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from mypy_extensions import i64, mypyc_attr

from rainband.acker.ledger import Tree
from rainband.worker.emit import SpoutEmitter
from rainband.worker.returned import check_returned
from rainband.worker.routes import Waiter
from rainband.worker.tasks import PIECES, SLOW_CALL_S, TURN_S, OnError, adapted

PAUSE_MAX_S: Final = 60.0

FAILED: Final = 0
TIMED_OUT: Final = 1
LOST: Final = 2


@mypyc_attr(allow_interpreted_subclasses=True)
class SpoutTask(Waiter):
    """One spout task: hands back acks and fails, then calls `next_tuple` while window, gate and budget allow.

    `whys` go with `undone`: what the failing bolt said, or ''; `why` is that of the fail being handed back.

    `pace_s` > 0 (virtual time, which user code does not take by itself): one call in every `pace_s` seconds.
    """

    def __init__(
        self,
        task: int,
        clock: Callable[[], float],
        emitter: SpoutEmitter,
        next_tuple: Callable[[], object],
        ack: Callable[[object], object],
        fail: Callable[[object, int], object],
        wait_s: float,
    ) -> None:
        Waiter.__init__(self, emitter.gate)
        self.task = task
        self.clock = clock
        self.emitter = emitter
        self.next_tuple = next_tuple
        self.on_ack = ack
        self.on_fail = fail
        self.wait_s = wait_s
        self.done: list[object] = []
        self.undone: deque[tuple[object, int]] = deque()
        self.whys: deque[str] = deque()
        self.why = ""
        self.window: i64 = 16
        self.active = False
        self.finished = False
        self.idle_until = 0.0
        self.sleep_until = 0.0
        self.paused_until = 0.0
        self.budget: i64 = 64
        self.pause_s = 0.0
        self.pace_s = 0.0
        self.acked: i64 = 0
        self.failed: i64 = 0
        self.timed_out: i64 = 0
        self.complete_s = 0.0
        self.calls: i64 = 0
        self.limited = False
        self.slow_s = 0.0
        self.on_error: OnError | None = None

    def error(self, error: BaseException) -> None:
        """Record, and pause this spout for 1, 2, 4 ... 60 s."""
        self.pause_s = 1.0 if self.pause_s == 0.0 else min(PAUSE_MAX_S, 2 * self.pause_s)
        self.paused_until = self.emitter.agenda.now + self.pause_s
        on_error = self.on_error
        if on_error is not None:
            on_error(self.task, error, None)

    def finish(self) -> None:
        """Nothing more will come from this task; acks, fails and replays go on."""
        self.finished = True

    def wanted_at(self) -> float:
        """When the next turn is wanted, if nothing comes in before."""
        return max(self.idle_until, self.paused_until)

    def settle(self, tree: Tree, done: bool, reason: int, now: float) -> None:
        """The verdict on one of this task's trees; `reason` is FAILED, TIMED_OUT or LOST."""
        message_id = tree.message_id
        tree.message_id = None
        if done:
            self.acked += 1
            self.complete_s += now - tree.started
            self.done.append(message_id)
        else:
            self.failed += 1
            if reason == TIMED_OUT:
                self.timed_out += 1
            self.undone.append((message_id, reason))
            self.whys.append(self.emitter.agenda.whys.pop(int(tree.root), ""))

    def hand_back(self) -> bool:
        """Call ack and fail for what is settled; true if there was any."""
        emitter = self.emitter
        at_once = emitter.acked_at_once
        if at_once:
            emitter.acked_at_once = []
            self.acked += len(at_once)
            self.done.extend(at_once)
        if not self.done and not self.undone:
            return False
        emitter.active = True
        while self.done:
            done = self.done
            self.done = []
            for message_id in done:
                try:
                    result = self.on_ack(message_id)
                    if result is not None:
                        check_returned(emitter.component, "ack", result)
                except BaseException as error:
                    self.error(error)
        while self.undone:
            message_id, reason = self.undone.popleft()
            self.why = self.whys.popleft()
            try:
                result = self.on_fail(message_id, reason)
                if result is not None:
                    check_returned(emitter.component, "fail", result)
            except BaseException as error:
                self.error(error)
        emitter.active = False
        return True

    def run(self, budget: i64, now: float) -> bool:
        """One turn; true when it may have more to do at once."""
        if self.hand_back():
            self.idle_until = 0.0
        if self.finished or not self.active or now < self.paused_until or now < self.idle_until:
            return False
        emitter = self.emitter
        pending = emitter.pending
        gate = self.gate
        next_tuple = self.next_tuple
        begin = self.clock()
        emitter.agenda.now = begin  # roots begin no earlier than the call that emits them
        calls: i64 = 0
        more = True
        emitter.active = True
        if self.budget < budget:
            budget = self.budget
        if self.pace_s > 0.0:
            budget = 1
            self.paused_until = now + self.pace_s
        look: i64 = 1
        while calls < budget:
            if calls == look:  # after 1, 8, 64 ... calls: they may be slow
                look *= PIECES
                if self.clock() - begin > TURN_S:
                    break
            if gate.blocked > 0:
                more = False
                break
            if pending.size >= self.window:
                self.limited = True
                more = False
                break
            before = emitter.begun
            calls += 1
            try:
                result = next_tuple()
                if result is not None:
                    check_returned(emitter.component, "next_tuple", result)
            except BaseException as error:
                self.error(error)
                more = False
                break
            self.pause_s = 0.0
            if emitter.begun == before:
                self.idle_until = max(now + self.wait_s, self.sleep_until)
                more = False
                break
            if self.finished:
                more = False
                break
        emitter.active = False
        self.calls += calls
        if calls > 0:
            spent = self.clock() - begin
            self.budget = adapted(self.budget, calls, spent)
            if spent > SLOW_CALL_S:
                self.slow_s = max(self.slow_s, spent / int(calls))
        if emitter.acked_at_once:
            more = True
        return more
