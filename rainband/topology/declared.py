"""What a builder was told, before anything was compared with anything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rainband.topology.plan import StreamPlan


@dataclass(frozen=True)
class Snapshot:
    """An object of the user's as it was when declared: a private copy, its pickle, and the SHA-256 of that."""

    original: object
    pickle: bytes
    digest: str


@dataclass(frozen=True)
class Subscription:
    """One grouping call, unchecked: `source`, `stream` and `fields` may be anything the user passed.

    `problem` is what was already seen to be wrong with it; `site` is the file:line of the call.
    """

    source: Any
    stream: Any
    kind: str
    fields: Any = ()
    custom: Snapshot | None = None
    problem: str = ""
    site: str = ""


@dataclass(frozen=True)
class Declared:
    """One set_spout or set_bolt. `id`, `parallelism` and `tasks` are unchecked; the component and config are checked.

    `guarantee`, for spouts, is what it promises when trees are tracked; `turns` says that its executors share the one
    thread of their worker; `ticks` that it has a tick().
    """

    id: Any
    kind: str
    snapshot: Snapshot
    streams: dict[str, StreamPlan]
    parallelism: Any
    tasks: Any
    config: Mapping[str, Any]
    type_name: str
    guarantee: str = ""
    turns: bool = True
    ticks: bool = False
    subscriptions: tuple[Subscription, ...] = ()
    site: str = ""


@dataclass(frozen=True)
class Declaration:
    """A whole topology as declared, in the order of the calls. `config` is checked, `name` is not."""

    name: Any
    config: Mapping[str, Any]
    components: tuple[Declared, ...]
