"""What can be seen of a component before it ever runs: mistakes that would otherwise show late, or never.

Everything here looks at classes and their source and calls nothing of the user's. Where the source is not at hand, or
in doubt, nothing is said.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from types import CodeType
from typing import Any

from rainband.topology import components
from rainband.topology.components import Component, ManualBolt, ReliableSpout, Spout, overrides

RETURNLESS = ("execute", "execute_batch", "next_tuple")
ARGUMENTS = {"open": 1, "ack": 1, "fail": 1, "seek": 1, "prepare": 1, "execute": 1, "execute_batch": 1}
BUILDERS = ("list", "tuple", "dict", "set", "frozenset", "str", "bytes", "int", "float", "bool", "sorted", "len", "sum")

REPLAYS = "replays"
OWN_FAIL = "own fail()"
REPORTS_ONLY = "reports only"
UNTRACKED = "untracked"


def problems_of_kind(component: object, wanted: type[Component]) -> list[str]:
    """Why `component` is not an instance of a user's subclass of Spout, or of Bolt."""
    word, other = ("spout", "bolt") if wanted is Spout else ("bolt", "spout")
    if isinstance(component, type):
        name = component.__name__
        return [f"{name} is a class, not an instance: write {name}(...)"]
    if isinstance(component, Component) and not isinstance(component, wanted):
        return [f"{type(component).__name__} is a {other}: use set_{other}"]
    if not isinstance(component, wanted):
        article = "Spout" if wanted is Spout else "Bolt or ManualBolt"
        return [f"{component!r:.80} is no {word}: pass an instance of a subclass of {article}"]
    return []


def problems_of(component: Component) -> list[str]:
    """Everything wrong with a spout or bolt by itself, each with its fix."""
    found = list(_hidden_names(component))
    callbacks = [name for name in callback_names(component) if overrides(component, name)]
    found += _missing(component)
    for name in callbacks:
        found += _problems_of_callback(component, name)
    found += _problems_of_settings(component, callbacks)
    return found


def callback_names(component: object) -> tuple[str, ...]:
    """The callbacks a component of this kind can have."""
    if isinstance(component, ReliableSpout):
        return components.SPOUT_CALLBACKS
    if isinstance(component, Spout):
        return tuple([name for name in components.SPOUT_CALLBACKS if name not in ("position", "seek")])
    return components.BOLT_CALLBACKS


def runtime_names(component: object) -> tuple[str, ...]:
    """The names the runtime binds onto a component of this kind."""
    if isinstance(component, Spout):
        return components.SPOUT_RUNTIME
    return components.MANUAL_RUNTIME if isinstance(component, ManualBolt) else components.BOLT_RUNTIME


def _hidden_names(component: Component) -> Iterator[str]:
    for name in runtime_names(component):
        if overrides(component, name):
            yield f"its attribute '{name}' hides the {name}() of the runtime: give it another name"
    for name in callback_names(component):
        value = inspect.getattr_static(component, name, None)
        function = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
        if overrides(component, name) and not callable(function):
            yield f"its attribute '{name}' hides the callback {name}(): give it another name"


def _missing(component: Component) -> Iterator[str]:
    name = type(component).__name__
    if isinstance(component, Spout):
        if not overrides(component, "next_tuple"):
            yield f"{name} has no next_tuple: define next_tuple(self)"
    elif not overrides(component, "execute") and not overrides(component, "execute_batch"):
        yield f"{name} has no execute: define execute(self, tup)"
    if isinstance(component, ReliableSpout) and overrides(component, "position") != overrides(component, "seek"):
        has, lacks = ("position", "seek") if overrides(component, "position") else ("seek", "position")
        yield f"{name} has {has}() but no {lacks}(): define both to survive the loss of its process, or neither"


def _problems_of_callback(component: Component, name: str) -> Iterator[str]:
    function = inspect.unwrap(getattr(type(component), name, None) or getattr(component, name))
    if not callable(function):
        return
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        fix = "call self.emit([...]) for each" if name in (*RETURNLESS, "tick") else "it would never run"
        yield f"{name}() yields: {fix}"
    elif name in RETURNLESS and returns_value(function):
        yield f"{name}() returns a value, which nobody would get: call self.emit([...])"
    if not _can_be_called(component, name):
        args = ", ".join(["self", *("x" for _ in range(ARGUMENTS.get(name, 0)))])
        args = args.replace("x", {"execute": "tup", "execute_batch": "tups"}.get(name, _argument(name)))
        yield f"{name}() takes other arguments than it is called with: define {name}({args})"
    outer = getattr(component, name)
    if inspect.iscoroutinefunction(function) and not inspect.iscoroutinefunction(outer):
        yield (
            f"{name}() is async behind a decorator that is not, and would return a coroutine, which nobody awaits: "
            f"write `async def {name}`, and let decorators keep it async"
        )
    if name == "position" and inspect.iscoroutinefunction(function):
        yield "position() is async, but its answer is needed at once: define it with def, and read ahead elsewhere"
    if component.blocking is True and inspect.iscoroutinefunction(function):
        yield f"{name}() is async but the class says blocking = True: choose one"


def _argument(name: str) -> str:
    return {"open": "context", "prepare": "context", "seek": "position"}.get(name, "message_id")


def _can_be_called(component: Component, name: str) -> bool:
    try:
        signature = inspect.signature(getattr(component, name))
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*range(ARGUMENTS.get(name, 0)))
    except TypeError:
        return False
    return True


def _problems_of_settings(component: Component, callbacks: list[str]) -> Iterator[str]:
    if not isinstance(component.blocking, bool):
        yield f"blocking is {component.blocking!r:.40}: write True or False"
    if type(component.max_in_flight) is not int or component.max_in_flight < 1:
        yield f"max_in_flight is {component.max_in_flight!r:.40}: write a whole number of at least 1"
    if isinstance(component, ReliableSpout):
        if type(component.max_retries) is not int or component.max_retries < 0:
            yield f"max_retries is {component.max_retries!r:.40}: write a whole number of at least 0"
        for name in ("retry_delay_s", "retry_delay_max_s"):
            value = getattr(component, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
                yield f"{name} is {value!r:.40}: write a number of seconds of at least 0"


def is_async(component: object) -> bool:
    """Whether any callback is `async def`."""
    names = (name for name in callback_names(component) if overrides(component, name))
    return any(inspect.iscoroutinefunction(inspect.unwrap(getattr(component, name))) for name in names)


def guarantee_of(spout: Spout) -> str:
    """What a spout promises for its messages, as far as its class tells."""
    if isinstance(spout, ReliableSpout):
        return REPLAYS
    if _emits_untracked_only(type(spout)):
        return UNTRACKED
    return OWN_FAIL if overrides(spout, "fail") else REPORTS_ONLY


def _emits_untracked_only(kind: type) -> bool:
    given = []
    for owner in kind.__mro__:
        if owner.__module__ == components.__name__ or owner is object:
            continue
        for value in vars(owner).values():
            tree = _tree_of(value)
            if tree is not None:
                given += list(_message_ids(tree))
    return bool(given) and all(isinstance(value, ast.Constant) and value.value is None for value in given)


def _message_ids(tree: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.startswith("emit"):
            yield from (keyword.value for keyword in node.keywords if keyword.arg == "message_id")


def returns_value(function: Any) -> bool:
    """Whether some `return` of a function hands back what is plainly a value. Calls and names may well be None."""
    tree = _tree_of(function)
    if tree is None:
        return False
    own = function.__code__.co_varnames[1 : function.__code__.co_argcount]
    nodes = list(_own_nodes(tree))
    names = [*_plain_names(nodes, own)]
    returns = [node.value for node in nodes if isinstance(node, ast.Return) and node.value is not None]
    return any(_plain_value(value, own) or (isinstance(value, ast.Name) and value.id in names) for value in returns)


def _plain_names(nodes: list[ast.AST], arguments: tuple[str, ...]) -> Iterator[str]:
    """Names that are bound once, to what is plainly a value."""
    bound = [node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)]
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(target := node.targets[0], ast.Name):
            if len(node.targets) == 1 and bound.count(target.id) == 1 and _plain_value(node.value, arguments):
                yield target.id


def _plain_value(node: ast.expr, arguments: tuple[str, ...]) -> bool:
    if isinstance(node, ast.Constant):
        return node.value is not None
    if isinstance(node, ast.IfExp):
        return _plain_value(node.body, arguments) or _plain_value(node.orelse, arguments)
    if isinstance(node, (ast.Await, ast.NamedExpr)):
        return False
    if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)):
        return _root_of(node) in arguments
    if isinstance(node, ast.BoolOp):
        return _plain_value(node.values[-1], arguments)
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name):
            return node.func.id in BUILDERS
        return _root_of(node.func) in ("", *arguments)
    return True


def _root_of(node: ast.expr) -> str | None:
    """The name whose attributes and items these are; '' for a literal, None for what comes out of a call, say."""
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    if isinstance(node, ast.Constant):
        return ""
    return node.id if isinstance(node, ast.Name) else None


def _own_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes of a function, without those of functions and classes inside it."""
    todo = list(ast.iter_child_nodes(tree))
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            todo.extend(ast.iter_child_nodes(node))


_trees: dict[CodeType, ast.AST | None] = {}


def _tree_of(value: object) -> ast.AST | None:
    """The syntax tree of a function, None when its source cannot be had."""
    function = inspect.unwrap(value) if callable(value) else value
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        return None
    if code not in _trees:
        if len(_trees) > 10_000:
            _trees.clear()
        _trees[code] = _parse(function)
    return _trees[code]


def _parse(function: Any) -> ast.AST | None:
    try:
        parsed = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    first = parsed.body[0] if parsed.body else None
    edited = getattr(first, "name", None) != function.__name__  # the file changed since it was imported
    return first if isinstance(first, (ast.FunctionDef, ast.AsyncFunctionDef)) and not edited else None


