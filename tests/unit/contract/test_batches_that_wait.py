"""`topology.batch.timeout.ms`: a batch waits until it is full, but no longer than that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rainband import Bolt, ManualBolt, Spout, TopologyBuilder, Tuple
from rainband.testing import complete_topology


class Rows(Spout):
    outputs = ("n",)

    def next_tuple(self) -> None: ...


class Sizes(Bolt):
    outputs = ("size",)

    def execute_batch(self, tups: Sequence[Tuple]) -> None:
        self.emit([len(tups)])


class ManualSizes(ManualBolt):
    outputs = ("size",)

    def execute_batch(self, tups: Sequence[Tuple]) -> None:
        self.emit([len(tups)], anchors=list(tups))
        for tup in tups:
            self.ack(tup)


def sizes(bolt: Bolt, config: dict[str, Any]) -> list[int]:
    builder = TopologyBuilder("sizes")
    builder.set_spout("rows", Rows())
    builder.set_bolt("sizes", bolt, config=config).shuffle_grouping("rows")
    result = complete_topology(builder.create_topology(), sources={"rows": [[n] for n in range(25)]})
    assert len(result.acked("rows")) == 25
    return [size for (size,) in result.emitted("sizes")]


@pytest.mark.parametrize("bolt", [Sizes(), ManualSizes()], ids=["Bolt", "ManualBolt"])
def test_a_batch_waits_until_it_is_full_or_its_time_is_over(bolt: Bolt) -> None:
    """The rows come a millisecond apart."""
    assert sizes(bolt, {"topology.batch.size": 10, "topology.batch.timeout.ms": 200}) == [10, 10, 5]
    few = sizes(bolt, {"topology.batch.size": 100, "topology.batch.timeout.ms": 5})
    assert sum(few) == 25
    assert len(few) > 2
    assert max(few) > 1


def test_by_default_it_does_not_wait() -> None:
    assert max(sizes(Sizes(), {"topology.batch.size": 10})) < 10
