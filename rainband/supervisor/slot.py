"""The life of one slot as a pure state machine: frozen state and event in, frozen state and actions out.

    EMPTY        nobody wants a worker here
    LOCALIZING   the topology's code is on its way (or is retried at `due`)
    STARTING     a process exists, or is about to; not every open and prepare has returned
    RUNNING      the worker said that it runs
    BACKING_OFF  it died too often too soon: started again at `due`
    STOPPING     told to go; SIGTERM, then SIGKILL of its process group follow if it does not
    BLOCKED      somebody else's process holds the port; looked at again at `due`

`step` looks (state, type of event) up in one table. A pair that is not there raises IllegalEvent and changes nothing.
Events that tell of another process than the slot's, or of another topology than the wanted one, are late news: they
are dropped before the table is asked. `now` is monotonic seconds. A slot never holds two processes: StartWorker is
asked for only in states without a pid, and only `Exited` removes one.

A worker that dies is started again at once when it had lived for `healthy_s`, or was killed from outside while it
ran; otherwise the first time at once, then after 1, 2, 4 … `backoff_max_s` seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any


class State(StrEnum):
    EMPTY = "EMPTY"
    LOCALIZING = "LOCALIZING"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    BACKING_OFF = "BACKING_OFF"
    STOPPING = "STOPPING"
    BLOCKED = "BLOCKED"


class IllegalEvent(AssertionError):
    """The shell handed a slot an event that cannot happen in its state: our own bug."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Durations in seconds. `shutdown_s` is the time a worker gets between being told to stop and SIGKILL."""

    start_timeout_s: float = 120.0
    shutdown_s: float = 3.0
    healthy_s: float = 60.0
    settled_s: float = 5.0
    backoff_max_s: float = 60.0
    blocked_retry_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Slot:
    """`wanted` is the topology that belongs here, `topology` the one whose process `pid` (0 = none) is here."""

    port: int
    state: State = State.EMPTY
    wanted: str | None = None
    topology: str | None = None
    pid: int = 0
    started_at: float = 0.0
    due: float = math.inf
    crashes: int = 0
    restarts: int = 0
    failures: int = 0
    terminated: bool = False
    killed: bool = False
    cause: str = ""


# Events: what the shell has seen.


@dataclass(frozen=True, slots=True)
class Wanted:
    """The assignment says which topology belongs on this slot now (None = none)."""

    topology: str | None


@dataclass(frozen=True, slots=True)
class Adopted:
    """A worker of ours from before the supervisor's restart was found alive."""

    topology: str
    pid: int


@dataclass(frozen=True, slots=True)
class Localized:
    topology: str


@dataclass(frozen=True, slots=True)
class LocalizeFailed:
    topology: str
    reason: str


@dataclass(frozen=True, slots=True)
class Started:
    pid: int


@dataclass(frozen=True, slots=True)
class StartFailed:
    reason: str


@dataclass(frozen=True, slots=True)
class PortTaken:
    """A process that is not ours listens on the port; `holder` describes it."""

    holder: str


@dataclass(frozen=True, slots=True)
class PortFree:
    pass


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker says that every open and prepare has returned."""

    pid: int


@dataclass(frozen=True, slots=True)
class Exited:
    """The process is gone. `from_outside`: by a signal that it did not cause itself.

    `never_ran`: it ended before it took anything, so nothing was lost with it.
    """

    pid: int
    cause: str
    from_outside: bool = False
    never_ran: bool = False


@dataclass(frozen=True, slots=True)
class Stalled:
    """Liveness has given the worker up."""

    pid: int
    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    pass


LAUNCHED = (Started, StartFailed, PortTaken)

Event = (
    Wanted | Adopted | Localized | LocalizeFailed | Started | StartFailed | PortTaken | PortFree | Ready | Exited
    | Stalled | Tick
)


# Actions: what the shell has to do, in this order.


@dataclass(frozen=True, slots=True)
class Localize:
    """Bring the topology's code here, then say Localized or LocalizeFailed."""

    topology: str


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Start a process, then say Started, StartFailed or PortTaken before any other event."""

    topology: str
    attempt: int


@dataclass(frozen=True, slots=True)
class AskStop:
    """Tell the worker to finish what it holds and go."""

    pid: int


@dataclass(frozen=True, slots=True)
class Terminate:
    """SIGTERM to the worker."""

    pid: int


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL to the worker's process group."""

    pid: int


@dataclass(frozen=True, slots=True)
class CheckPort:
    """Look whether the port is free, then say PortFree or PortTaken."""


@dataclass(frozen=True, slots=True)
class AnnounceGone:
    """Tell the worker's peers that it died, so that they fail what it held.

    Not after a planned stop: there the new assignment tells them, and what they hold by then is not the worker's.
    Nor after a start that failed: what they have for this slot waits for its successor, nobody replays.
    """

    topology: str


@dataclass(frozen=True, slots=True)
class Report:
    """One line for the log."""

    text: str


Action = Localize | StartWorker | AskStop | Terminate | Kill | CheckPort | AnnounceGone | Report
Step = tuple[Slot, tuple[Action, ...]]


def step(slot: Slot, event: Event, now: float, limits: Limits = Limits()) -> Step:
    """The slot after `event`, and what to do about it. Raises IllegalEvent for a pair the table does not hold."""
    if _late(slot, event):
        return slot, ()
    transition = TABLE.get((slot.state, type(event)))
    launching = slot.state is State.STARTING and slot.pid == 0
    if transition is None or (slot.state is State.STARTING and launching is not isinstance(event, LAUNCHED)):
        raise IllegalEvent(f"{type(event).__name__} cannot happen to a slot that is {slot.state}")
    return transition(slot, event, now, limits)


def _late(slot: Slot, event: Event) -> bool:
    match event:
        case Ready(pid=pid) | Exited(pid=pid) | Stalled(pid=pid):
            return pid != slot.pid
        case Localized(topology=topology) | LocalizeFailed(topology=topology):
            return slot.state is not State.LOCALIZING or topology != slot.wanted
        case Wanted(topology=topology):
            return topology == slot.wanted
        case PortFree():
            return slot.state is not State.BLOCKED
    return False


def _nothing(slot: Slot, event: Any, now: float, limits: Limits) -> Step:
    return slot, ()


def _fresh(slot: Slot) -> Slot:
    """The same slot without a process and without a past."""
    return Slot(slot.port, wanted=slot.wanted)


def _settle(slot: Slot) -> Step:
    """A slot without a process goes where `wanted` sends it."""
    slot = _fresh(slot)
    if slot.wanted is None:
        return slot, ()
    return replace(slot, state=State.LOCALIZING), (Localize(slot.wanted),)


def _want(slot: Slot, event: Wanted, now: float, limits: Limits) -> Step:
    return _settle(replace(slot, wanted=event.topology))


def _want_later(slot: Slot, event: Wanted, now: float, limits: Limits) -> Step:
    return replace(slot, wanted=event.topology), ()


def _want_other(slot: Slot, event: Wanted, now: float, limits: Limits) -> Step:
    assert slot.pid
    slot = replace(slot, state=State.STOPPING, wanted=event.topology, due=now + limits.shutdown_s / 2)
    return slot, (Report(f"worker {slot.pid} of {slot.topology} is no longer wanted here"), AskStop(slot.pid))


def _adopt(slot: Slot, event: Adopted, now: float, limits: Limits) -> Step:
    wanted, pid = event.topology, event.pid
    slot = Slot(slot.port, State.RUNNING, wanted, wanted, pid, started_at=now)
    return slot, (Report(f"adopted worker {pid} of {wanted}"),)


def _localized(slot: Slot, event: Localized, now: float, limits: Limits) -> Step:
    return _start(replace(slot, topology=slot.wanted))


def _localize_failed(slot: Slot, event: LocalizeFailed, now: float, limits: Limits) -> Step:
    wait = _backoff(slot.failures + 1, limits)
    slot = replace(slot, failures=slot.failures + 1, due=now + wait, cause=event.reason)
    return slot, (Report(f"{event.topology} could not be brought here: {event.reason}; again in {wait:g} s"),)


def _localize_again(slot: Slot, event: Tick, now: float, limits: Limits) -> Step:
    if now < slot.due:
        return slot, ()
    assert slot.wanted is not None
    return replace(slot, state=State.LOCALIZING, due=math.inf), (Localize(slot.wanted),)


def _start(slot: Slot) -> Step:
    assert slot.topology is not None
    assert slot.pid == 0
    return replace(slot, state=State.STARTING, due=math.inf), (StartWorker(slot.topology, slot.restarts + 1),)


def _started(slot: Slot, event: Started, now: float, limits: Limits) -> Step:
    assert slot.pid == 0
    slot = replace(slot, pid=event.pid, started_at=now, due=now + limits.start_timeout_s, failures=0, killed=False)
    return slot, ()


def _start_failed(slot: Slot, event: StartFailed, now: float, limits: Limits) -> Step:
    crashes = slot.crashes + 1
    wait = _backoff(crashes, limits)
    slot = replace(slot, state=State.BACKING_OFF, crashes=crashes, due=now + wait, cause=event.reason)
    return slot, (Report(f"worker of {slot.topology} could not be started: {event.reason}; again in {wait:g} s"),)


def _blocked(slot: Slot, event: PortTaken, now: float, limits: Limits) -> Step:
    blocked = replace(slot, state=State.BLOCKED, due=now + limits.blocked_retry_s, cause=event.holder)
    news = () if blocked.cause == slot.cause else (Report(f"port {slot.port} is blocked by {event.holder}"),)
    return blocked, news


def _look_again(slot: Slot, event: Tick, now: float, limits: Limits) -> Step:
    if now < slot.due:
        return slot, ()
    return replace(slot, due=now + limits.blocked_retry_s), (CheckPort(),)


def _unblocked(slot: Slot, event: PortFree, now: float, limits: Limits) -> Step:
    slot, actions = _settle(slot)
    return slot, (Report(f"port {slot.port} is free again"), *actions)


def _ready(slot: Slot, event: Ready, now: float, limits: Limits) -> Step:
    return replace(slot, state=State.RUNNING, due=math.inf, cause=""), ()


def _start_timeout(slot: Slot, event: Tick, now: float, limits: Limits) -> Step:
    if now < slot.due:
        return slot, ()
    return _give_up(slot, f"its open and prepare did not return within {limits.start_timeout_s:g} s")


def _stalled(slot: Slot, event: Stalled, now: float, limits: Limits) -> Step:
    return (slot, ()) if slot.killed else _give_up(slot, event.reason)


def _give_up(slot: Slot, reason: str) -> Step:
    slot = replace(slot, due=math.inf, killed=True, cause=reason)
    return slot, (Report(f"worker {slot.pid} of {slot.topology} is given up: {reason}"), Kill(slot.pid))


def _died(slot: Slot, event: Exited, now: float, limits: Limits) -> Step:
    assert slot.topology is not None
    cause = slot.cause if slot.killed else event.cause
    lived = now - slot.started_at
    ran = slot.state is State.RUNNING
    forgiven = lived >= limits.healthy_s or (ran and event.from_outside and lived >= limits.settled_s)
    before = 0 if forgiven else slot.crashes
    wait = _backoff(before, limits) if before else 0.0
    gone = () if event.never_ran else (AnnounceGone(slot.topology),)
    told = Report(f"worker {slot.pid} of {slot.topology} died after {lived:.1f} s: {cause}; again in {wait:g} s")
    slot = replace(slot, pid=0, crashes=before + 1, restarts=slot.restarts + 1, killed=False, cause=cause)
    if wait > 0:
        slot = replace(slot, state=State.BACKING_OFF, due=now + wait)
        return slot, (*gone, told)
    slot, actions = _start(slot)
    return slot, (*gone, told, *actions)


def _stopped(slot: Slot, event: Exited, now: float, limits: Limits) -> Step:
    text = f"worker {slot.pid} of {slot.topology} stopped: {event.cause}"
    slot, actions = _settle(slot)
    return slot, (Report(text), *actions)


def _press(slot: Slot, event: Tick, now: float, limits: Limits) -> Step:
    """A worker that was asked to stop and is still here: SIGTERM first, then SIGKILL until it is gone."""
    if now < slot.due:
        return slot, ()
    if slot.terminated:
        return replace(slot, due=now + 1.0, killed=True), (Kill(slot.pid),)
    slot = replace(slot, due=now + limits.shutdown_s / 2, terminated=True)
    return slot, (Terminate(slot.pid),)


def _backoff(crashes: int, limits: Limits) -> float:
    """1, 2, 4 … seconds for the 1st, 2nd, 3rd … crash in a row."""
    return float(min(2 ** min(crashes - 1, 30), limits.backoff_max_s))


Transition = Callable[[Slot, Any, float, Limits], Step]

TABLE: dict[tuple[State, type], Transition] = {
    (State.EMPTY, Wanted): _want,
    (State.EMPTY, Adopted): _adopt,
    (State.EMPTY, PortTaken): _blocked,
    (State.EMPTY, Tick): _nothing,
    (State.LOCALIZING, Wanted): _want,
    (State.LOCALIZING, Localized): _localized,
    (State.LOCALIZING, LocalizeFailed): _localize_failed,
    (State.LOCALIZING, Tick): _localize_again,
    (State.STARTING, Wanted): _want_other,
    (State.STARTING, Started): _started,
    (State.STARTING, StartFailed): _start_failed,
    (State.STARTING, PortTaken): _blocked,
    (State.STARTING, Ready): _ready,
    (State.STARTING, Exited): _died,
    (State.STARTING, Stalled): _stalled,
    (State.STARTING, Tick): _start_timeout,
    (State.RUNNING, Wanted): _want_other,
    (State.RUNNING, Ready): _nothing,
    (State.RUNNING, Exited): _died,
    (State.RUNNING, Stalled): _stalled,
    (State.RUNNING, Tick): _nothing,
    (State.BACKING_OFF, Wanted): _want,
    (State.BACKING_OFF, Tick): _localize_again,
    (State.STOPPING, Wanted): _want_later,
    (State.STOPPING, Ready): _nothing,
    (State.STOPPING, Exited): _stopped,
    (State.STOPPING, Stalled): _nothing,
    (State.STOPPING, Tick): _press,
    (State.BLOCKED, Wanted): _want_later,
    (State.BLOCKED, PortTaken): _blocked,
    (State.BLOCKED, PortFree): _unblocked,
    (State.BLOCKED, Tick): _look_again,
}
