"""What a component declares to emit: `outputs` in the forms users write, and the one form the plan keeps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Union

from rainband.topology.plan import StreamPlan

DEFAULT = "default"
DEAD_LETTERS = "dead_letters"
DEAD_LETTER_FIELDS = ("message_id", "stream", "values", "retries", "reason")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
NAME_RULE = "[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
FIELDS_MAX = 1024
STREAMS_MAX = 1024
FIELD_LENGTH_MAX = 256


class DirectStream:
    """In `outputs`, a stream whose tuples are emitted to one named task: `{"to": DirectStream("order", "n")}`."""

    def __init__(self, *fields: str) -> None:
        self.fields = fields

    def __repr__(self) -> str:
        return f"DirectStream{self.fields!r}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DirectStream) and self.fields == other.fields

    def __hash__(self) -> int:
        return hash(self.fields)


Outputs = Union[Sequence[str], DirectStream, Mapping[str, Union[Sequence[str], DirectStream]]]


def is_name(value: object) -> bool:
    """Whether it may name a topology, a component or a stream."""
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def normalise(outputs: object) -> tuple[dict[str, StreamPlan], list[str]]:
    """Streams by name, sorted, and what is wrong with the declaration (the streams are then incomplete).

    No fields at all, `()`, means no stream; a mapping may hold streams without fields.
    """
    problems: list[str] = []
    if isinstance(outputs, Mapping):
        declared = dict(outputs)
    elif isinstance(outputs, DirectStream) or outputs != ():
        declared = {} if outputs == [] else {DEFAULT: outputs}
    else:
        declared = {}
    if len(declared) > STREAMS_MAX:
        return {}, [f"outputs has {len(declared):,} streams, more than {STREAMS_MAX:,}"]
    streams = {}
    for name in declared:
        if not is_name(name):
            problems.append(f"outputs has the stream {name!r:.80}: a stream name must match {NAME_RULE}")
            continue
        streams[name] = _stream(name, declared[name], problems)
    return dict(sorted(streams.items())), problems


def _stream(name: str, declared: object, problems: list[str]) -> StreamPlan:
    direct = isinstance(declared, DirectStream)
    fields = declared.fields if isinstance(declared, DirectStream) else declared
    where = "outputs" if name == DEFAULT else f"outputs['{name}']"
    if isinstance(fields, (str, bytes)):
        kind = type(fields).__name__
        problems.append(f"{where} is the {kind} {fields!r:.80}, not a sequence of names: write [{fields!r:.80}]")
    elif not isinstance(fields, (list, tuple)):
        problems.append(f"{where} is a {type(fields).__name__}: write a tuple of names, in the order of the values")
    elif len(fields) > FIELDS_MAX:
        problems.append(f"{where} has {len(fields):,} fields, more than {FIELDS_MAX:,}")
    else:
        wrong = [field for field in fields if not is_field(field)]
        for field in wrong:
            rule = f"a printable string of at most {FIELD_LENGTH_MAX} characters that begins without '__'"
            problems.append(f"{where} has the field {field!r:.80}: write {rule}")
        for field in dict.fromkeys(field for field in fields if field not in wrong and fields.count(field) > 1):
            problems.append(f"{where} has the field '{field}' more than once")
        if not wrong:
            return StreamPlan(tuple(fields), direct)
    return StreamPlan((), direct)


def is_field(name: object) -> bool:
    """Whether it may name a field."""
    if not isinstance(name, str) or name.startswith("__"):
        return False
    return 0 < len(name) <= FIELD_LENGTH_MAX and name.isprintable()
