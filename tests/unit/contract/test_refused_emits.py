"""An emit at the wrong moment, of the wrong values or to the wrong stream is refused, with the fix."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import pytest

from kit.contract import Sink, Words, one_bolt
from rainband import (
    Bolt,
    DirectStream,
    EmitRefused,
    LocalCluster,
    ManualBolt,
    Spout,
    TopologyBuilder,
    TopologyContext,
    Tuple,
    complete_topology,
)


class InInit(Bolt):
    outputs = ("word",)

    def __init__(self) -> None:
        self.emit(["too early"])

    def execute(self, tup: Tuple) -> None:
        pass


class InPrepare(Bolt):
    outputs = ("word",)

    def prepare(self, context: TopologyContext) -> None:
        self.emit(["too early"])

    def execute(self, tup: Tuple) -> None:
        pass


class InOpen(Spout):
    outputs = ("word",)

    def open(self, context: TopologyContext) -> None:
        self.emit(["too early"], message_id=1)

    def next_tuple(self) -> None:
        self.finish()


def test_an_emit_in_init_is_refused_with_the_fix() -> None:
    with pytest.raises(EmitRefused) as caught:
        InInit()
    assert "__init__" in str(caught.value) or "execute" in str(caught.value)


def test_an_emit_in_prepare_and_open_is_refused_with_the_fix() -> None:
    with pytest.raises(EmitRefused, match="prepare"):
        complete_topology(one_bolt(InPrepare()), raise_errors=True)
    builder = TopologyBuilder("early")
    builder.set_spout("words", InOpen())
    with pytest.raises(EmitRefused, match="open"):
        complete_topology(builder.create_topology(), raise_errors=True)


class Reports:
    """Where components of this file leave what they saw: they run in this process."""

    texts: list[str] = []


class InCleanup(Bolt):
    outputs = ("word",)

    def execute(self, tup: Tuple) -> None:
        pass

    def cleanup(self) -> None:
        try:
            self.emit(["too late"])
        except EmitRefused as error:
            Reports.texts.append(str(error))
            raise


def test_an_emit_in_cleanup_is_refused() -> None:
    Reports.texts.clear()
    with LocalCluster(virtual_clock=True) as cluster:
        running = cluster.submit(one_bolt(InCleanup()))
        cluster.advance(1)
        running.kill(wait_s=0)
        cluster.advance(1)
    assert len(Reports.texts) == 1
    assert "cleanup" in Reports.texts[0]


class FromAThread(Bolt):
    outputs = ("word",)

    def execute(self, tup: Tuple) -> None:
        thread = threading.Thread(target=self.work)
        thread.start()
        thread.join()

    def work(self) -> None:
        try:
            self.emit(["from elsewhere"])
        except EmitRefused as error:
            Reports.texts.append(str(error))


def test_an_emit_from_another_thread_is_refused() -> None:
    Reports.texts.clear()
    complete_topology(one_bolt(FromAThread(), "a"))
    assert len(Reports.texts) == 1
    assert "thread" in Reports.texts[0]


class Keep(Bolt):
    """Leaves its emit where a stranger may call it after the call returned."""

    outputs = ("word",)

    def execute(self, tup: Tuple) -> None:
        pass


def test_an_emit_after_the_call_returned_is_refused() -> None:
    with LocalCluster(virtual_clock=True) as cluster:
        running = cluster.submit(one_bolt(Keep(), "a"))
        cluster.advance(1)
        (bolt,) = running.instances("bolt")
        with pytest.raises(EmitRefused):
            bolt.emit(["late"])


@pytest.mark.parametrize("values", [bytearray(b"w"), memoryview(b"w")])
@pytest.mark.parametrize("many", [False, True])
def test_bytes_of_any_kind_are_no_row(values: Any, many: bool) -> None:
    class Bare(Bolt):
        outputs = ("word",)

        def execute(self, tup: Tuple) -> None:
            if many:
                self.emit_many([values])
            else:
                self.emit(values)

    with pytest.raises(EmitRefused, match="which is not a list of values"):
        complete_topology(one_bolt(Bare(), "a"), raise_errors=True)


def test_another_sequence_is_a_row_and_recorded_as_a_tuple() -> None:
    class Rows(Bolt):
        outputs = ("word",)

        def execute(self, tup: Tuple) -> None:
            self.emit(range(1))
            self.emit(deque(["x"]))
            self.emit_many([range(1), deque(["x"])])

    assert complete_topology(one_bolt(Rows(), "a")).emitted("bolt") == [(0,), ("x",), (0,), ("x",)]


@pytest.mark.parametrize("values", ["word", b"word"])
def test_a_bare_string_as_values_is_refused(values: Any) -> None:
    class Bare(Bolt):
        outputs = ("word",)

        def execute(self, tup: Tuple) -> None:
            self.emit(values)

    with pytest.raises(Exception, match=r"\[") as caught:
        complete_topology(one_bolt(Bare(), "a"), raise_errors=True)
    assert "write [" in str(caught.value)


def test_wrong_number_of_values_says_which_fields() -> None:
    class Two(Bolt):
        outputs = ("word", "n")

        def execute(self, tup: Tuple) -> None:
            self.emit(["a"])

    with pytest.raises(EmitRefused, match="n") as caught:
        complete_topology(one_bolt(Two(), "a"), raise_errors=True)
    assert "word" in str(caught.value)


def test_an_undeclared_stream_is_refused() -> None:
    class Undeclared(Bolt):
        outputs = {"good": ("word",)}

        def execute(self, tup: Tuple) -> None:
            self.emit(["a"], stream="god")

    with pytest.raises(EmitRefused, match="god") as caught:
        complete_topology(one_bolt(Undeclared(), "a"), raise_errors=True)
    assert "good" in str(caught.value)


def test_a_value_that_cannot_travel_is_refused_naming_everything() -> None:
    class Strange(Bolt):
        outputs = ("word", "thing")

        def execute(self, tup: Tuple) -> None:
            self.emit(["a", object()])

    with pytest.raises(Exception, match="thing") as caught:
        complete_topology(one_bolt(Strange(), "a"), raise_errors=True)
    text = str(caught.value)
    assert "bolt" in text
    assert "default" in text
    assert "object" in text


def test_emit_on_a_direct_stream_and_emit_direct_on_another_are_refused() -> None:
    class Wrong(Bolt):
        outputs = {"to": DirectStream("word"), "default": ("word",)}

        def execute(self, tup: Tuple) -> None:
            if tup["word"] == "a":
                self.emit(["a"], stream="to")
            else:
                self.emit_direct(1, ["a"])

    with pytest.raises(EmitRefused, match="emit_direct"):
        complete_topology(one_bolt(Wrong(), "a"), raise_errors=True)
    with pytest.raises(EmitRefused):
        complete_topology(one_bolt(Wrong(), "b"), raise_errors=True)


class NotANumber(Bolt):
    outputs = ("n", "key")

    def execute(self, tup: Tuple) -> None:
        self.emit([1, float("nan")])


@pytest.mark.parametrize("kind", ["fields_grouping", "partial_key_grouping"])
def test_a_key_that_cannot_be_one_names_who_emitted_it_and_for_whom(kind: str) -> None:
    builder = TopologyBuilder("keys")
    builder.set_spout("words", Words("a"))
    builder.set_bolt("keys", NotANumber()).shuffle_grouping("words")
    getattr(builder.set_bolt("sink", Sink(), parallelism=2), kind)("keys", ["n", "key"])
    with pytest.raises(EmitRefused, match=r"^'keys' emitted on stream 'default' to 'sink', field 'key' of a grouping"):
        complete_topology(builder.create_topology())


class Addresses(Bolt):
    outputs = {"to": DirectStream("word")}

    def execute(self, tup: Tuple) -> None:
        self.emit_direct("sink", ["a"], stream="to")  # type: ignore[arg-type]


class AddressesByHand(ManualBolt):
    outputs = {"to": DirectStream("word")}

    def execute(self, tup: Tuple) -> None:
        self.emit_direct("sink", ["a"], anchors=tup, stream="to")  # type: ignore[arg-type]


class AddressesLater(Addresses):
    async def execute(self, tup: Tuple) -> None:  # type: ignore[override]
        Addresses.execute(self, tup)


@pytest.mark.parametrize("kind", [Addresses, AddressesByHand, AddressesLater])
def test_emit_direct_to_what_is_no_task_id_is_refused(kind: Any) -> None:
    with pytest.raises(EmitRefused, match=r"'bolt' emitted to 'sink', which is no task id. Choose one of context"):
        run_bolt_in_topology(kind())


def run_bolt_in_topology(bolt: Any) -> None:
    builder = TopologyBuilder("direct")
    builder.set_spout("words", Words("a"))
    builder.set_bolt("bolt", bolt).shuffle_grouping("words")
    builder.set_bolt("sink", Sink()).direct_grouping("bolt", stream="to")
    complete_topology(builder.create_topology())


class Mistaken(ManualBolt):
    outputs = ("word",)
    act = "ack"

    def execute(self, tup: Tuple) -> None:
        if self.act == "anchors":
            self.emit(["a"], anchors=["x"])  # type: ignore[list-item]
        elif self.act == "one anchor":
            self.emit(["a"], anchors=5)  # type: ignore[arg-type]
        else:
            getattr(self, self.act)("x")
        self.ack(tup)


class MistakenLater(Mistaken):
    async def execute(self, tup: Tuple) -> None:  # type: ignore[override]
        Mistaken.execute(self, tup)


@pytest.mark.parametrize("kind", [Mistaken, MistakenLater])
@pytest.mark.parametrize(
    ("act", "said"),
    [
        ("ack", r"^'bolt' called ack, fail or reset_timeout of 'x', no tuple\. Pass a received tuple"),
        ("fail", r"^'bolt' called ack, fail or reset_timeout of 'x', no tuple"),
        ("reset_timeout", r"^'bolt' called ack, fail or reset_timeout of 'x', no tuple"),
        ("anchors", r"^anchors of 'bolt' hold 'x', which is no tuple\. Pass received tuples"),
        ("one anchor", r"^anchors of 'bolt' hold 5, which is no tuple"),
    ],
)
def test_what_is_no_tuple_cannot_be_acked_or_anchored_to(kind: Any, act: str, said: str) -> None:
    bolt = kind()
    bolt.act = act
    with pytest.raises(EmitRefused, match=said):
        complete_topology(one_bolt(bolt, "a"))


class ActsByHand(Bolt):
    def execute(self, tup: Tuple) -> None:
        self.ack(tup)  # type: ignore[attr-defined]


class AnchorsLater(Bolt):
    outputs = ("word",)

    async def execute(self, tup: Tuple) -> None:
        self.emit(["a"], anchors=tup)  # type: ignore[call-arg]


def test_a_bolt_that_acks_or_anchors_by_hand_hears_of_manual_bolt() -> None:
    with pytest.raises(AttributeError, match=r"^'ActsByHand' has no ack\(\): .* derive from ManualBolt"):
        complete_topology(one_bolt(ActsByHand(), "a"))
    with pytest.raises(EmitRefused, match=r"^'bolt' emitted with anchors, .*derive from ManualBolt"):
        complete_topology(one_bolt(AnchorsLater(), "a"))
    assert not hasattr(ActsByHand(), "fail")
    with pytest.raises(AttributeError, match=r"^'ActsByHand' object has no attribute 'other'$"):
        ActsByHand().other  # type: ignore[attr-defined]  # noqa: B018


class Broken(Bolt):
    @property
    def client(self) -> Any:
        return self.nothing  # type: ignore[attr-defined]

    def execute(self, tup: Tuple) -> None: ...


def test_the_error_of_a_property_stays_what_it_was() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        Broken().client  # noqa: B018
