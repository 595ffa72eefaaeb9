"""What callbacks return: nothing. What would still have to be run is refused, for nobody would run it."""

from __future__ import annotations

import inspect

from rainband.errors import UsageError


def check_returned(component: str, callback: str, result: object) -> None:
    """Raises UsageError, and closes `result`, if the work of the callback is still to be done in it."""
    kind, run = unfinished(result), "runs"
    if not kind:
        return
    if inspect.iscoroutine(result) or inspect.isgenerator(result):
        result.close()
    fix = "Do the work in the call itself, and call self.emit([...]) for each row"
    if "generator" not in kind:
        run = "awaits"
        fix = f"Write `async def {callback}`, and let decorators keep it async"
    raise UsageError(f"{callback}() of '{component}' returned {kind}, which nobody {run}", fix)


def unfinished(result: object) -> str:
    """'a coroutine', 'a generator' ... if the work is still to be done in `result`; '' for any other value."""
    if inspect.iscoroutine(result):
        return "a coroutine"
    if inspect.isgenerator(result):
        return "a generator"
    if inspect.isasyncgen(result):
        return "an async generator"
    return "an awaitable" if inspect.isawaitable(result) else ""
