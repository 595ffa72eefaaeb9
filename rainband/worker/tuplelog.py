"""`topology.debug`: what tasks emit and execute goes to the log. Wrapped around their callables when they are bound."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from rainband.worker.bind import Instruments

logger = logging.getLogger("rainband.worker")

EMITTED = "component %s, task %d emitted on stream %s: %.2000r"
EXECUTES = "component %s, task %d executes a tuple of %s, stream %s: %.2000r"


class TupleLog:
    """Instruments that log each row once it is emitted, and each tuple when its execute begins."""

    def __init__(self, beyond: Instruments | None) -> None:
        """`beyond`: the instruments of a test kit, which see the same."""
        self.beyond = beyond

    def wrap_emit(self, component: str, task: int, emit: Callable[..., Any]) -> Callable[..., Any]:
        """`emit`, `emit_many` or `emit_direct` that tells the log of each row."""
        inner = emit if self.beyond is None else self.beyond.wrap_emit(component, task, emit)

        @wraps(emit)
        def emit_one(*arguments: Any, **given: Any) -> Any:
            result = inner(*arguments, **given)
            values = given["values"] if "values" in given else arguments[-1]
            logger.info(EMITTED, component, task, given.get("stream", "default"), values)
            return result

        @wraps(emit)
        def emit_many(rows: Any, **given: Any) -> Any:
            listed = rows if isinstance(rows, Sequence) else list(rows)
            result = inner(listed, **given)
            for values in listed:
                logger.info(EMITTED, component, task, given.get("stream", "default"), values)
            return result

        return emit_many if emit.__name__ == "emit_many" else emit_one

    def wrap_execute(self, component: str, task: int, execute: Callable[..., Any]) -> Callable[..., Any]:
        """`execute` or `execute_batch` that tells the log of each tuple."""
        inner = execute if self.beyond is None else self.beyond.wrap_execute(component, task, execute)

        @wraps(execute)
        def executed(argument: Any) -> Any:
            for tup in argument if isinstance(argument, list) else [argument]:
                logger.info(EXECUTES, component, task, tup.component, tup.stream, tup.values)
            return inner(argument)

        return executed

    def settled(self, component: str, task: int, message_id: object, done: bool) -> None:
        if self.beyond is not None:
            self.beyond.settled(component, task, message_id, done)

    def added(self, made: Any) -> None:
        if self.beyond is not None:
            self.beyond.added(made)
