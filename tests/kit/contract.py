"""A source of words, a sink, and a topology of one bolt between them."""

from __future__ import annotations

from typing import Any

from rainband import (
    Bolt,
    Spout,
    Topology,
    TopologyBuilder,
    Tuple,
)


class Words(Spout):
    outputs = ("word",)

    def __init__(self, *words: Any) -> None:
        self.words = list(words)

    def next_tuple(self) -> None:
        if self.words:
            word = self.words.pop(0)
            self.emit([word], message_id=word)
        else:
            self.finish()


class Sink(Bolt):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def execute(self, tup: Tuple) -> None:
        self.seen.append(tup.values)


def one_bolt(bolt: Any, *words: Any, config: dict[str, Any] | None = None, sink: bool = False) -> Topology:
    builder = TopologyBuilder("one-bolt")
    builder.set_spout("words", Words(*(words or ("a", "b"))))
    builder.set_bolt("bolt", bolt, config=config).shuffle_grouping("words")
    if sink:
        builder.set_bolt("sink", Sink()).shuffle_grouping("bolt")
    return builder.create_topology()
