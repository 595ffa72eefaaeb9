"""Copies of users' objects: taken when they are declared, handed out to tasks, and pickled for other processes.

Classes of importable modules are pickled by reference, those of `__main__` (and of functions) by value. Within this
process a task gets a deep copy rather than an unpickled one, so that its class stays the very class of the program.
"""

from __future__ import annotations

import copy
import hashlib
import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from rainband.topology.declared import Snapshot

PROTOCOL = 5
TRIES_MAX = 200


def take(component: object) -> tuple[Snapshot | None, str]:
    """A snapshot, or None and why it cannot be taken, naming the attribute."""
    try:
        data: bytes = cloudpickle.dumps(component, protocol=PROTOCOL)
    except Exception as error:
        return None, _cannot_pickle(component, error)
    try:
        original = duplicate(component, data)
        _check_unpickles(component)
    except Exception as error:
        return None, f"it pickles but cannot be read back ({_reason(error)})"
    return Snapshot(original, data, hashlib.sha256(data).hexdigest()), ""


def duplicate(component: object, data: bytes) -> object:
    """An independent copy of `component`, whose pickle is `data`."""
    try:
        return copy.deepcopy(component)
    except Exception:  # modules and the like, which only cloudpickle copies
        return cloudpickle.loads(data)


def _check_unpickles(component: object) -> None:
    """By plain pickle only: reading back a class pickled by value would change the program's own class."""
    try:
        data = pickle.dumps(component, protocol=PROTOCOL)
    except Exception:
        return
    pickle.loads(data)


def _cannot_pickle(component: object, error: Exception) -> str:
    path, culprit, reason = _culprit(component, "", _reason(error), [TRIES_MAX])
    if not path:
        return f"it does not pickle ({reason}): what it refers to must be able to travel to other processes"
    return f"its attribute '{path}' ({_kind(culprit)}) does not pickle ({reason}): create it in open or prepare"


def _culprit(value: object, path: str, reason: str, tries: list[int]) -> tuple[str, object, str]:
    """The innermost part of `value` that does not pickle: its path, itself, and why."""
    for name, part in _parts(value, path):
        if tries[0] == 0:
            break
        tries[0] -= 1
        try:
            cloudpickle.dumps(part, protocol=PROTOCOL)
        except Exception as error:
            return _culprit(part, name, _reason(error), tries)
    return path, value, reason


def _parts(value: object, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        yield from ((f"{path}[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((f"{path}[{index}]", part) for index, part in enumerate(value))
    else:
        state: dict[str, Any] = getattr(value, "__dict__", {}) if not isinstance(value, type) else {}
        yield from ((f"{path}.{name}" if path else name, part) for name, part in dict(state).items())


def _kind(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text:.160}" if text else type(error).__name__
