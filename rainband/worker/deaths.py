"""What the death of a peer means: whose trees may have passed through it, and who else has to hear of it.

The word is passed on to every peer, ahead of whatever is sent to them later. So on every way it travels before the
replays: a worker that heard of the death only after it had sent a replay to the dead would take that for lost, too.
"""

from __future__ import annotations

from collections.abc import Iterable

from rainband.messaging import frames
from rainband.messaging.frames import CONTROL
from rainband.messaging.links import Links
from rainband.topology.plan import Plan
from rainband.worker.books import Books


def spouts_through(plan: Plan, books: Books, tasks: frozenset[int]) -> frozenset[int]:
    """Spout tasks with a way to the component of one of `tasks`, or whose book one of them keeps."""
    lost = {plan.component_of[task] for task in tasks}
    return frozenset(
        task
        for ordinal, task in enumerate(books.spout_tasks)
        if plan.downstream(plan.component_of[task]) & lost or books.keeper_of(ordinal) in tasks
    )


def pass_on(links: Links, peers: Iterable[str], address: str, incarnation: int, age_s: float) -> None:
    """Tell all `peers` that the process `incarnation` at `address` is dead. It means nothing to those who know."""
    word = frames.gone(links.topology, links.incarnation, address, incarnation, age_s=age_s)
    for peer in peers:
        if peer != address:
            links.link(peer).send(CONTROL, word)
