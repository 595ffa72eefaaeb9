"""A grouping of one's own: the two busiest customers have a task each, all others share the rest.

    rainband local examples/custom_grouping.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rainband import Bolt, CustomGrouping, Spout, TopologyBuilder, TopologyContext, Tuple, stable_hash

BUSY = ("acme", "globex")
SALES = [("acme", 5), ("initech", 1), ("globex", 4), ("acme", 6), ("umbrella", 2), ("globex", 3), ("initech", 2)]


class ByImportance(CustomGrouping):
    """Customers in `busy` go to the first tasks, one each; equal names of others always to one of the others."""

    def __init__(self, busy: Sequence[str]) -> None:
        self.busy = {name: number for number, name in enumerate(busy)}

    def prepare(self, context: TopologyContext, tasks: Sequence[int]) -> None:
        if len(tasks) <= len(self.busy):
            raise ValueError(f"{len(self.busy)} busy customers and the rest need {len(self.busy) + 1} tasks")
        self.tasks = list(tasks)

    def choose_tasks(self, values: Sequence[object]) -> Sequence[int]:
        customer = values[0]
        number = self.busy.get(str(customer))
        if number is None:
            rest = len(self.tasks) - len(self.busy)
            number = len(self.busy) + stable_hash(customer) % rest
        return [self.tasks[number]]


class Sales(Spout):
    outputs = ("customer", "units")

    def open(self, context: TopologyContext) -> None:
        self.rows = iter(enumerate(SALES))

    def next_tuple(self) -> None:
        row = next(self.rows, None)
        if row is None:
            self.finish()
        else:
            number, sale = row
            self.emit(sale, message_id=number)


class Account(Bolt):
    outputs = ("task", "customer", "units")

    def prepare(self, context: TopologyContext) -> None:
        self.task = context.task_index
        self.units: Counter[str] = Counter()

    def execute(self, tup: Tuple) -> None:
        self.units[tup["customer"]] += tup["units"]
        self.emit([self.task, tup["customer"], self.units[tup["customer"]]])


class Show(Bolt):
    def execute(self, tup: Tuple) -> None:
        print("task {}: {} has bought {}".format(*tup))


builder = TopologyBuilder("custom-grouping")
builder.set_spout("sales", Sales())
builder.set_bolt("account", Account(), parallelism=4).custom_grouping("sales", ByImportance(BUSY))
builder.set_bolt("show", Show()).global_grouping("account")
topology = builder.create_topology()
