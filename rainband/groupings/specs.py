"""What users declare: a grouping per subscription, and the base class of groupings of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rainband.errors import InvalidTopology

SHUFFLE = "shuffle"
FIELDS = "fields"
PARTIAL_KEY = "partial_key"
ALL = "all"
GLOBAL = "global"
NONE = "none"
DIRECT = "direct"
LOCAL_OR_SHUFFLE = "local_or_shuffle"
CUSTOM = "custom"

KINDS = (SHUFFLE, FIELDS, PARTIAL_KEY, ALL, GLOBAL, NONE, DIRECT, LOCAL_OR_SHUFFLE, CUSTOM)
KEYED_KINDS = (FIELDS, PARTIAL_KEY)


class CustomGrouping:
    """A routing rule of the user's own: override `choose_tasks` and pass an instance to `custom_grouping`.

    Each emitting task has its own copy. It must pickle, and decide from the values and what `prepare` was given.
    """

    def prepare(self, context: Any, tasks: Sequence[int]) -> None:
        """Called once before the first choice. `context` is the emitting task's TopologyContext, `tasks` the sorted
        ids of the receiving component's tasks."""

    def choose_tasks(self, values: tuple[Any, ...]) -> Sequence[int]:
        """Ids out of `tasks` that get a tuple of `values`: a list, even for one; an empty one drops the tuple."""
        raise NotImplementedError(f"{type(self).__name__} must define choose_tasks(values)")


@dataclass(frozen=True)
class Grouping:
    """One rule: `kind` (one of KINDS), `fields` for fields and partial_key, `custom` for custom.

    Raises InvalidTopology when these do not fit together.
    """

    kind: str
    fields: tuple[str, ...] = ()
    custom: CustomGrouping | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidTopology(f"no grouping '{self.kind}'", f"Use one of {', '.join(KINDS)}")
        if isinstance(self.fields, (str, bytes)):
            raise InvalidTopology(
                f"the fields of a grouping are a sequence of names, not {self.fields!r}", f"Write [{self.fields!r}]"
            )
        if self.kind in KEYED_KINDS and not self.fields:
            raise InvalidTopology(f"a {self.kind} grouping needs at least one field", 'Write, say, ["word"]')
        if self.kind not in KEYED_KINDS and self.fields:
            raise InvalidTopology(f"a {self.kind} grouping has no fields", "Use fields_grouping")
        if isinstance(self.custom, type):
            raise InvalidTopology(
                f"the custom grouping {self.custom.__name__} is a class", f"Write {self.custom.__name__}()"
            )
        if (self.kind == CUSTOM) != isinstance(self.custom, CustomGrouping):
            raise InvalidTopology(
                "a custom grouping needs an instance of a CustomGrouping subclass; no other kind takes one"
            )
        chosen = getattr(type(self.custom), "choose_tasks", None)
        if chosen is CustomGrouping.choose_tasks and "choose_tasks" not in vars(self.custom):
            raise InvalidTopology(
                f"the custom grouping {type(self.custom).__name__} has no choose_tasks",
                "Define choose_tasks(self, values), which returns task ids",
            )
