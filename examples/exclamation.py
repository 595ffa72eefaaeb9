"""The smallest topology with two bolts in a row: words, and what two exclaimers make of them.

    rainband local examples/exclamation.py
"""

from __future__ import annotations

from rainband import Bolt, Spout, TopologyBuilder, TopologyContext, Tuple

WORDS = ("nathan", "mike", "jackson", "golda", "bertels")


class Words(Spout):
    """Each word `times` times, without a message id: nobody asks what becomes of them."""

    outputs = ("word",)

    def __init__(self, times: int) -> None:
        self.times = times

    def open(self, context: TopologyContext) -> None:
        self.left = list(WORDS) * self.times

    def next_tuple(self) -> None:
        if self.left:
            self.emit([self.left.pop(0)], message_id=None)
        else:
            self.finish()


class Exclaim(Bolt):
    outputs = ("word",)

    def execute(self, tup: Tuple) -> None:
        self.emit([tup["word"] + "!!!"])


class Say(Bolt):
    def execute(self, tup: Tuple) -> None:
        print(tup["word"])


builder = TopologyBuilder("exclamation")
builder.set_spout("words", Words(times=2))
builder.set_bolt("once", Exclaim(), parallelism=3).shuffle_grouping("words")
builder.set_bolt("twice", Exclaim(), parallelism=2).shuffle_grouping("once")
builder.set_bolt("say", Say()).global_grouping("twice")
topology = builder.create_topology()
