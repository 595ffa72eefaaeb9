"""The worker's account of itself, from its counters. Costs nothing between two beats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rainband.records import EdgeCount, LinkCount, StreamCount, TaskCount, WorkerBeat
from rainband.worker.emit import ManualEmitter
from rainband.worker.wiring import LocalTask

if TYPE_CHECKING:
    from rainband.worker.worker import Worker

PAGE_BYTES = 4096


def make_beat(worker: Worker, now: float) -> WorkerBeat:
    """The heartbeat of `worker`. Errors in it are handed over once."""
    worker.life.save_positions(list(worker.wiring.tasks.values()))
    tasks = tuple([task_count(worker, made) for _, made in sorted(worker.wiring.tasks.items())])
    in_flight = sum(task.queued for task in tasks) + worker.sides.in_flight
    in_flight += sum(len(target.overflow) for target in worker.agenda.overflowing.values())
    idle = in_flight == 0 and not has_unsent(worker) and not has_unsaid(worker)
    drained = (
        idle
        and all(link.idle for link in worker.links.links())
        and worker.raised is None
        and all(made.drained for made in worker.wiring.tasks.values())
    )
    counters = dict(worker.counters)
    counters.update(worker.links.counters())
    counters["late_reports"] = int(worker.books.late_reports)
    counters["refused_tuples"] = int(worker.inbound.refused)
    counters["received"] = int(worker.inbound.received)
    counters["sent"] = int(worker.outbound.sent)
    counters["passes"] = worker.passes
    return WorkerBeat(
        topology_id=worker.assignment.topology_id,
        port=worker.slot.port,
        pid=worker.pid,
        incarnation=worker.incarnation,
        version=worker.assignment.version,
        state=worker.state,
        uptime_s=now - worker.started,
        pending=worker.books.pending,
        in_flight=in_flight,
        idle=idle,
        drained=drained,
        paused=not worker.life.active,
        tasks=tasks,
        streams=stream_counts(worker),
        edges=edge_counts(worker, now),
        links=link_counts(worker),
        errors=worker.errors.take(),
        positions=worker.life.turns.take(worker.life.reached),
        leaving=worker.life.count_leaving(),
        epoch=worker.assignment.epoch,
        counters=counters,
    )


def has_unsent(worker: Worker) -> bool:
    """Whether something is still to be sent to a worker of the assignment."""
    by_address = worker.links.by_address
    links = [by_address[address] for address in worker.outboxes if address in by_address]
    return bool(worker.agenda.outboxes) or any(link.queued for link in links)


def has_unsaid(worker: Worker) -> bool:
    """Whether a spout is still to be told of a verdict."""
    return any(spout.done or spout.undone for spout in worker.books.spouts.values())


def link_counts(worker: Worker) -> tuple[LinkCount, ...]:
    """Of the links to the other workers of the assignment."""
    by_address = worker.links.by_address
    links = [by_address[address] for address in sorted(worker.outboxes) if address in by_address]
    return tuple([LinkCount(link.address, link.peer, link.next_seq - 1, link.received) for link in links])


def task_count(worker: Worker, made: LocalTask) -> TaskCount:
    """Exact counters of one task since its worker started."""
    errors = worker.errors.total.get(made.task, 0)
    if made.spout is not None:
        spout = made.spout
        book = made.reliable.book if made.reliable is not None else None
        return TaskCount(
            task=made.task,
            component=made.component,
            emitted=int(spout.emitter.emitted),
            transferred=int(spout.emitter.transferred),
            executed=int(spout.calls),
            acked=int(spout.acked),
            failed=int(spout.failed),
            timed_out=int(spout.timed_out),
            replayed=book.replayed if book is not None else 0,
            dead_letters=book.dead_letters if book is not None else 0,
            errors=errors,
            pending=len(spout.emitter.pending),
            tracked=int(spout.emitter.tracked),
            complete_s=spout.complete_s,
            finished=made.reliable.drained if made.reliable is not None else spout.finished,
        )
    bolt = made.bolt
    assert bolt is not None
    emitter = bolt.emitter
    acked, failed, second = int(bolt.acked), int(bolt.failed), 0
    if isinstance(emitter, ManualEmitter):
        acked, failed, second = int(emitter.acked), int(emitter.failed), int(emitter.second_acks)
    return TaskCount(
        task=made.task,
        component=made.component,
        emitted=int(emitter.emitted),
        transferred=int(emitter.transferred),
        executed=int(bolt.executed),
        acked=acked,
        failed=failed,
        errors=errors,
        queued=bolt.queued,
        second_acks=second,
        execute_s=bolt.execute_s,
    )


def stream_counts(worker: Worker) -> tuple[StreamCount, ...]:
    sums: dict[tuple[str, str], list[int]] = {}
    for made in worker.wiring.tasks.values():
        for stream, output in made.outputs.items():
            total = sums.setdefault((made.component, stream), [0, 0])
            total[0] += int(output.emitted)
            total[1] += int(output.transferred)
    return tuple([StreamCount(component, stream, *total) for (component, stream), total in sorted(sums.items())])


def edge_counts(worker: Worker, now: float) -> tuple[EdgeCount, ...]:
    counts = []
    for edges in worker.wiring.edges.values():
        for edge, _ in edges:
            blocked = edge.blocked_s
            if edge.full >= edge.threshold:
                blocked += now - edge.blocked_since
            if blocked > 0.0:
                counts.append(EdgeCount(edge.source, edge.stream, edge.consumer, blocked))
    return tuple(counts)
