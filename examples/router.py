"""A router that names the very task: each job goes to the machine with the least work in front of it.

A DirectStream is emitted to with `emit_direct(task, ...)`, and read with `direct_grouping`.

    rainband local examples/router.py
"""

from __future__ import annotations

from rainband import Bolt, DirectStream, Spout, TopologyBuilder, TopologyContext, Tuple

MINUTES = (50, 10, 10, 10, 30, 5, 45, 20, 15, 5)


class Jobs(Spout):
    outputs = ("job", "minutes")

    def open(self, context: TopologyContext) -> None:
        self.jobs = enumerate(MINUTES)

    def next_tuple(self) -> None:
        job, minutes = next(self.jobs, (-1, 0))
        if job < 0:
            self.finish()
        else:
            self.emit([job, minutes], message_id=job)


class Route(Bolt):
    outputs = {"work": DirectStream("job", "minutes")}

    def prepare(self, context: TopologyContext) -> None:
        self.load = dict.fromkeys(context.tasks("machine"), 0)

    def execute(self, tup: Tuple) -> None:
        task = min(self.load, key=lambda task: (self.load[task], task))
        self.load[task] += tup["minutes"]
        self.emit_direct(task, tup.values, stream="work")


class Machine(Bolt):
    outputs = ("machine", "job", "done_at")

    def prepare(self, context: TopologyContext) -> None:
        self.name = f"machine-{context.task_index + 1}"
        self.minutes = 0

    def execute(self, tup: Tuple) -> None:
        self.minutes += tup["minutes"]
        self.emit([self.name, tup["job"], self.minutes])


class Show(Bolt):
    def execute(self, tup: Tuple) -> None:
        print(f"{tup['machine']} finishes job {tup['job']} after {tup['done_at']} minutes")


builder = TopologyBuilder("router")
builder.set_spout("jobs", Jobs())
builder.set_bolt("route", Route()).global_grouping("jobs")
builder.set_bolt("machine", Machine(), parallelism=3).direct_grouping("route", stream="work")
builder.set_bolt("show", Show()).global_grouping("machine")
topology = builder.create_topology()
