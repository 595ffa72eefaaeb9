"""The shape of a frame: what travels between two workers as one ZeroMQ message.

A frame is a header of HEADER_BYTES and a body, all numbers little-endian:

    magic 2s | version u8 | kind u8 | crc u32 | topology u64 | sender u64 | receiver u64 | seq u64 | receipt u64

`crc` covers everything else, so a damaged frame counts as lost and is sent again. `sender` and `receiver` are the
random incarnations of two worker processes (receiver 0: not known yet), `receipt` the highest frame that the
sender has from the receiver without a gap. Only BATCH frames are numbered; `seq` of a PROBE is the last one
sent, `seq` of a RESEND the first one missing, else 0.

A BATCH body is a run of records `kind u8 | flags u8 | length u32 | payload`. A message that does not fit is cut
into records that all but the last carry MORE; within one kind, records are in order. Bodies of HELLO and GONE are
described at their functions; the other frames have none. Whatever breaks these rules raises WireError here.
"""

from __future__ import annotations

import re
import struct
from typing import Final
from zlib import crc32

from rainband.errors import WireError

VERSION: Final = 1
MAGIC: Final = b"rb"
HEADER_BYTES: Final = 48
RECORD_BYTES: Final = 6
FRAME_BYTES_MAX: Final = 256 * 1024
ID_MAX: Final = (1 << 63) - 1
HOST = re.compile(r"[A-Za-z0-9._%-]+|\[[0-9A-Fa-f:.%]+\]")

# Kinds of frames.
HELLO: Final = 1
BATCH: Final = 2
RECEIPT: Final = 3
RESEND: Final = 4
PROBE: Final = 5
GONE: Final = 6

# Kinds of messages, in the order in which they leave.
ACKS: Final = 1
CREDIT: Final = 2
CONTROL: Final = 3
DATA: Final = 4
MESSAGE_KINDS: Final = 4

MORE: Final = 1

_HEAD: Final = struct.Struct("<2sBBI")
_TAIL: Final = struct.Struct("<QQQQQ")
_HEADER: Final = struct.Struct("<2sBBIQQQQQ")
_RECORD: Final = struct.Struct("<BBI")
_NUMBER: Final = struct.Struct("<Q")


class Header:
    """The fixed part of one frame. Ids are 63-bit non-negative integers."""

    def __init__(self, kind: int, topology: int, sender: int, receiver: int, seq: int, receipt: int) -> None:
        self.kind = kind
        self.topology = topology
        self.sender = sender
        self.receiver = receiver
        self.seq = seq
        self.receipt = receipt

    def __repr__(self) -> str:
        return f"Header({self.kind}, {self.topology}, {self.sender}, {self.receiver}, {self.seq}, {self.receipt})"


def build(kind: int, topology: int, sender: int, receiver: int, seq: int, receipt: int, body: list[object]) -> bytes:
    """One frame; `body` is a list of bytes-like pieces, copied once."""
    tail = _TAIL.pack(topology, sender, receiver, seq, receipt)
    check = crc32(tail, crc32(bytes((VERSION, kind))))
    for piece in body:
        check = crc32(piece, check)  # type: ignore[arg-type]
    return b"".join([_HEAD.pack(MAGIC, VERSION, kind, check), tail, *body])  # type: ignore[list-item]


def parse(frame: bytes) -> Header:
    """The header of a sound frame. Raises WireError for anything else."""
    size = len(frame)
    if size < HEADER_BYTES:
        raise WireError(f"a frame of {size} bytes is shorter than its header")
    if size > FRAME_BYTES_MAX:
        raise WireError(f"a frame of {size} bytes is larger than {FRAME_BYTES_MAX}")
    magic, version, kind, check, topology, sender, receiver, seq, receipt = _HEADER.unpack_from(frame)
    if magic != MAGIC:
        raise WireError("not a rainband frame")
    if version != VERSION:
        raise WireError(f"frame version {version} is not {VERSION}", "Use the same rainband on both sides")
    if not HELLO <= kind <= GONE:
        raise WireError(f"unknown kind of frame {kind}")
    if crc32(memoryview(frame)[8:], crc32(bytes((version, kind)))) != check:
        raise WireError("a frame was damaged on its way")
    if max(topology, sender, receiver, seq, receipt) > ID_MAX:
        raise WireError("a number in a frame's header is out of range")
    if sender == 0:
        raise WireError("a frame without a sender")
    return Header(kind, topology, sender, receiver, seq, receipt)


def record(kind: int, size: int, more: bool) -> bytes:
    """Head of one record of a BATCH, to be followed by `size` bytes."""
    return _RECORD.pack(kind, MORE if more else 0, size)


def records(frame: bytes) -> list[tuple[int, bool, bytes]]:
    """The (kind, more follows, payload) of a BATCH frame. Raises WireError if they do not fill it exactly."""
    found: list[tuple[int, bool, bytes]] = []
    at = HEADER_BYTES
    end = len(frame)
    while at < end:
        if end - at < RECORD_BYTES:
            raise WireError("a record is cut off")
        kind, flags, size = _RECORD.unpack_from(frame, at)
        at += RECORD_BYTES
        if not ACKS <= kind <= MESSAGE_KINDS:
            raise WireError(f"unknown kind of message {kind}")
        if flags > MORE or size > end - at or (flags == MORE and size == 0):
            raise WireError("a record does not fit into its frame")
        found.append((kind, flags == MORE, frame[at : at + size]))
        at += size
    return found


def hello_body(address: str, answer: bool) -> bytes:
    """Body of a HELLO: one byte, 1 when an answer is wanted, then the sender's slot address `host:port` in UTF-8."""
    return (b"\x01" if answer else b"\x00") + address.encode()


def read_hello(frame: bytes) -> tuple[str, bool]:
    """Address and whether an answer is wanted. Raises WireError."""
    body = frame[HEADER_BYTES:]
    if len(body) < 2 or body[0] > 1:
        raise WireError("a hello without an address")
    return _address(body[1:]), body[0] == 1


def gone(
    topology: int, sender: int, address: str, incarnation: int, receiver: int = 0, age_s: float = 0.0
) -> bytes:
    """The frame that says: the process `incarnation` at `address` is dead, since `age_s` seconds at least.

    Sent by whoever saw it exit; the age is in the header in milliseconds, where other kinds have their number. With
    `receiver` = `incarnation` it says to that very process: the sender has fenced you.
    """
    age_ms = max(0, int(age_s * 1000))
    return build(GONE, topology, sender, receiver, age_ms, 0, [_NUMBER.pack(incarnation), address.encode()])


def read_gone(frame: bytes) -> tuple[str, int]:
    """Address and incarnation of the dead. Raises WireError."""
    body = frame[HEADER_BYTES:]
    if len(body) <= _NUMBER.size:
        raise WireError("a gone without an address")
    (incarnation,) = _NUMBER.unpack_from(body)
    return _address(body[_NUMBER.size :]), incarnation


def _address(data: bytes) -> str:
    try:
        address = data.decode()
    except UnicodeDecodeError:
        raise WireError("an address that is not text") from None
    host, _, port = address.rpartition(":")
    digits = len(port) <= 5 and port.isascii() and port.isdigit()
    if len(address) > 300 or not HOST.fullmatch(host) or not digits or not 0 < int(port) < 65536:
        raise WireError(f"not an address: {address[:80]!r}")
    return address
