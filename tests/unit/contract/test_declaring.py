"""What `set_spout`, `set_bolt` and `create_topology` take, keep and refuse."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rainband import (
    Bolt,
    CustomGrouping,
    DirectStream,
    InvalidConfig,
    InvalidTopology,
    LocalCluster,
    ManualBolt,
    ReliableSpout,
    Spout,
    Topology,
    TopologyBuilder,
    TopologyContext,
    Tuple,
    complete_topology,
)


class Words(Spout):
    outputs = ("word",)

    def __init__(self, *words: str) -> None:
        self.words = list(words)

    def next_tuple(self) -> None:
        if self.words:
            self.emit([self.words.pop(0)], message_id=None)
        else:
            self.finish()


class Seen(Bolt):
    outputs = ("word",)

    def __init__(self) -> None:
        self.seen: list[str] = []

    def execute(self, tup: Tuple) -> None:
        self.seen.append(tup[0])


def with_words() -> TopologyBuilder:
    builder = TopologyBuilder("declared")
    builder.set_spout("words", Words("a", "b"))
    return builder


def test_a_snapshot_is_taken_when_the_component_is_set() -> None:
    words, seen = Words("a", "b"), Seen()
    builder = TopologyBuilder("snapshot")
    builder.set_spout("words", words)
    builder.set_bolt("seen", seen, parallelism=2).all_grouping("words")
    words.words.append("too late")
    seen.seen.append("not mine")
    topology = builder.create_topology()
    words.words.clear()
    result = complete_topology(topology)
    first, second = result.instances("seen")
    assert first.seen == second.seen == ["a", "b"]
    assert first is not second
    assert first is not seen
    assert seen.seen == ["not mine"]


class Shared(Bolt):
    """Both tasks of one process would write to one list, if it were not copied."""

    def __init__(self, nested: dict[str, list[str]]) -> None:
        self.nested = nested

    def execute(self, tup: Tuple) -> None:
        self.nested["words"].append(tup[0])


def test_each_task_has_its_own_deep_copy_in_every_kind_of_cluster() -> None:
    nested: dict[str, list[str]] = {"words": []}
    builder = with_words()
    builder.set_bolt("shared", Shared(nested), parallelism=2).all_grouping("words")
    topology = builder.create_topology()
    with LocalCluster() as cluster:
        running = cluster.submit(topology)
        running.wait_drained(timeout_s=10)
        copies = [instance.nested["words"] for instance in running.instances("shared")]
    assert copies == [["a", "b"], ["a", "b"]]
    assert nested == {"words": []}


def refused(declare: Callable[[TopologyBuilder], object]) -> str:
    """All that was said against it, whether at once or by create_topology."""

    def everything() -> None:
        builder = with_words()
        declare(builder)
        builder.create_topology()

    with pytest.raises((InvalidTopology, InvalidConfig)) as caught:
        everything()
    return str(caught.value)


def alone(name: str, config: dict[str, object] | None = None) -> Topology:
    builder = TopologyBuilder(name, config=config)
    builder.set_spout("words", Words("a"))
    return builder.create_topology()


class Unpicklable(Bolt):
    def __init__(self) -> None:
        self.guard = threading.Lock()

    def execute(self, tup: Tuple) -> None: ...


class Deep(Bolt):
    def __init__(self) -> None:
        self.settings = {"inner": {"lock": threading.Lock()}}

    def execute(self, tup: Tuple) -> None: ...


class NotABolt:
    def execute(self, tup: Tuple) -> None: ...


class HidesEmit(Bolt):
    outputs = ("x",)

    def __init__(self) -> None:
        self.emit = "mine"  # type: ignore[method-assign, assignment]

    def execute(self, tup: Tuple) -> None: ...


class DefinesEmit(Bolt):
    def emit(self, values: object) -> None:  # type: ignore[override]
        ...

    def execute(self, tup: Tuple) -> None: ...


class HidesFinish(Spout):
    outputs = ("x",)
    finish = False  # type: ignore[assignment]

    def next_tuple(self) -> None: ...


class HidesAck(ManualBolt):
    def __init__(self) -> None:
        self.ack = 0  # type: ignore[method-assign, assignment]

    def execute(self, tup: Tuple) -> None: ...


class Yields(Bolt):
    def execute(self, tup: Tuple) -> Iterator[list[str]]:  # type: ignore[override]
        yield [tup[0]]


class Returns(Bolt):
    def execute(self, tup: Tuple) -> list[str]:  # type: ignore[override]
        return [tup[0]]


class AsyncYields(Bolt):
    async def execute(self, tup: Tuple) -> Any:
        yield [tup[0]]


class NoExecute(Bolt):
    outputs = ("x",)


class NoNext(Spout):
    outputs = ("x",)


class BareOutputs(Bolt):
    outputs = "word"

    def execute(self, tup: Tuple) -> None: ...


class BareStream(Bolt):
    outputs = {"default": "word"}

    def execute(self, tup: Tuple) -> None: ...


class TwiceAField(Bolt):
    outputs = ("word", "word")

    def execute(self, tup: Tuple) -> None: ...


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        pytest.param(lambda b: b.set_bolt("x", Unpicklable()).all_grouping("words"), ["guard"], id="lock"),
        pytest.param(lambda b: b.set_bolt("x", Deep()).all_grouping("words"), ["settings"], id="deep-lock"),
        pytest.param(lambda b: b.set_bolt("x", Seen).all_grouping("words"), ["Seen(...)"], id="class"),
        pytest.param(lambda b: b.set_spout("x", Words), ["Words("], id="spout-class"),
        pytest.param(lambda b: b.set_bolt("x", NotABolt()), ["Bolt"], id="not-a-bolt"),
        pytest.param(lambda b: b.set_bolt("x", Words("a")), ["set_spout"], id="spout-as-bolt"),
        pytest.param(lambda b: b.set_spout("x", Seen()), ["set_bolt"], id="bolt-as-spout"),
        pytest.param(lambda b: b.set_bolt("x", HidesEmit()).all_grouping("words"), ["emit"], id="hides-emit"),
        pytest.param(lambda b: b.set_bolt("x", DefinesEmit()).all_grouping("words"), ["emit"], id="defines-emit"),
        pytest.param(lambda b: b.set_spout("x", HidesFinish()), ["finish"], id="hides-finish"),
        pytest.param(lambda b: b.set_bolt("x", HidesAck()).all_grouping("words"), ["ack"], id="hides-ack"),
        pytest.param(lambda b: b.set_bolt("x", Yields()).all_grouping("words"), ["execute", "emit"], id="yields"),
        pytest.param(lambda b: b.set_bolt("x", AsyncYields()).all_grouping("words"), ["execute"], id="async-yields"),
        pytest.param(lambda b: b.set_bolt("x", Returns()).all_grouping("words"), ["execute", "emit"], id="returns"),
        pytest.param(lambda b: b.set_bolt("x", NoExecute()).all_grouping("words"), ["execute"], id="no-execute"),
        pytest.param(lambda b: b.set_spout("x", NoNext()), ["next_tuple"], id="no-next-tuple"),
        pytest.param(lambda b: b.set_bolt("x", BareOutputs()).all_grouping("words"), ["['word']"], id="outputs"),
        pytest.param(lambda b: b.set_bolt("x", BareStream()).all_grouping("words"), ["['word']"], id="stream"),
        pytest.param(lambda b: b.set_bolt("x", TwiceAField()).all_grouping("words"), ["word"], id="field-twice"),
        pytest.param(lambda b: b.set_bolt("x", Seen()).fields_grouping("words", "word"), ["['word']"], id="fields"),
        pytest.param(
            lambda b: b.set_bolt("x", Seen()).partial_key_grouping("words", "word"), ["['word']"], id="partial"
        ),
        pytest.param(lambda b: b.set_bolt("x", Seen()).shuffle_grouping("wrods"), ["wrods", "words"], id="source"),
        pytest.param(
            lambda b: b.set_bolt("x", Seen()).shuffle_grouping("words", stream="defalt"),
            ["defalt", "default"],
            id="stream-name",
        ),
        pytest.param(
            lambda b: b.set_bolt("x", Seen()).fields_grouping("words", ["wrod"]), ["wrod", "word"], id="field-name"
        ),
        pytest.param(lambda b: b.set_bolt("x", Seen()).direct_grouping("words"), ["direct"], id="not-direct"),
        pytest.param(lambda b: b.set_bolt("words", Seen()).all_grouping("words"), ["words"], id="duplicate"),
        pytest.param(lambda b: b.set_bolt("__acker", Seen()).all_grouping("words"), ["__acker"], id="reserved"),
        pytest.param(lambda b: b.set_bolt("a b/c", Seen()).all_grouping("words"), ["a b/c"], id="malformed"),
        pytest.param(lambda b: b.set_bolt("x", Seen()), ["x"], id="no-input"),
        pytest.param(lambda b: b.set_bolt("x", Seen(), parallelism=0).all_grouping("words"), ["0"], id="zero"),
        pytest.param(lambda b: b.set_bolt("x", Seen(), parallelism=1.5).all_grouping("words"), ["1.5"], id="half"),
        pytest.param(lambda b: b.set_bolt("x", Seen(), parallelism="4").all_grouping("words"), ["4"], id="text"),
        pytest.param(lambda b: b.set_bolt("x", Seen(), parallelism=True).all_grouping("words"), ["True"], id="bool"),
        pytest.param(lambda b: b.set_bolt("x", Seen(), tasks=0).all_grouping("words"), ["0"], id="tasks"),
        pytest.param(
            lambda b: b.set_bolt("x", Seen(), config={"topology.workers": 2}).all_grouping("words"),
            ["topology.workers"],
            id="not-a-component-key",
        ),
    ],
)
def test_refused_with_the_fix(declare: Callable[[Any], object], said: list[str]) -> None:
    text = refused(declare)
    for words in said:
        assert words in text


def test_all_problems_are_reported_at_once() -> None:
    builder = TopologyBuilder("many")
    builder.set_bolt("one", Seen()).shuffle_grouping("nowhere")
    builder.set_bolt("two", Seen()).shuffle_grouping("one", stream="nothing")
    with pytest.raises(InvalidTopology) as caught:
        builder.create_topology()
    problems = caught.value.problems
    assert len(problems) >= 3, "no spout, unknown source, unknown stream"
    for word in ("spout", "nowhere", "nothing"):
        assert any(word in problem for problem in problems)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\nb", "x" * 300, "."])
def test_a_bad_topology_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidTopology):
        alone(name)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"topology.worker": 2}, "topology.workers"),
        ({"topology.workers": "2"}, "topology.workers"),
        ({"topology.workers": True}, "topology.workers"),
        ({"topology.workers": 0}, "topology.workers"),
        ({"mine": 1}, "app"),
    ],
)
def test_a_bad_config_is_refused(config: dict[str, object], said: str) -> None:
    with pytest.raises((InvalidConfig, InvalidTopology), match=said):
        alone("config", config)


class Looks(Bolt):
    def prepare(self, context: TopologyContext) -> None:
        self.config = context.config
        self.looks = {
            "task_id": context.task_id,
            "task_index": context.task_index,
            "component": context.component,
            "mine": context.tasks(),
            "theirs": context.tasks("words"),
            "fields": context.fields("words", "default"),
            "own fields": context.fields("looks", "out"),
            "worker_tasks": context.worker_tasks,
        }
        self.context = context

    outputs = {"out": ("a", "b")}

    def execute(self, tup: Tuple) -> None:
        assert tup.task in self.context.tasks("words")
        self.context.report_error(ValueError(f"looked at {tup[0]}"))


def test_the_context() -> None:
    builder = TopologyBuilder("context", config={"app": {"depth": 3}, "topology.message.timeout.secs": 20})
    builder.set_spout("words", Words("a"))
    builder.set_bolt("looks", Looks(), parallelism=2, tasks=3, config={"topology.max.spout.pending": 5}).all_grouping(
        "words"
    )
    result = complete_topology(builder.create_topology(), raise_errors=False)
    instances = result.instances("looks")
    assert len(instances) == 3, "tasks are fixed; parallelism is how many executors run them"
    for index, instance in enumerate(instances):
        looks = instance.looks
        assert looks["task_index"] == index
        assert looks["component"] == "looks"
        assert looks["mine"][index] == looks["task_id"]
        assert len(looks["mine"]) == 3
        assert len(looks["theirs"]) == 1
        assert tuple(looks["fields"]) == ("word",)
        assert tuple(looks["own fields"]) == ("a", "b")
        assert looks["task_id"] in looks["worker_tasks"]
        assert instance.config["app"]["depth"] == 3
        assert instance.config["topology.message.timeout.secs"] == 20
        assert instance.config["topology.workers"] == 1, "the default"
        with pytest.raises(KeyError):
            instance.config["topology.worker"]
    assert len(result.errors("looks")) == 3
    assert all("looked at a" in str(error) for error in result.errors("looks"))


def test_component_beats_topology() -> None:
    builder = TopologyBuilder("beats", config={"topology.debug": False, "topology.tick.tuple.freq.secs": 100})

    class Ticks(Bolt):
        def prepare(self, context: TopologyContext) -> None:
            self.every = context.config["topology.tick.tuple.freq.secs"]

        def execute(self, tup: Tuple) -> None: ...

        def tick(self) -> None: ...

    builder.set_spout("words", Words("a"))
    builder.set_bolt("own", Ticks(), config={"topology.tick.tuple.freq.secs": 7}).all_grouping("words")
    builder.set_bolt("common", Ticks()).all_grouping("words")
    result = complete_topology(builder.create_topology())
    assert result.instances("own")[0].every == 7
    assert result.instances("common")[0].every == 100


class Third(CustomGrouping):
    """Everything to the third task."""

    def prepare(self, context: Any, tasks: Any) -> None:
        self.tasks = list(tasks)

    def choose_tasks(self, values: Any) -> list[int]:
        return [self.tasks[2]]


class Undecided(CustomGrouping):
    def choose(self, values: Any) -> list[int]:
        return []


def test_a_custom_grouping_without_choose_tasks_is_refused() -> None:
    text = refused(lambda b: b.set_bolt("x", Seen()).custom_grouping("words", Undecided()))
    assert "Undecided has no choose_tasks. Define choose_tasks(self, values)" in text
    assert "CustomGrouping has no choose_tasks" in refused(
        lambda b: b.set_bolt("x", Seen()).custom_grouping("words", CustomGrouping())
    )


class Rich(Spout):
    outputs = {"default": ("key", "n"), "more": ("key", "n"), "to": DirectStream("key", "n")}

    def open(self, context: TopologyContext) -> None:
        self.targets = context.tasks("direct_")
        self.n = 0

    def next_tuple(self) -> None:
        self.n += 1
        if self.n > 30:
            self.finish()
            return
        for stream in ("default", "more"):
            self.emit([f"key-{self.n % 5}", self.n], message_id=(stream, self.n), stream=stream)
        self.emit_direct(self.targets[self.n % 3], ["k", self.n], message_id=("to", self.n), stream="to")


class Keys(Bolt):
    def __init__(self) -> None:
        self.keys: list[str] = []

    def execute(self, tup: Tuple) -> None:
        self.keys.append(tup["key"])


@pytest.mark.parametrize("stream", ["default", "more"])
def test_every_grouping_also_of_a_named_stream(stream: str) -> None:
    builder = TopologyBuilder("groupings")
    builder.set_spout("rich", Rich())
    builder.set_bolt("shuffle", Keys(), parallelism=3).shuffle_grouping("rich", stream=stream)
    builder.set_bolt("fields", Keys(), parallelism=3).fields_grouping("rich", ["key"], stream=stream)
    builder.set_bolt("partial", Keys(), parallelism=3).partial_key_grouping("rich", ["key"], stream=stream)
    builder.set_bolt("all_", Keys(), parallelism=3).all_grouping("rich", stream=stream)
    builder.set_bolt("global_", Keys(), parallelism=3).global_grouping("rich", stream=stream)
    builder.set_bolt("none_", Keys(), parallelism=3).none_grouping("rich", stream=stream)
    builder.set_bolt("direct_", Keys(), parallelism=3).direct_grouping("rich", stream="to")
    builder.set_bolt("local", Keys(), parallelism=3).local_or_shuffle_grouping("rich", stream=stream)
    builder.set_bolt("custom", Keys(), parallelism=3).custom_grouping("rich", Third(), stream=stream)
    result = complete_topology(builder.create_topology())

    def counts(component: str) -> list[int]:
        return [len(instance.keys) for instance in result.instances(component)]

    assert counts("shuffle") == [10, 10, 10]
    assert counts("all_") == [30, 30, 30]
    assert counts("global_") == [30, 0, 0]
    assert counts("custom") == [0, 0, 30]
    assert counts("direct_") == [10, 10, 10]
    assert sum(counts("none_")) == sum(counts("local")) == sum(counts("partial")) == 30
    keys = [set(instance.keys) for instance in result.instances("fields")]
    assert sum(len(each) for each in keys) == len(set.union(*keys)) == 5, "one task for each key"
    assert len(result.acked("rich")) == 90


def test_stable_hash_is_exported() -> None:
    from rainband import stable_hash

    assert stable_hash(1) == stable_hash(1.0) == stable_hash(True)
    assert stable_hash("a") != stable_hash("b")
    assert stable_hash(("a", (1, None))) == stable_hash(("a", (1.0, None)))
    with pytest.raises(Exception, match=r"(?i)nan"):
        stable_hash(float("nan"))
    with pytest.raises(Exception, match=r"(?i)list|hash"):
        stable_hash([1])


def test_a_reliable_spout_may_seek_only_with_a_position() -> None:
    class SeeksOnly(ReliableSpout):
        outputs = ("x",)

        def next_tuple(self) -> None: ...

        def seek(self, position: Any) -> None: ...

    assert "position" in refused(lambda b: b.set_spout("x", SeeksOnly()))
