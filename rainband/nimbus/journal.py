"""The line in Nimbus's log for each command that it carried out."""

from __future__ import annotations

from rainband.records import Activate, Deactivate, Done, Kill, Rebalance, Request, Response, Submit, TopologySummary


def line(request: Request, response: Response, after: Response) -> str:
    """What was done with which topology; '' for what changes none, or was refused.

    `after` is how the topology stands now: a TopologySummary, or a Failure when it is gone already.
    """
    if not isinstance(response, Done):
        return ""
    what = response.topology_id
    left_s = after.due_s if isinstance(after, TopologySummary) else None
    limit = f", within {left_s:.1f} s" if left_s is not None else ""
    match request:
        case Submit() if isinstance(after, TopologySummary):
            size = f"{counted(after.workers, 'worker')}, {counted(after.executors, 'executor')}"
            return f"{what} submitted: {size}, {after.status}" + (f"; {response.note}" if response.note else "")
        case Kill() if response.note:
            return f"{what} killed: {response.note}"
        case Kill():
            return f"{what} killed: ends when nothing is pending{limit}"
        case Rebalance(workers=workers, parallelism=parallelism):
            wanted = [counted(workers, "worker")] if workers is not None else []
            wanted += [f"{component}={count}" for component, count in sorted(parallelism.items())]
            return f"{what} rebalanced to {', '.join(wanted) or 'the same'}: moves when nothing is pending{limit}"
        case Activate():
            return f"{what} activated"
        case Deactivate():
            return f"{what} deactivated"
    return ""


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
