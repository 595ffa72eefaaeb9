"""The tuple a bolt receives, and where it came from.

One `Source` is shared by all tuples of one (task, stream); a `Tuple` holds only its values, that source, and its
anchor (the part of a tuple tree it keeps open), which belongs to the runtime. A ManualBolt may hold millions, and one
more field would take 16 bytes: a tuple that was acked or failed is one whose anchor is CLOSED.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, Final

from rainband.errors import UnknownField

CLOSED: Final = object()


class Source:
    """Component, stream and task that emitted a tuple, and the names of its fields."""

    def __init__(self, component: str, stream: str, task: int, fields: tuple[str, ...], number: int = 0) -> None:
        self.component = component
        self.stream = stream
        self.task = task
        self.fields = fields
        self.number = number
        self.index: dict[str, int] = {name: position for position, name in enumerate(fields)}

    def unknown(self, name: str) -> UnknownField:
        """The error for a field this stream does not have."""
        close = get_close_matches(name, self.fields, 1)
        hint = f"Did you mean '{close[0]}'?" if close else ""
        return UnknownField(
            f"no field '{name}' in stream '{self.stream}' of '{self.component}', which has {list(self.fields)}", hint
        )


class Tuple:
    """Values received by a bolt: `tup["word"]`, `tup[0]`, unpacking, `len`, iteration.

    Raises UnknownField (a KeyError) for a name the stream lacks, IndexError for a position it lacks.
    """

    __slots__ = ("_anchor", "_source", "_values")

    def __init__(self, values: tuple[Any, ...], source: Source, anchor: object = None) -> None:
        self._values = values
        self._source = source
        self._anchor = anchor

    @property
    def _open(self) -> bool:
        return self._anchor is not CLOSED

    def __getitem__(self, key: object) -> Any:
        if isinstance(key, str):
            position = self._source.index.get(key)
            if position is None:
                raise self._source.unknown(key)
            return self._values[position]
        position_or_slice: Any = key
        return self._values[position_or_slice]

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    @property
    def values(self) -> tuple[Any, ...]:
        return self._values

    @property
    def fields(self) -> tuple[str, ...]:
        return self._source.fields

    @property
    def component(self) -> str:
        return self._source.component

    @property
    def stream(self) -> str:
        return self._source.stream

    @property
    def task(self) -> int:
        return self._source.task

    def __repr__(self) -> str:
        pairs = ", ".join(f"{name}={value!r}" for name, value in zip(self._source.fields, self._values, strict=False))
        return f"Tuple({pairs}; from {self._source.component}/{self._source.stream} task {self._source.task})"
