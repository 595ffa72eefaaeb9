"""A bolt that fails now and then: what fails is replayed, and what fails every time becomes a dead letter.

    rainband local examples/dead_letters.py         (exit code 1: one row was given up)
"""

from __future__ import annotations

from rainband import Bolt, FailTuple, ReliableSpout, TopologyBuilder, TopologyContext, Tuple


class Amounts(ReliableSpout):
    """Amounts as text. The runtime replays what fails, 3 times at most, after 0.1, 0.2 and 0.4 s."""

    outputs = ("amount",)
    max_retries = 3
    retry_delay_s = 0.1

    def __init__(self, amounts: list[str]) -> None:
        self.amounts = amounts

    def open(self, context: TopologyContext) -> None:
        self.rows = enumerate(self.amounts)

    def next_tuple(self) -> None:
        number, amount = next(self.rows, (-1, ""))
        if number < 0:
            self.finish()
        else:
            self.emit([amount], message_id=number)


class Book(Bolt):
    """Adds up. Its ledger is locked every other time; a raise or a FailTuple fails the tuple, the worker lives."""

    outputs = ("total",)

    def prepare(self, context: TopologyContext) -> None:
        self.total = 0.0
        self.tried: set[str] = set()

    def execute(self, tup: Tuple) -> None:
        amount = tup["amount"]
        if amount not in self.tried:
            self.tried.add(amount)
            raise FailTuple("the ledger is locked")
        self.total += float(amount)
        self.emit([self.total])


class Morgue(Bolt):
    """Where the given-up rows go: every ReliableSpout has the stream `dead_letters`."""

    def execute(self, tup: Tuple) -> None:
        print(f"gave up {tup['values'][0]!r} after {tup['retries']} replays: {tup['reason']}")


class Total(Bolt):
    def execute(self, tup: Tuple) -> None:
        print(f"{tup['total']:10.2f}")


builder = TopologyBuilder("dead-letters")
builder.set_spout("amounts", Amounts(["12.50", "7.25", "seven", "80.00"]))
builder.set_bolt("book", Book()).global_grouping("amounts")
builder.set_bolt("total", Total()).global_grouping("book")
builder.set_bolt("morgue", Morgue()).global_grouping("amounts", stream="dead_letters")
topology = builder.create_topology()
