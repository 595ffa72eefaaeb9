"""Imports the file in which a user wrote a topology, under its own name, so that workers can import it by that name."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rainband.errors import RainbandError, UsageError, UserCodeFailed, did_you_mean
from rainband.topology import imports
from rainband.topology.builder import TopologyBuilder
from rainband.topology.graph import Topology

_directory: str | None = None
_modules: set[str] = set()


def load_topology(file: str | Path, name: str = "topology", arguments: Sequence[str] = ()) -> Topology:
    """The topology called `name` in `file`: a Topology, or a function that makes one of `arguments`.

    The function gets one parameter per argument, or, when its only parameter is called args or argv or is annotated as
    a list or Sequence, all of them in one. The directory of `file` comes first on the path, its modules behind the
    standard library's, and stays there until the next call, which forgets the modules of this one. Raises UsageError
    for a file or name that cannot be meant or for a file that cannot be imported, UserCodeFailed for what the function
    raises, both with file and line, and what a builder raises.
    """
    path = _checked(Path(file))
    module = _imported(path)
    value = _looked_up(module, name, path)
    if not isinstance(value, Topology) and callable(value) and not isinstance(value, type):
        value = _called(value, name, list(arguments), path)
        name += "()"
    elif arguments:
        raise UsageError(f"'{name}' in {path} is not a function, and takes no arguments", "Leave out what follows --")
    if isinstance(value, TopologyBuilder):
        raise UsageError(f"'{name}' in {path} is a TopologyBuilder", "Call its create_topology()")
    if not isinstance(value, Topology):
        raise UsageError(f"'{name}' in {path} is no topology but {value!r:.80}", "Use builder.create_topology()")
    if value.project is None:
        value.project = path.resolve().parent
    return value


def _checked(path: Path) -> Path:
    if path.is_dir():
        raise UsageError(f"{path} is a directory", "Name the .py file in it that holds the topology")
    if not path.is_file():
        raise UsageError(f"no file {path}")
    if path.suffix != ".py":
        raise UsageError(f"{path} is no .py file")
    stem = path.stem
    if stem == "rainband" or stem in sys.stdlib_module_names or stem.startswith("__") or "." in stem:
        raise UsageError(f"{path} would be imported as '{stem}', a name that is taken", "Rename the file")
    return path


def _imported(path: Path) -> ModuleType:
    """The module of `path`, freshly executed. When that fails, modules and path are as before."""
    global _directory
    real = path.resolve()
    _forget()
    other = sys.modules.get(real.stem)
    if other is not None and not _same_file(other, real):
        where = getattr(other, "__file__", "this program")
        raise UsageError(f"{path} would be imported as '{real.stem}', which is {where} already", "Rename the file")
    before = set(sys.modules)
    spec = importlib.util.spec_from_file_location(real.stem, real)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    _directory = str(real.parent)
    sys.modules[real.stem] = module
    imports.enter(_directory)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        _remember(before, real)
        _forget()
        if other is not None:
            sys.modules[real.stem] = other
        raise _explained(error, f"{path} cannot be imported", real, UsageError) from error
    _remember(before, real)
    return module


def _same_file(module: ModuleType, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and Path(file).resolve() == path


def _remember(before: set[str], path: Path) -> None:
    """Note the modules that came with the file, from its own directory."""
    inside = str(path.parent) + os.sep
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name == path.stem or (name not in before and isinstance(file, str) and file.startswith(inside)):
            _modules.add(name)


def _forget() -> None:
    """Undo the last import, so that another file with helpers of the same names gets its own."""
    global _directory
    for name in _modules:
        sys.modules.pop(name, None)
    _modules.clear()
    if _directory is not None:
        imports.leave(_directory)
    _directory = None


def _looked_up(module: ModuleType, name: str, path: Path) -> Any:
    if hasattr(module, name):
        return getattr(module, name)
    made = [known for known, value in vars(module).items() if isinstance(value, Topology)]
    names = [*made, *(known for known, value in vars(module).items() if inspect.isfunction(value))]
    hint = did_you_mean(name, names)
    if not hint:
        hint = f"Write {path}:{made[0]}" if made else f"Define {name} = builder.create_topology()"
    raise UsageError(f"{path} has no '{name}'", hint)


def _called(function: Callable[..., Any], name: str, arguments: list[str], path: Path) -> Any:
    given: list[Any] = arguments
    try:
        signature = inspect.signature(function)
        if _takes_list(signature):
            given = [arguments]
        signature.bind(*given)
    except TypeError:
        raise UsageError(
            f"{name}{signature} in {path} cannot take {len(arguments)} arguments", f"Write {path}:{name} -- ARGS"
        ) from None
    except ValueError:
        pass
    try:
        return function(*given)
    except BaseException as error:
        raise _explained(error, f"{name}() in {path} failed", path.resolve(), UserCodeFailed) from error


def _takes_list(signature: inspect.Signature) -> bool:
    parameters = list(signature.parameters.values())
    if len(parameters) != 1 or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        return False
    annotation = parameters[0].annotation
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "") or str(annotation)
    word = text.partition("[")[0].rpartition(".")[2].strip("'\" ").lower()
    return parameters[0].name in ("args", "argv") or word in ("list", "sequence", "tuple", "iterable")


def _explained(error: BaseException, what: str, path: Path, kind: type[RainbandError]) -> BaseException:
    """The error of `kind` to raise for one of the user's code: with the file and line it came from."""
    if isinstance(error, (RainbandError, KeyboardInterrupt)):
        return error
    place = _place(error, path)
    text = " ".join(str(error).split())
    if isinstance(error, SystemExit):
        fix = "Put what the program does when run under if __name__ == '__main__':"
        return kind(f"{what}: {place} ends the program ({text or 'exit'})", fix)
    if isinstance(error, SyntaxError):
        text = error.msg
    fix = "Install it, or put it beside the file" if isinstance(error, ModuleNotFoundError) else ""
    hidden = _hidden(error, path.parent)
    if hidden is not None:
        fix = f"Rename {hidden.name}: the standard library has a module of that name"
    return kind(f"{what}: {place}: {type(error).__name__}: {text}", fix)


def _hidden(error: BaseException, project: Path) -> Path | None:
    """The file of the project that was meant where a module of the standard library was found."""
    module = error.name if isinstance(error, ImportError) else getattr(getattr(error, "obj", None), "__name__", None)
    if module not in sys.stdlib_module_names:
        return None
    return next((path for path in (project / f"{module}.py", project / str(module)) if path.exists()), None)


def _place(error: BaseException, path: Path) -> str:
    """file:line of the innermost frame in the user's project."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno}"
    inside = str(path.parent) + os.sep
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(inside)]
    return f"{_short(frames[-1].filename)}:{frames[-1].lineno}" if frames else str(path)


def _short(file: str) -> str:
    here = os.getcwd() + os.sep
    return file.removeprefix(here)
