"""The shape of the source is a unit test: who may import whom, where each library lives, what stays pure.

Reads the source tree with `ast` and imports nothing of rainband.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "rainband"

# Each line may import the lines above it; names on one line may import each other (no cycles all the same).
LAYERS = (
    ("errors", "build"),
    ("clock", "config", "records"),
    ("groupings",),
    ("topology",),
    ("acker",),
    ("messaging",),
    ("cluster",),
    ("worker", "supervisor", "nimbus"),
    ("local", "testing"),
    ("",),  # the names users import
    ("demo",),
    ("cli", "ui"),
    ("__main__",),
)
RANK = {room: rank for rank, line in enumerate(LAYERS) for room in line}
STRANGERS = {"worker", "supervisor", "nimbus"}  # the process boundary is the import boundary

HOMES = {
    "zmq": {"messaging"},
    "kazoo": {"cluster"},
    "fsspec": {"cluster"},
    "sqlite3": {"cluster", "demo"},  # demo: its bolts stand for a user's own, with the user's own database
    "psutil": {"supervisor"},
    "subprocess": {"supervisor"},
    "multiprocessing": {"supervisor"},
    "click": {"cli"},
    "rich": {"cli"},
    "starlette": {"ui"},
    "uvicorn": {"ui"},
    "time": {"clock"},
}
STARTS_PROCESSES = {
    "fork", "forkpty", "popen", "system", "posix_spawn", "execv", "execve", "execvp", "spawnl", "spawnv", "spawnve",
}

# Decisions: no socket, file, thread, clock, hidden random or log. They are told the time and given their dice.
PURE = (
    "acker/ledger.py", "errors.py", "records.py",
    "groupings/choosers.py", "groupings/hashing.py", "groupings/specs.py",
    "messaging/frames.py", "messaging/link.py", "messaging/links.py", "messaging/portions.py", "messaging/values.py",
    "nimbus/lifecycle.py", "nimbus/liveness.py", "nimbus/rest.py", "nimbus/scheduler.py",
    "supervisor/orders.py", "supervisor/pulse.py", "supervisor/slot.py",
    "topology/order.py", "topology/plan.py", "topology/streams.py", "topology/tuples.py", "topology/validate.py",
    "worker/books.py", "worker/emit.py", "worker/reliable.py", "worker/routes.py", "worker/stalls.py",
    "worker/tasks.py", "worker/window.py",
)
IMPURE = {
    "asyncio", "logging", "os", "pathlib", "queue", "secrets", "select", "shutil", "signal", "socket",
    "tempfile", "threading", "time",
}
VAGUE = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}

FILE_LINES_MAX = 520
FUNCTION_LINES_MAX = 60
PLAIN_FUNCTION_LINES = 12


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """(line, module, names) of every import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ()
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or "", tuple(alias.name for alias in node.names)


def layer_faults(path: Path, tree: ast.AST) -> Iterator[str]:
    room = room_of(path)
    for line, module, names in imports(tree):
        where = f"{path.relative_to(PACKAGE.parent)}:{line}"
        top, *rest = module.split(".")
        if top != "rainband":
            if room not in HOMES.get(top, {room}):
                yield f"{where}: {top} belongs to {', '.join(sorted(HOMES[top]))}"
            continue
        for target in {rest[0]} if rest else {name if name in RANK else "" for name in names}:
            if RANK[target] > RANK[room]:
                yield f"{where}: {room} may not know {target or 'rainband itself'}"
            elif target != room and {room, target} <= STRANGERS:
                yield f"{where}: {room} and {target} meet only over the wire"


def process_faults(path: Path, tree: ast.AST) -> Iterator[str]:
    if room_of(path) == "supervisor":
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in STARTS_PROCESSES and ast.unparse(node.value) == "os":
            yield f"{path.relative_to(PACKAGE.parent)}:{node.lineno}: os.{node.attr} belongs to supervisor"


def pure_faults(path: Path, tree: ast.AST) -> Iterator[str]:
    where = path.relative_to(PACKAGE.parent)
    for line, module, names in imports(tree):
        if module.split(".")[0] in IMPURE | set(HOMES) or (module == "random" and set(names) - {"Random"}):
            yield f"{where}:{line}: a decision core imports {module}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "random" and node.attr != "Random":
            yield f"{where}:{node.lineno}: hidden random: random.{node.attr}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"open", "print", "input"}:
            yield f"{where}:{node.lineno}: a decision core calls {ast.unparse(node.func)}()"


def pattern_faults(path: Path, tree: ast.AST) -> Iterator[str]:
    """`case Kind(field=name)`: by position, each match makes a string that stays in Python's cache of attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.MatchClass) and node.patterns and ast.unparse(node.cls) not in dir(builtins):
            yield f"{path.relative_to(PACKAGE.parent)}:{node.lineno}: {ast.unparse(node)} matches by position"


def tuple_faults(path: Path, tree: ast.AST) -> Iterator[str]:
    """`tuple([... for ...])`: of a generator it is begun at another length and cut, and freed into the list of its own.

    Up to 2,000 of each length stay there, taken by nobody: memory of a process that lives long grows by that.
    """
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if not isinstance(node, ast.Call) or ast.unparse(node.func) != "tuple":
                    continue
                if any(isinstance(argument, ast.GeneratorExp) for argument in node.args):
                    yield f"{path.relative_to(PACKAGE.parent)}:{node.lineno}: tuple() of a generator"


def size_faults(path: Path, tree: ast.Module) -> Iterator[str]:
    where = path.relative_to(PACKAGE.parent)
    lines = len(path.read_text(encoding="utf-8").splitlines())
    if lines > FILE_LINES_MAX:
        yield f"{where}: {lines} lines, more than {FILE_LINES_MAX}"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            length = (node.end_lineno or 0) - first.lineno + 1
            if length > FUNCTION_LINES_MAX:
                yield f"{where}:{node.lineno}: {node.name} has {length} lines, more than {FUNCTION_LINES_MAX}"


def naming_faults(path: Path, tree: ast.Module) -> Iterator[str]:
    where = path.relative_to(PACKAGE.parent)
    if VAGUE & {part.removesuffix(".py") for part in where.parts}:
        yield f"{where}: a vague name says nothing of what is inside"
    if not ast.get_docstring(tree) and tree.body:
        yield f"{where}: no docstring on the module"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not ast.get_docstring(node):
            if (node.end_lineno or 0) - node.lineno < PLAIN_FUNCTION_LINES:
                continue  # its name and types say it all
            yield f"{where}:{node.lineno}: no docstring on {node.name}"


def test_every_room_is_a_package() -> None:
    assert [path.name for path in {source.parent for source in sources()} if not (path / "__init__.py").exists()] == []


def faults(check: object) -> list[str]:
    assert callable(check)
    return [fault for path in sources() for fault in check(path, parse(path))]


CHECKS = [layer_faults, process_faults, pattern_faults, tuple_faults, size_faults, naming_faults]


@pytest.mark.parametrize("check", CHECKS)
def test_every_source_file(check: object) -> None:
    found = faults(check)
    assert not found, "\n" + "\n".join(found)


def test_decision_cores_are_pure() -> None:
    present = [PACKAGE / name for name in PURE if (PACKAGE / name).exists()]
    assert [fault for path in present for fault in pure_faults(path, parse(path))] == []


def test_no_import_cycles() -> None:
    modules = {module_of(path): path for path in sources()}
    graph = {name: _eager(parse(path), set(modules)) - {name} for name, path in modules.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"import cycle: {' -> '.join([*trail[trail.index(name):], name])}"
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


def _eager(tree: ast.Module, known: set[str]) -> set[str]:
    """Modules imported when this one is: not inside functions, not for type checkers."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for _, module, names in imports(node):
                inner = {f"{module}.{name}" for name in names} & known
                found |= inner or ({module} & known)
    return found


UNPICKLERS = {"pickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "copyreg"}
READS_USER_CODE = {"load_component", "load_topology", "decode_rows", "loads", "Unpickler", "unpack_pickle"}


def reached(start: str, later: bool) -> dict[str, str]:
    """Modules that importing `start` imports, by whom; with `later` also those that its functions would."""
    modules = {module_of(path): path for path in sources()}
    found: dict[str, str] = {}
    todo = [(start, "")]
    while todo:
        name, importer = todo.pop()
        if name in found:
            continue
        found[name] = importer
        if name in modules:
            parents = {name.rpartition(".")[0]} - {""}
            todo += [(target, name) for target in parents | _imported(parse(modules[name]), set(modules), later)]
    return found


def _imported(tree: ast.AST, known: set[str], later: bool) -> set[str]:
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not later:
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            for _, module, names in imports(ast.Module([node], [])):
                inner = {f"{module}.{name}" for name in names} & known
                found |= {module} | inner
        found |= _imported(node, known, later)
    return found


@pytest.mark.parametrize(("start", "later"), [("rainband.nimbus.service", True), ("rainband.supervisor.daemon", False)])
def test_daemons_have_nothing_that_unpickles(start: str, later: bool) -> None:
    """Nimbus has no way to any; a supervisor imports none by itself, and calls no function that would (see below)."""
    found = reached(start, later)
    assert len(found) > 30, "the imports are not seen any more"
    chains = []
    for name in sorted(found):
        if name.split(".")[0] in UNPICKLERS:
            chain = [name]
            while found[chain[-1]]:
                chain.append(found[chain[-1]])
            chains.append(" <- ".join(chain))
    assert chains == []


def test_supervisors_and_nimbus_never_read_what_users_pickled() -> None:
    wrong = []
    for path in sources():
        if room_of(path) not in ("supervisor", "nimbus", "cluster"):
            continue
        for node in ast.walk(parse(path)):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            if name in READS_USER_CODE:
                wrong.append(f"{path.relative_to(PACKAGE.parent)}:{getattr(node, 'lineno', 0)}: {name}")
        wrong += [f"{path.name}:{line}: {module}" for line, module, _ in imports(parse(path)) if module in UNPICKLERS]
    assert wrong == []


def test_an_unpickler_is_found_wherever_it_is_imported() -> None:
    found = reached("rainband.worker.process", True)
    assert {"pickle", "cloudpickle"} & set(found)


def test_unit_tests_neither_sleep_nor_mock() -> None:
    found = []
    for path in sorted((PACKAGE.parent / "tests" / "unit").rglob("*.py")):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Attribute) and node.attr == "sleep" and ast.unparse(node.value) == "time":
                found.append(f"{path.name}:{node.lineno}: time.sleep")
        found += [f"{path.name}:{line}: {m}" for line, m, _ in imports(parse(path)) if m.startswith("unittest.mock")]
    assert found == []


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("acker/bad.py", "import zmq", "zmq belongs to messaging"),
        ("worker/bad.py", "from rainband.nimbus.core import Nimbus", "worker and nimbus meet only over the wire"),
        ("groupings/bad.py", "import rainband.topology.plan", "groupings may not know topology"),
        ("cluster/bad.py", "from rainband import Bolt", "cluster may not know rainband itself"),
        ("nimbus/bad.py", "def f():\n    import time", "time belongs to clock"),
    ],
)
def test_the_checks_see_planted_faults(name: str, text: str, fault: str) -> None:
    found = list(layer_faults(PACKAGE / name, ast.parse(text)))
    assert len(found) == 1
    assert fault in found[0]
