"""When what is in the outboxes leaves: at once from a worker with nothing else to do, else in frames worth sending."""

from __future__ import annotations

from rainband.messaging.links import Links
from rainband.worker.books import Books
from rainband.worker.routes import Agenda, Outbox
from rainband.worker.transfer import Inbound, Outbound


class Dispatch:
    """Moves the outboxes (one for each peer's address) into the links, once per pass."""

    def __init__(
        self,
        agenda: Agenda,
        books: Books,
        links: Links,
        outboxes: dict[str, Outbox],
        inbound: Inbound,
        outbound: Outbound,
    ) -> None:
        self.agenda = agenda
        self.books = books
        self.links = links
        self.outboxes = outboxes
        self.inbound = inbound
        self.outbound = outbound

    def flush(self, busy: bool) -> None:
        """Tuples, then what settles as their trees are let go: those reports still leave with them.

        A `busy` worker lets small ones wait for more, for a few passes.
        """
        agenda = self.agenda
        if agenda.grants:
            self.flush_grants()
        held = [outbox for outbox in agenda.outboxes if outbox.hold()] if busy else []
        for outbox in agenda.outboxes[:]:
            if outbox.runs and outbox.address in self.outboxes and outbox not in held:
                link = self.links.link(outbox.address)
                self.outbound.send_tuples(outbox, link)
                outbox.choked = link.full
        self.books.settle()
        outboxes = agenda.outboxes
        agenda.outboxes = held
        for outbox in outboxes:
            if outbox in held:
                continue
            outbox.dirty = False
            if outbox.address in self.outboxes:
                self.outbound.send_reports(outbox, self.links.link(outbox.address))
                if outbox.runs:
                    outbox.mark()

    def flush_grants(self) -> None:
        """Into the outboxes; for a sender that this worker's assignment does not know yet, once it does."""
        waiting = []
        for line in self.agenda.grants:
            outbox = self.outboxes.get(line.sender)
            if outbox is not None:
                outbox.grants.append(line.task)
                outbox.grants.append(int(line.granted))
                outbox.mark()
            elif self.inbound.lines.get(line.sender, {}).get(line.task) is line:
                waiting.append(line)
        self.agenda.grants = waiting

    def unchoke(self, outbox: Outbox) -> None:
        """Let tuples on to a worker whose link had more bytes under way than it may, once it has room again."""
        outbox.choked = self.links.link(outbox.address).full
        if not outbox.choked:
            for target in list(self.agenda.overflowing.values()):
                if target.outbox is outbox:
                    target.drain()
