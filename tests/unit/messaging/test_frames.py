"""A sound frame comes out as it went in; anything else is a WireError, and only that."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainband.errors import WireError
from rainband.messaging import frames

numbers = st.integers(0, frames.ID_MAX)
kinds = st.sampled_from([frames.HELLO, frames.BATCH, frames.RECEIPT, frames.RESEND, frames.PROBE, frames.GONE])
bodies = st.lists(st.binary(max_size=200), max_size=5)


@given(kinds, numbers, st.integers(1, frames.ID_MAX), numbers, numbers, numbers, bodies)
def test_a_header_comes_out_as_it_went_in(
    kind: int, topology: int, sender: int, receiver: int, seq: int, receipt: int, body: list[bytes]
) -> None:
    frame = frames.build(kind, topology, sender, receiver, seq, receipt, list(body))
    header = frames.parse(frame)
    assert (header.kind, header.topology, header.sender) == (kind, topology, sender)
    assert (header.receiver, header.seq, header.receipt) == (receiver, seq, receipt)
    assert frame[frames.HEADER_BYTES :] == b"".join(body)


@given(st.integers(0, 10_000), st.integers(1, 255), st.binary(min_size=1, max_size=500))
def test_one_changed_byte_is_noticed(position: int, change: int, body: bytes) -> None:
    frame = bytearray(frames.build(frames.BATCH, 1, 2, 3, 4, 5, [body]))
    frame[position % len(frame)] ^= change
    with pytest.raises(WireError):
        frames.parse(bytes(frame))


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=500))
def test_a_truncated_or_longer_frame_is_noticed(cut: int, body: bytes) -> None:
    frame = frames.build(frames.BATCH, 1, 2, 3, 4, 5, [body])
    for wrong in (frame[: cut % len(frame)], frame + body):
        with pytest.raises(WireError):
            frames.parse(wrong)


def test_random_bytes_are_no_frames() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        with pytest.raises(WireError):
            frames.parse(rng.randbytes(rng.randrange(4096)))


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (b"", "0 bytes"),
        (b"x" * 100, "not a rainband frame"),
        (frames.build(0, 1, 1, 1, 1, 1, []), "unknown kind of frame 0"),
        (frames.build(99, 1, 1, 1, 1, 1, []), "unknown kind of frame 99"),
        (frames.build(frames.BATCH, 1 << 63, 1, 1, 1, 1, []), "out of range"),
        (frames.build(frames.BATCH, 1, (1 << 64) - 1, 1, 1, 1, []), "out of range"),
        (frames.build(frames.BATCH, 1, 1, 1, 1 << 63, 1, []), "out of range"),
        (frames.build(frames.BATCH, 1, 0, 1, 1, 1, []), "without a sender"),
        (frames.build(frames.BATCH, 1, 1, 1, 1, 1, [bytes(frames.FRAME_BYTES_MAX)]), "larger than"),
        (b"rb\x02" + frames.build(frames.BATCH, 1, 1, 1, 1, 1, [])[3:], "version 2 is not 1"),
    ],
)
def test_each_fault_has_its_words(frame: bytes, words: str) -> None:
    with pytest.raises(WireError, match=words):
        frames.parse(frame)


@given(st.lists(st.tuples(st.integers(1, frames.MESSAGE_KINDS), st.booleans(), st.binary(min_size=1, max_size=50))))
def test_records_come_out_as_they_went_in(messages: list[tuple[int, bool, bytes]]) -> None:
    body: list[object] = []
    for kind, more, payload in messages:
        body += [frames.record(kind, len(payload), more), payload]
    assert frames.records(frames.build(frames.BATCH, 1, 2, 3, 4, 5, body)) == messages


@given(st.binary(max_size=100))
def test_a_body_is_records_or_a_wire_error(body: bytes) -> None:
    try:
        found = frames.records(frames.build(frames.BATCH, 1, 2, 3, 4, 5, [body]))
    except WireError:
        return
    assert sum(len(payload) + frames.RECORD_BYTES for _, _, payload in found) == len(body)


@pytest.mark.parametrize("address", ["127.0.0.1:6700", "[::1]:1", "host-1.example.org:65535"])
def test_hello_and_gone_carry_an_address(address: str) -> None:
    for answer in (True, False):
        hello = frames.build(frames.HELLO, 1, 2, 0, 0, 0, [frames.hello_body(address, answer)])
        assert frames.read_hello(hello) == (address, answer)
    gone = frames.gone(1, 2, address, 77)
    assert frames.parse(gone).kind == frames.GONE
    assert frames.read_gone(gone) == (address, 77)


@pytest.mark.parametrize(
    "address",
    ["", "host", "host:", ":1", "host:0", "host:65536", "host:-1", "host:1x", "host:000001", "a b:1", "a\n:1", "h/x:1"],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(WireError):
        frames.read_hello(frames.build(frames.HELLO, 1, 2, 0, 0, 0, [frames.hello_body(address, True)]))
    with pytest.raises(WireError):
        frames.read_gone(frames.gone(1, 2, address, 77))


@given(st.binary(max_size=400))
def test_hello_and_gone_of_any_bytes_raise_nothing_else(body: bytes) -> None:
    for kind in (frames.HELLO, frames.GONE):
        frame = frames.build(kind, 1, 2, 0, 0, 0, [body])
        for read in (frames.read_hello, frames.read_gone):
            try:
                read(frame)
            except WireError:
                pass
