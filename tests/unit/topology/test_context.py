"""What a task learns of itself."""

from __future__ import annotations

import pytest

from rainband.errors import UsageError
from rainband.topology.builder import TopologyBuilder
from rainband.topology.components import Bolt, Spout
from rainband.topology.context import TopologyContext
from rainband.topology.plan import Plan
from rainband.topology.tuples import Tuple


class Lines(Spout):
    outputs = {"default": ("line",), "bad": ("why",)}

    def next_tuple(self) -> None: ...


class Count(Bolt):
    def execute(self, tup: Tuple) -> None: ...


@pytest.fixture
def plan() -> Plan:
    builder = TopologyBuilder("t", config={"topology.max.spout.pending": 5, "app": {"a": 1, "b": 1}})
    builder.set_spout("lines", Lines(), config={"topology.max.spout.pending": 7, "app": {"b": 2}})
    builder.set_bolt("count", Count(), tasks=4).shuffle_grouping("lines")
    return builder.create_topology().plan


def test_where_a_task_stands(plan: Plan) -> None:
    context = TopologyContext(plan, 3, (3, 4))
    assert (context.component, context.task_id, context.task_index) == ("count", 3, 2)
    assert context.tasks() == (1, 2, 3, 4)
    assert context.tasks("lines") == (5,)
    assert context.worker_tasks == (3, 4)
    assert context.fields("lines") == ("line",)
    assert context.fields("lines", "bad") == ("why",)


def test_component_settings_come_first_and_are_each_tasks_own(plan: Plan) -> None:
    spout, bolt = TopologyContext(plan, 5), TopologyContext(plan, 1)
    assert spout.config["topology.max.spout.pending"] == 7
    assert bolt.config["topology.max.spout.pending"] == 5
    assert spout.config["app"] == {"a": 1, "b": 2}
    bolt.config["app"]["a"] = 9
    assert TopologyContext(plan, 2).config["app"]["a"] == 1


def test_mistakes_are_named(plan: Plan) -> None:
    context = TopologyContext(plan, 1)
    with pytest.raises(UsageError, match=r"no component 'line' .* Did you mean 'lines'"):
        context.tasks("line")
    with pytest.raises(UsageError, match=r"'lines' has no stream 'bed'.* Did you mean 'bad'"):
        context.fields("lines", "bed")
    with pytest.raises(UsageError, match="no secret named 'key'"):
        context.secret("key")
    with pytest.raises(UsageError, match=r"'count' reported 'text', which is no exception\. Write report_error\(Value"):
        context.report_error("text")  # type: ignore[arg-type]


def test_secrets_and_errors_go_to_the_runtime(plan: Plan) -> None:
    reported: list[BaseException] = []
    context = TopologyContext(plan, 1, report_error=reported.append, secrets={"key": "s"})
    error = ValueError("x")
    context.report_error(error)
    assert context.secret("key") == "s"
    assert reported == [error]
    assert "'s'" not in repr(context)
    TopologyContext(plan, 1).report_error(error)
