"""A9: could what the clients were told have come from one Nimbus that did one thing after the other?

The search of Wing and Gong, per name of a topology: take any operation that no other one had ended before it began, see
whether what it was answered fits, go on; back and another one where it does not. What was never answered, or with an
error that leaves it open, may have been done at any time since, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rainband.records import (
    Activate,
    Deactivate,
    Done,
    Failure,
    Kill,
    Rebalance,
    Request,
    Response,
    Status,
    Submit,
    Topologies,
)

NEVER = float("inf")
SEARCH_MAX = 100_000
SURE = ("refused", "usage", "topology_exists", "topology_not_found", "not_enough_slots", "not_copied", "not_uploaded")
RUNNING = (Status.ACTIVE, Status.INACTIVE)
SET = {Activate: Status.ACTIVE, Deactivate: Status.INACTIVE}


@dataclass(eq=False)
class Operation:
    """What was asked at `begin` and answered at `end`; NEVER: it may have been done at any time, or not at all."""

    request: Request
    begin: float
    end: float = NEVER
    reply: Response | None = None

    def ends(self, reply: Response | None, now: float) -> None:
        if reply is None or (isinstance(reply, Failure) and reply.code not in SURE):
            return
        self.reply, self.end = reply, now

    @property
    def kind(self) -> type:
        return type(self.request)


@dataclass(frozen=True)
class Model:
    """A topology of a name; `topology_id` is '' when nobody was told. `token` is that of its Submit."""

    topology_id: str
    status: Status
    resume: Status = Status.ACTIVE
    token: str = ""


State = Model | None


def silent(state: State) -> list[State]:
    """The states it may have come to without being asked."""
    if state is None:
        return [None]
    if state.status is Status.REBALANCING:
        return [state, replace(state, status=state.resume)]
    return [state, None] if state.status is Status.KILLED else [state]


def after(state: State, operation: Operation, name: str) -> Iterator[State]:
    """The states after an operation that was answered as it was, done in `state`."""
    request, reply = operation.request, operation.reply
    if isinstance(reply, Topologies):
        yield from seen(state, reply, name)
    elif isinstance(reply, Done):
        new = done(state, request, reply.topology_id)
        if new is not None:
            yield new
    elif isinstance(reply, Failure):
        if fits(state, request, reply.code):
            yield state
    else:
        new = done(state, request, state.topology_id if state is not None else "")
        if new is not None:
            yield new


def seen(state: State, reply: Topologies, name: str) -> Iterator[State]:
    found = next((topology for topology in reply.topologies if topology.name == name), None)
    if found is None:
        if state is None:
            yield None
        return
    if state is None or state.topology_id not in ("", found.topology_id):
        return
    if found.status is state.status or (found.status is Status.WAITING and state.status in RUNNING):
        yield replace(state, topology_id=found.topology_id)


def done(state: State, request: Request, topology_id: str) -> State:
    """The state after `request` was carried out; None when that was impossible."""
    if state is None:
        return Model(topology_id, Status.ACTIVE, token=request.token) if isinstance(request, Submit) else None
    if state.topology_id not in ("", topology_id):
        return None
    known = replace(state, topology_id=topology_id)
    if isinstance(request, Submit):
        return known if request.token and request.token == state.token else None
    if isinstance(request, Kill):
        return replace(known, status=Status.KILLED)
    if state.status not in RUNNING:
        return None
    if isinstance(request, Rebalance):
        return replace(known, status=Status.REBALANCING, resume=state.status)
    return replace(known, status=SET[type(request)], resume=Status.ACTIVE)


def fits(state: State, request: Request, code: str) -> bool:
    """Whether `request` may be refused with `code` in `state`."""
    if code == "topology_exists":
        own = isinstance(request, Submit) and request.token != "" and state is not None and request.token == state.token
        return state is not None and not own
    if code == "topology_not_found":
        return state is None
    if isinstance(request, (Activate, Deactivate)) and code == "refused":
        return state is not None and state.status not in RUNNING
    return True


def linearizable(operations: list[Operation], name: str) -> bool:
    """Whether there is an order. True as well when there are too many orders to try."""
    todo = sorted(operations, key=lambda operation: operation.begin)
    answered = [number for number, operation in enumerate(todo) if operation.end != NEVER]
    known: set[tuple[frozenset[int], State]] = set()
    stack: list[tuple[frozenset[int], State]] = [(frozenset(), None)]
    while stack:
        key = stack.pop()
        taken, state = key
        if key in known:
            continue
        known.add(key)
        if len(known) > SEARCH_MAX or all(number in taken for number in answered):
            return True
        for number in candidates(todo, taken):
            for now in silent(state):
                for new in after(now, todo[number], name):
                    stack.append((taken | {number}, new))
    return False


def candidates(todo: list[Operation], taken: frozenset[int]) -> Iterator[int]:
    """Those that may come next: begun before any other that is left had ended. Of equal open ones only the first."""
    left = [number for number in range(len(todo)) if number not in taken]
    first_end = min(todo[number].end for number in left)
    open_kinds: set[type] = set()
    for number in left:
        operation = todo[number]
        if operation.begin > first_end:
            return
        if operation.end == NEVER:
            if operation.kind in open_kinds:
                continue
            open_kinds.add(operation.kind)
        yield number


def tell(operations: list[Operation], name: str) -> str:
    """The operations for people, with what lists said of `name`."""
    lines = []
    for operation in sorted(operations, key=lambda operation: operation.begin):
        reply = operation.reply
        said: object = reply
        if isinstance(reply, Topologies):
            said = next((f"{t.topology_id} {t.status}" for t in reply.topologies if t.name == name), "not there")
        lines.append(f"{operation.begin:.3f}..{operation.end:.3f} {operation.kind.__name__}: {said}")
    return "\n  " + "\n  ".join(lines)
