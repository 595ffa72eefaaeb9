"""Join two streams by a key: orders with their payments, whichever comes first.

A ManualBolt holds each tuple until its partner is there, anchors the result to both, and acks both. What waits for
longer than PATIENCE ticks is emitted as unmatched: a tuple must be acked or failed before its message times out.

    rainband local examples/join.py
"""

from __future__ import annotations

from rainband import Bolt, ManualBolt, Spout, TopologyBuilder, TopologyContext, Tuple

TICK_S = 0.2
PATIENCE = 3


class Rows(Spout):
    """Given rows, one after the other; the first field of a row is its message id."""

    def __init__(self, fields: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
        self.outputs = fields
        self.rows = rows

    def open(self, context: TopologyContext) -> None:
        self.left = iter(self.rows)

    def next_tuple(self) -> None:
        row = next(self.left, None)
        if row is None:
            self.finish()
        else:
            self.emit(row, message_id=row[0])


class Join(ManualBolt):
    """One task sees both sides of a key, because both streams come by fields grouping on it."""

    outputs = {"default": ("order", "item", "paid"), "unmatched": ("side", "order")}

    def prepare(self, context: TopologyContext) -> None:
        self.waiting: dict[tuple[str, object], Tuple] = {}
        self.since: dict[tuple[str, object], int] = {}
        self.ticks = 0

    def execute(self, tup: Tuple) -> None:
        mine = (tup.component, tup["order"])
        other = ("payments" if tup.component == "orders" else "orders", tup["order"])
        partner = self.waiting.pop(other, None)
        if partner is None:
            self.waiting[mine], self.since[mine] = tup, self.ticks
            return
        order, payment = (tup, partner) if tup.component == "orders" else (partner, tup)
        self.emit([order["order"], order["item"], payment["paid"]], anchors=[order, payment])
        self.ack(order)
        self.ack(payment)

    def tick(self) -> None:
        self.ticks += 1
        for key in [key for key in self.waiting if self.ticks - self.since[key] > PATIENCE]:
            tup = self.waiting.pop(key)
            self.emit(list(key), anchors=tup, stream="unmatched")
            self.ack(tup)


class Show(Bolt):
    def execute(self, tup: Tuple) -> None:
        print(", ".join(f"{name} {value}" for name, value in zip(tup.fields, tup.values, strict=True)))


ORDERS: list[tuple[object, ...]] = [(1, "tea"), (2, "rice"), (3, "salt"), (4, "jam")]
PAYMENTS: list[tuple[object, ...]] = [(3, 2.5), (1, 4.0), (9, 1.0), (2, 3.2)]

builder = TopologyBuilder("join")
builder.set_spout("orders", Rows(("order", "item"), ORDERS))
builder.set_spout("payments", Rows(("order", "paid"), PAYMENTS))
join = builder.set_bolt("join", Join(), parallelism=2, config={"topology.tick.tuple.freq.secs": TICK_S})
join.fields_grouping("orders", ["order"]).fields_grouping("payments", ["order"])
builder.set_bolt("show", Show()).global_grouping("join").global_grouping("join", stream="unmatched")
topology = builder.create_topology()
